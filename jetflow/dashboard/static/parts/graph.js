// The graph of a run: one node a step. A step that spawned has one bar below it, however many children it has.
import { html, cls, useEffect, useLayoutEffect, useRef, useState } from './html.js'
import { Bar, Status } from './status.js'
import { Icon } from './icons.js'
import { Took, Until } from './time.js'
import { count, duration, percent } from './format.js'
import { waitWords } from './waits.js'
import { LARGE, Minimap, SMALLEST, Zoom } from './minimap.js'

const WIDE = 232
const SLIM = 284
const GUTTER = 26
const [PLAIN, FANNED, GAP, BESIDE] = [64, 126, 64, 22]

/** Nodes of one layer that stand in one column; more go on beside it. */
const [TALLEST, COLUMN] = [12, 22]

/** Where nodes stand: layers from left to right, or one below the other on a narrow page. Order within a layer is the server's. */
export function placed(graph, fanned, narrow) {
  const layers = []
  for (const node of [...graph.nodes].sort((a, b) => a.layer - b.layer || a.y - b.y)) (layers[node.layer] ??= []).push(node.name)
  const tall = (name) => (fanned.has(name) ? FANNED : PLAIN)
  const places = new Map()
  if (narrow) {
    let y = 0
    for (const name of layers.flat()) {
      places.set(name, { x: GUTTER, y, w: SLIM, h: tall(name) })
      y += tall(name) + BESIDE
    }
    return { places, width: GUTTER + SLIM, height: y - BESIDE }
  }
  const stacks = layers.map((layer) => {
    const each = Math.ceil(layer.length / Math.ceil(layer.length / TALLEST))
    return Array.from({ length: Math.ceil(layer.length / each) }, (_, n) => layer.slice(n * each, (n + 1) * each))
  })
  const heightOf = (names) => names.reduce((sum, name) => sum + tall(name) + BESIDE, -BESIDE)
  const height = Math.max(...stacks.flat().map(heightOf))
  let x = 0
  for (const columns of stacks) {
    for (const names of columns) {
      let y = (height - heightOf(names)) / 2
      for (const name of names) {
        places.set(name, { x, y, w: WIDE, h: tall(name) })
        y += tall(name) + BESIDE
      }
      x += WIDE + COLUMN
    }
    x += GAP - COLUMN
  }
  return { places, width: x - GAP, height }
}

