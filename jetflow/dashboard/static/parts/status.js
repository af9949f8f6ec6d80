// A status is a word, a shape and a colour; bars and legends count them in one order everywhere.
import { html, cls } from './html.js'
import { Icon } from './icons.js'
import { count, words } from './format.js'
import { href } from './router.js'

const TONES = {
  succeeded: 'green', failed: 'red', timed_out: 'orange', retrying: 'orange', cancelled: 'grey', skipped: 'grey', queued: 'grey',
    pending: 'grey',
  running: 'blue', waiting: 'violet', open: 'open', removed: 'grey',
}
export const ENDED = ['succeeded', 'failed', 'timed_out', 'cancelled']
export const ORDER = ['failed', 'timed_out', 'running', 'open', 'queued', 'succeeded', 'cancelled']

export const tone = (status) => `t-${TONES[status] ?? 'grey'}`
export const ended = (status) => ENDED.includes(status) || status === 'skipped'

export const Status = ({ status, pill = false, title, children }) => html`
  <span class=${cls('st', tone(status), pill && 'pill')} title=${title}><${Icon} name=${status} />${children ?? words(status)}</span>`

/** A bar of what has ended, in which the track is what is open. `totals` as the API gives them. */
export function Bar({ totals, size = '', live = false, label }) {
  const of = Math.max(totals.spawned || 0, 1)
  const parts = ENDED.filter((status) => totals[status])
  const said = parts.map((status) => `${count(totals[status])} ${words(status)}`).join(', ') || 'none has ended'
  return html`<div class=${cls('bar', size)} role="img"
    aria-label=${`${label ? `${label}: ` : ''}${said}, of ${count(totals.spawned || 0)}`}>
    ${parts.map((status) => html`<span key=${status} class=${cls(tone(status), live && status === 'succeeded' && 'live')}
      style=${{ width: `${(100 * totals[status]) / of}%` }} />`)}
    ${totals.running ? html`<span class="t-blue" style=${{ width: `${(100 * totals.running) / of}%` }} />` : null}
  </div>`
}

/** The numbers of a bar as words, each a link to those rows where `to` says where that is. */
export function Legend({ totals, to }) {
  const rows = [...ENDED.filter((status) => totals[status]), ...(totals.open ? ['open'] : [])]
  if (totals.removed) rows.push('removed')
  return html`<div class="legend">${rows.map((status) => {
    const inside = html`<i class=${tone(status)} /><b>${count(totals[status])}
      </b> ${status === 'removed' ? 'removed before they began' : words(status)}`
    return to && status !== 'removed' ? html`<a key=${status} href=${to(status)}>${inside}</a>` : html`<span key=${status}>${inside}</span>`
  })}</div>`
}

export const childrenOf = (id, query) => href(`runs/${id}/children`, query)
