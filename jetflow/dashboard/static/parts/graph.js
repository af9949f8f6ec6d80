// The graph of a run: one node a step. A step that spawned has one bar below it, however many children it has.
import { html, cls, useEffect, useLayoutEffect, useRef, useState } from './html.js'
import { Bar, Status } from './status.js'
import { Icon } from './icons.js'
import { Took, Until } from './time.js'
import { count, percent } from './format.js'

const WIDE = 232
const [PLAIN, FANNED, GAP, BESIDE] = [64, 126, 64, 22]

/** Where nodes stand: layers from left to right, or from above on a narrow page. Order within a layer is the server's. */
export function placed(graph, fanned, narrow) {
  const layers = []
  for (const node of [...graph.nodes].sort((a, b) => a.layer - b.layer || a.y - b.y)) (layers[node.layer] ??= []).push(node.name)
  const tall = (name) => (fanned.has(name) ? FANNED : PLAIN)
  const places = new Map()
  if (narrow) {
    const width = Math.max(...layers.map((layer) => layer.length * (WIDE + BESIDE) - BESIDE))
    let y = 0
    for (const layer of layers) {
      let x = (width - (layer.length * (WIDE + BESIDE) - BESIDE)) / 2
      for (const name of layer) {
        places.set(name, { x, y, w: WIDE, h: tall(name) })
        x += WIDE + BESIDE
      }
      y += Math.max(...layer.map(tall)) + 40
    }
    return { places, width, height: y - 40 }
  }
  const heights = layers.map((layer) => layer.reduce((sum, name) => sum + tall(name) + BESIDE, -BESIDE))
  const height = Math.max(...heights)
  layers.forEach((layer, n) => {
    let y = (height - heights[n]) / 2
    for (const name of layer) {
      places.set(name, { x: n * (WIDE + GAP), y, w: WIDE, h: tall(name) })
      y += tall(name) + BESIDE
    }
  })
  return { places, width: layers.length * (WIDE + GAP) - GAP, height }
}

function edge(from, to, narrow) {
  if (narrow) {
    const [x1, y1, x2, y2] = [from.x + from.w / 2, from.y + from.h, to.x + to.w / 2, to.y - 7]
    return { line: `M${x1} ${y1}C${x1} ${y1 + 22} ${x2} ${y2 - 22} ${x2} ${y2}`, tip: `M${x2} ${y2 + 6}l-4 -7h8z` }
  }
  const [x1, y1, x2, y2] = [from.x + from.w, from.y + 32, to.x - 7, to.y + 32]
  const bend = Math.max(28, (x2 - x1) / 2)
  return { line: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`, tip: `M${x2 + 6} ${y2}l-7 -4v8z` }
}

function said(step) {
  const of = step.declared?.attempts
  const parts = []
  if (step.status === 'retrying' && step.again) parts.push(html`again <${Until} at=${step.again} />`)
  if (step.attempts > 1 || (step.status === 'failed' && of > 1)) parts.push(`attempt ${step.attempts}${of ? ` of ${of}` : ''}`)
  if (step.unattended) parts.push('no worker takes it')
  return parts
}

export function Graph({ graph, steps, totals, chosen, choose, openChildren }) {
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
  useLayoutEffect(() => {
    const live = steps.find((step) => ['failed', 'running', 'waiting', 'retrying'].includes(step.status))
    const place = live && places.get(live.name)
    if (place && ref.current.scrollWidth > ref.current.clientWidth) ref.current.scrollLeft = place.x - 60
  }, [])
  return html`<div class="panel graphpane"><div class="canvas" ref=${ref} role="group" aria-label="Steps of the run" tabindex="0"><div class="field" style=${{ width: `${width}px`, height: `${height}px` }}>
    <svg class="edges" width=${width} height=${height} aria-hidden="true">${graph.edges.map(({ from, to }) => {
      const [source, target] = [byName.get(from), byName.get(to)]
      const { line, tip } = edge(places.get(from), places.get(to), narrow)
      const state = source?.status === 'succeeded' && target && !['pending', 'skipped'].includes(target.status) ? 'done' : ''
      return html`<g key=${`${from}>${to}`}><path class=${state} d=${line} /><path class="tip" d=${tip} /></g>`
    })}</svg>
    ${graph.nodes.map(({ name }) => {
      const [place, step, fan] = [places.get(name), byName.get(name) ?? { name, status: 'pending', attempts: 0 }, fans.get(name)]
      const style = { left: `${place.x}px`, top: `${place.y}px`, width: `${place.w}px`, height: `${place.h}px` }
      const parts = said(step)
      return html`<div key=${name} style=${style} data-step=${name} class=${cls('node', chosen === name && 'on', ['running', 'waiting'].includes(step.status) && 'live', ['failed', 'timed_out'].includes(step.status) && 'bad', ['pending', 'skipped'].includes(step.status) && 'later')}>
        <button class="face" aria-expanded=${chosen === name} onClick=${() => choose(name)}>
          <span class="line"><span class="label cut" title=${name}>${name}</span><${Status} status=${step.status} /></span>
          <span class="said line"><span class="cut">${parts.length ? parts.map((part, n) => html`${n ? ' · ' : ''}${part}`) : step.worker ? `on ${step.worker}` : step.status === 'pending' ? 'not begun' : ' '}</span>
            ${step.started && html`<${Took} started=${step.started} ended=${step.ended} open=${['running', 'waiting', 'retrying'].includes(step.status)} />`}</span></button>
        ${fan && html`<button class="fan" onClick=${() => openChildren(name)} aria-label=${`${count(fan.totals.spawned)} children of ${name}: show them`}>
          <span class="line"><span class="line"><${Icon} name="children" size=${14} /><b>${count(fan.totals.spawned)}</b> ${fan.totals.spawned === 1 ? 'child' : 'children'}</span><span class="dim">${percent(fan.totals.spawned - fan.totals.open, fan.totals.spawned)}</span></span>
          <${Bar} totals=${fan.totals} live=${fan.totals.open > 0} />
          <span class="line dim">${fan.totals.failed ? html`<span class="st t-red"><${Icon} name="failed" size=${12} />${count(fan.totals.failed)} failed</span>` : html`<span>${fan.totals.open ? `${count(fan.totals.open)} open` : 'all ended'}</span>`}<span class="line">Table<${Icon} name="right" size=${12} /></span></span></button>`}
      </div>`
    })}</div></div></div>`
}