function edge(from, to, narrow) {
  if (narrow) {
    const [y1, y2] = [from.y + from.h - 20, to.y + 24]
    const bulge = Math.min(GUTTER + 6, 12 + (y2 - y1) / 12)
    return { line: `M${GUTTER} ${y1}C${GUTTER - bulge} ${y1} ${GUTTER - bulge} ${y2} ${GUTTER - 7} ${y2}`, tip:
      `M${GUTTER - 1} ${y2}l-7 -4v8z` }
  }
  const [x1, y1, x2, y2] = [from.x + from.w, from.y + 32, to.x - 7, to.y + 32]
  const bend = Math.max(28, (x2 - x1) / 2)
  return { line: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`, tip: `M${x2 + 6} ${y2}l-7 -4v8z` }
}

/** What a step allows, where nothing runs. */
const declared = (step) => [step.attempts > 1 && `${step.attempts} attempts`, step.timeout && `${duration(step.timeout)} each`,
  step.max_running && `${step.max_running} at once`].filter(Boolean)

function said(step) {
  const of = step.declared?.attempts
  const parts = []
  if (step.status === 'retrying' && step.again) parts.push(html`again <${Until} at=${step.again} />`)
  const waits = waitWords(step)
  if (waits) parts.push(waits)
  if (step.attempts > 1 || (step.status === 'failed' && of > 1)) parts.push(`attempt ${step.attempts}${of ? ` of ${of}` : ''}`)
  if (step.unattended) parts.push('no worker takes it')
  return parts
}

export function Graph({ graph, steps, totals, chosen, choose, openChildren, plain = false }) {
  const ref = useRef(null)
  const [narrow, setNarrow] = useState(matchMedia('(max-width: 959px)').matches)
  useEffect(() => {
    const query = matchMedia('(max-width: 959px)')
    const changed = () => setNarrow(query.matches)
    query.addEventListener('change', changed)
    return () => query.removeEventListener('change', changed)
  }, [])
  const fans = new Map(totals.filter((one) => one.totals.spawned).map((one) => [one.step, one]))
  const byName = new Map(steps.map((step) => [step.name, step]))
  const { places, width, height } = placed(graph, fans, narrow)
  const large = graph.nodes.length > LARGE
  const [scale, setScale] = useState(1)
  const fit = () => {
    const room = ref.current
    const below = narrow ? Infinity : Math.max(room.clientHeight, 520) - 56
    return Math.max(SMALLEST, Math.min(1, (room.clientWidth - 24) / width, below / height))
  }
  useLayoutEffect(() => { if (large) setScale(fit()) }, [large, narrow])
  useLayoutEffect(() => {
    if (large) return
    const live = steps.find((step) => ['failed', 'running', 'waiting', 'retrying'].includes(step.status))
    const place = live && places.get(live.name)
    if (place && ref.current.scrollWidth > ref.current.clientWidth) ref.current.scrollLeft = place.x - 60
  }, [])
  return html`<div class=${cls('panel graphpane', large && 'large')}><div class="canvas" ref=${ref} role="group"
    aria-label="Steps of the run" tabindex="0" onPointerDown=${large ? pan : undefined}>
    <div class="room" style=${{ width: `${width * scale}px`, height: `${height * scale}px` }}>
    <div class="field" style=${{ width: `${width}px`, height: `${height}px`, transform: scale === 1 ? undefined : `scale(${scale})` }}>
    <svg class="edges" width=${width} height=${height} aria-hidden="true">${graph.edges.map(({ from, to }) => {
      const [source, target] = [byName.get(from), byName.get(to)]
      const { line, tip } = edge(places.get(from), places.get(to), narrow)
      const state = source?.status === 'succeeded' && target && !['pending', 'skipped'].includes(target.status) ? 'done' : ''
      return html`<g key=${`${from}>${to}`}><path class=${state} d=${line} /><path class="tip" d=${tip} /></g>`
    })}</svg>
    ${graph.nodes.map(({ name }) => {
      const [place, step, fan] = [places.get(name), byName.get(name) ?? { name, status: 'pending', attempts: 0 }, fans.get(name)]
      const style = { left: `${place.x}px`, top: `${place.y}px`, width: `${place.w}px`, height: `${place.h}px` }
      const parts = plain ? declared(step) : said(step)
      return html`<div key=${name} style=${style} data-step=${name}
        class=${cls('node', chosen === name && 'on', ['running', 'waiting'].includes(step.status) && 'live', ['failed',
          'timed_out'].includes(step.status) && 'bad', !plain && ['pending', 'skipped'].includes(step.status) && 'later')}>
        <${plain ? 'div' : 'button'} class="face" aria-expanded=${plain ? undefined : chosen === name}
          onClick=${plain ? undefined : () => choose(name)}>
          <span class="line"><span class="label cut" title=${name}>${name}</span>
            ${!plain && html`<${Status} status=${step.status} />`}</span>
          <span class="said line"><span class="cut">
            ${parts.length ? parts.map((part, n) => html`${n ? ' · ' : ''}${part}`) : step.worker ? `on ${step.worker}` :
              step.status === 'pending' && !plain ? 'not begun' : '\u00a0'}</span>
            ${step.started && html`<${Took} started=${step.started} ended=${step.ended}
              open=${['running', 'waiting', 'retrying'].includes(step.status)} />`}</span></${plain ? 'div' : 'button'}>
        ${fan && html`<button class="fan" onClick=${() => openChildren(name)}
          aria-label=${`${count(fan.totals.spawned)} children of ${name}: show them`}>
          <span class="line"><span class="line"><${Icon} name="children" size=${14} /><b>${count(fan.totals.spawned)}
            </b> ${fan.totals.spawned === 1 ? 'child' : 'children'}</span><span class="dim">
              ${percent(fan.totals.spawned - fan.totals.open, fan.totals.spawned)}</span></span>
          <${Bar} totals=${fan.totals} live=${fan.totals.open > 0} />
          <span class="line dim">${fan.totals.failed ? html`<span class="st t-red"><${Icon} name="failed" size=${12} />
            ${count(fan.totals.failed)} failed</span>` :
              html`<span>${fan.totals.open ? `${count(fan.totals.open)} open` : 'all ended'}</span>`}
                <span class="line">Table<${Icon} name="right" size=${12} /></span></span></button>`}
      </div>`
    })}</div></div></div>
    ${large && html`<${Zoom} scale=${scale} fit=${fit} set=${setScale} /><${Minimap} places=${places} width=${width} height=${height}
      scale=${scale} port=${ref} statuses=${new Map(steps.map((step) => [step.name, step.status]))} />`}</div>`
}

/** Drag the ground to move what is seen. */
function pan(event) {
  if (event.target.closest('.node') || event.button) return
  const port = event.currentTarget
  const from = { x: event.clientX + port.scrollLeft, y: event.clientY + port.scrollTop }
  const move = (next) => port.scrollTo(from.x - next.clientX, from.y - next.clientY)
  const end = () => { removeEventListener('pointermove', move); removeEventListener('pointerup', end) }
  addEventListener('pointermove', move)
  addEventListener('pointerup', end)
}
