// Single children over time: a thin lane each, where they are few enough to be told apart. A click opens one.
import { html, cls } from '../parts/html.js'
import { useAsk } from '../parts/api.js'
import { href } from '../parts/router.js'
import { duration, nameOf, words } from '../parts/format.js'
import { tone } from '../parts/status.js'
import { Trouble } from '../parts/said.js'

/** Children up to which each has a lane of its own. */
export const MOST_LANES = 500

/** `at(time)` is the place of a time, in per cent. */
export function Lanes({ id, at, until, live }) {
  const { data, problem, at: read, again } = useAsk(`runs/${id}/children`, { limit: MOST_LANES }, { topic: live ? `totals:${id}` : null,
    every: 2000 })
  if (!data) return html`<div class="who">children</div><div class="lane"><${Trouble} problem=${problem} again=${again} /></div>`
  const bar = (kind, from, to, extra) => {
    const [left, right] = [Math.max(0, at(from)), Math.min(100, at(to))]
    return right < 0 || left > 100 || right < left ? null :
      html`<i class=${cls('bit', kind, extra)} style=${{ left: `${left}%`, width: `max(2px, ${right - left}%)` }} />`
  }
  return html`<div class="who"><div><b>children</b></div><div class="faint">${data.items.length} one by one</div></div>
    <div class="lane lanes" role="list" aria-label="Children over time">
      <${Trouble} problem=${problem} at=${read} again=${again} />
      ${data.items.map((row) => {
        const said = `${nameOf(row)}: ${words(row.status)}${row.started ? `, ${duration((row.ended ?? until) - row.started)}` : ''}${
          row.error ? `, ${row.error.type}` : ''}`
        return html`<a key=${row.id} role="listitem" href=${href(`runs/${row.id}`)} title=${said} aria-label=${said}>
          ${row.queued && bar('queued', row.queued, row.started ?? row.ended ?? until)}
          ${row.started && bar('ran', row.started, row.ended ?? until, tone(row.status))}
          ${row.queued && html`<span class="tip" style=${{ left: `min(${Math.max(0, Math.min(100, at(row.ended ?? until)))}%, 100% - 130px)` }}>
            ${nameOf(row)}</span>`}</a>`
      })}</div>`
}
