// Times that tick: how long ago, and how long it takes. One timer draws each again, as often as it can change.
import { html, useTick } from './html.js'
import { clock, duration, iso, now, when } from './format.js'

export function When({ at, full = false }) {
  const ago = at ? now() - at : Infinity
  useTick(full || ago > 3600 ? 0 : ago < 60 ? 1 : 20)
  if (!at) return html`<span class="faint">–</span>`
  return html`<time datetime=${iso(at)} title=${iso(at)}>${full ? clock(at, { date: true }) : when(at)}</time>`
}

/** From `started` to `ended`, ticking while it has not ended. */
export function Took({ started, ended, open = true }) {
  const runs = Boolean(started) && !ended && open
  useTick(runs ? (now() - started < 60 ? 0.5 : 1) : 0)
  if (!started || (!ended && !open)) return html`<span class="faint">–</span>`
  return html`<span>${duration((ended || now()) - started)}</span>`
}

/** How long until a time. */
export function Until({ at }) {
  useTick(at > now() ? 1 : 0)
  return html`<span>${at > now() ? `in ${duration(Math.ceil(at - now()))}` : 'now'}</span>`
}
