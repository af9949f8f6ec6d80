// A run over time: a lane a step. However many children a step has, they are one ribbon: when they ended, and how.
import { html, useState } from '../parts/html.js'
import { useAsk } from '../parts/api.js'
import { refine, useRoute } from '../parts/router.js'
import { Segments } from '../parts/tabs.js'
import { Lanes, MOST_LANES } from './run-lanes.js'
import { ended as isEnded } from '../parts/status.js'
import { clock, count, duration, now, words } from '../parts/format.js'
import { Bones, Empty, Trouble } from '../parts/said.js'

const KIND = { queued: 'queued', run: 'ran', backoff: 'waited for the next attempt', waiting: 'waits for children' }
const toneOf = (span) => (span.kind === 'run' ? (span.outcome === null || span.outcome === undefined ? 't-blue' :
  span.outcome === 'succeeded' ? 't-green' : span.outcome === 'timed_out' ? 't-orange' : span.outcome === 'cancelled' ? 't-grey' :
    't-red') : '')

function Ribbon({ parts, at }) {
  const most = Math.max(1, ...parts.map((part) => part.ended))
  return html`<svg class="ribbon" width="100%" height="34" viewBox="0 0 1000 34" preserveAspectRatio="none" role="img"
    aria-label=${`${count(parts.reduce((sum, part) => sum + part.ended, 0))} children ended over this time`}>
    ${parts.map((part) => {
      if (!part.ended) return null
      const [from, to] = [at(part.since) * 10, at(part.until) * 10]
      if (to < 0 || from > 1000) return null
      const width = Math.max(1.5, to - from - 1)
      const [good, bad, other] = [part.succeeded, part.failed, part.timed_out + part.cancelled].map((n) => (n ? Math.max(2,
        (32 * n) / most) : 0))
      return html`<g key=${part.since}><title>
        ${`${clock(part.since)}: ${count(part.succeeded)} succeeded, ${count(part.failed)} failed`}</title>
        <rect class="ok" x=${from} width=${width} y=${34 - good} height=${good} />
          <rect class="bad" x=${from} width=${width} y=${34 - good - bad} height=${bad} />
            <rect class="other" x=${from} width=${width} y=${34 - good - bad - other} height=${other} /></g>`
    })}</svg>`
}

export function Timeline({ id, run, totals, beat }) {
  const live = !isEnded(run.status)
  const { data, problem, at: read, loading, again } = useAsk(`runs/${id}/timeline`, {}, { topic: live ? `totals:${id}` : null,
    every: 2000 })
  const { query } = useRoute()
  const spawned = totals?.totals.spawned ?? 0
  const few = spawned > 0 && spawned <= MOST_LANES
  const lanes = few && (query.has('lanes') ? query.get('lanes') === '1' : spawned <= 30)
  const [zoom, setZoom] = useState(null)
  const [drag, setDrag] = useState(null)
  if (loading) return html`<${Bones} />`
  if (!data) return html`<${Trouble} problem=${problem} again=${again} />`
  const until = live ? now() : data.to
  const [from, to] = zoom ?? [data.from, until]
  const length = Math.max(0.001, to - from)
  const at = (time) => (100 * (time - from)) / length
  const fans = (totals?.steps ?? []).filter((one) => one.totals.spawned)
  const steps = run.steps.filter((step) => data.spans.some((span) => span.step === step.name) || fans.some((one) => one.step === step.name))
  const point = (event) => { const box = event.currentTarget.getBoundingClientRect(); return from + length * Math.max(0, Math.min(1,
    (event.clientX - box.left) / box.width)) }
  const end = () => { if (drag && Math.abs(drag.to - drag.from) > length / 100) setZoom([Math.min(drag.from, drag.to), Math.max(drag.from,
    drag.to)]); setDrag(null) }
  if (!steps.length) return html`<div class="panel"><${Empty} title="Nothing has begun yet">The run is queued.</${Empty}></div>`
  return html`<div class="stack tight"><${Trouble} problem=${problem} at=${read} again=${again} />
    <div class="line wrap legend"><span><i class="t-grey" />queued</span><span><i class="t-blue" />running</span><span>
      <i class="t-green" />succeeded</span><span><i class="t-red" />failed</span><span><i class="t-violet" />waiting for children</span>
        <span class="grow" />
      ${few && html`<${Segments} label="Children" now=${lanes ? '1' : '0'} choose=${(value) => refine({ lanes: value })}
        options=${[['0', 'As a ribbon'], ['1', 'One by one']]} />`}
      ${zoom ? html`<button class="btn small" onClick=${() => setZoom(null)}>Show all</button>` :
        html`<span>Draw over a part to look closer</span>`}</div>
    <div class="panel time" key=${beat ? 'live' : 'still'}>
      <div class="axis">${[0, 0.25, 0.5, 0.75, 1].map((part) => html`<span key=${part} style=${{ left: `${100 * part}%` }}>
        ${part === 0 ? clock(from) : `+${duration(length * part)}`}</span>`)}</div>
      ${steps.map((step) => {
        const ribbon = fans.length && step.name === (fans.length === 1 ? fans[0].step : fans.at(-1).step) && data.children.length > 0
        const spawner = fans.find((one) => one.step === step.name)
        return html`<div class="who" key=${step.name}><div class="cut"><b>${step.name}</b></div>
          ${spawner && html`<div class="faint cut">${count(spawner.totals.spawned)} children</div>`}</div>
          <div class=${ribbon && !lanes ? 'lane tall' : 'lane'} key=${`${step.name} lane`}
            onPointerDown=${(e) => setDrag({ from: point(e), to: point(e) })}
              onPointerMove=${(e) => drag && setDrag({ ...drag, to: point(e) })} onPointerUp=${end} onDblClick=${() => setZoom(null)}>
            ${data.spans.filter((span) => span.step === step.name).map((span, n) => {
              const [left, right] = [Math.max(0, at(span.from)), Math.min(100, at(span.to ?? until))]
              if (right < 0 || left > 100 || right < left) return null
              const said = `${step.name}, attempt ${span.attempt}: ${KIND[span.kind]} ${duration((span.to ??
                until) - span.from)}${span.outcome ? `, ${words(span.outcome)}` : ''}${span.worker ? ` on ${span.worker}` : ''}`
              return html`<span key=${n} role="img" aria-label=${said} title=${said} class=${`span ${span.kind} ${toneOf(span)}`}
                style=${{ left: `${left}%`, width: `max(3px, ${right - left}%)` }} />`
            })}
            ${ribbon && !lanes && html`<${Ribbon} parts=${data.children} at=${at} />`}
            ${drag && html`<span class="span t-blue"
              style=${{ opacity: 0.2, top: 0, height: '100%', left: `${at(Math.min(drag.from, drag.to))}%`, width:
                `${(100 * Math.abs(drag.to - drag.from)) / length}%` }} />`}
          </div>`
      })}
      ${lanes && html`<${Lanes} id=${id} at=${at} until=${until} live=${live} />`}</div></div>`
}
