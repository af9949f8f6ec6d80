// A fan-out in which nothing has ended for a while: how many are open, since when, and who holds them.
import { html, useEffect, useRef, useState, useTick } from '../parts/html.js'
import { address, ask, useAsk } from '../parts/api.js'
import { href } from '../parts/router.js'
import { duration, nameOf, now, plural } from '../parts/format.js'
import { childrenOf } from '../parts/status.js'
import { Note } from '../parts/said.js'

/** Seconds without an end after which it is said. */
export const STALLED_AFTER = 120
/** Seconds for which no end was seen here before the history is asked for: that is dear while a fan-out goes on. */
const UNSEEN_FOR = 5
const SHOWN = 3

export function Stalled({ id, run, totals }) {
  const { spawned, open } = totals.totals
  const seen = useRef({ count: -1, at: 0 })
  const count = 2 * spawned - open // both what was spawned and what has ended move it
  if (seen.current.count !== count) seen.current = { count, at: performance.now() }
  const old = now() - run.triggered >= STALLED_AFTER
  const quiet = open > 0 && old && !(totals.rate > 0) && performance.now() - seen.current.at >= 1000 * UNSEEN_FOR
  useTick(open > 0 && old ? 2 : 0)
  const { data } = useAsk(quiet ? `runs/${id}/timeline` : null, {}, { topic: `totals:${id}`, every: 30_000 })
  if (!quiet || !data) return null
  const last = data.children.findLast((part) => part.ended)?.until ?? run.triggered
  const since = now() - Math.min(last, now())
  if (since < STALLED_AFTER) return null
  return html`<${Note} tone="orange" icon="errors"><b>Stalled: ${plural(open, 'child', 'children')} open, none has ended
    for ${duration(since)}.</b> <${Holders} id=${id} /> <a class="link" href=${childrenOf(id, { status: 'open' })}>Show them</a></${Note}>`
}

/** Who holds the first of the open children: what their workers say. */
function Holders({ id }) {
  const { data } = useAsk(`runs/${id}/children`, { status: 'open', limit: SHOWN }, { topic: `totals:${id}`, every: 30_000 })
  const [held, setHeld] = useState(null)
  const key = data?.items.map((row) => row.id).join()
  useEffect(() => {
    if (!key) return undefined
    const control = new AbortController()
    Promise.all(data.items.map((row) => ask(address(`runs/${row.id}/running`), control.signal).catch(() => [])))
      .then((found) => { if (!control.signal.aborted) setHeld(found) })
    return () => control.abort()
  }, [key, data])
  if (!key || !held) return null
  return html`<span class="dim">${data.items.map((row, n) => {
    const holder = held[n]?.[0]
    return html`${n ? '; ' : ''}<a class="link" href=${href(`runs/${row.id}`)}>${nameOf(row)}</a> ${holder ?
      `${holder.state} on ${holder.worker} for ${duration(now() - holder.started)}` : row.unattended ? 'waits: no worker takes it' :
        row.status === 'queued' ? 'is queued' : 'is held by no worker that answers'}`
  })}.</span>`
}
