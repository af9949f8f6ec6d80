// Questions and actions. A failed question keeps the last answer, with its age: an error is never an empty list.
import { Value, useEffect, useRef, useState } from './html.js'
import { setClock } from './format.js'
import { listen, resumed } from './live.js'

/** What the API answered instead: `title`, `detail`, and a `hint` on what to do. */
export class Problem extends Error {
  /**
   * @param {number} status
   * @param {{title?: string, detail?: string, hint?: string, [name: string]: any}} told
   */
  constructor(status, { title, detail, hint, ...rest } = {}) {
    super(detail || title || `the server answered ${status}`)
    this.status = status
    this.title = title ?? 'No answer'
    this.detail = detail ?? ''
    this.hint = hint ?? ''
    this.rest = rest
  }
}

export const meta = new Value(null)
export const may = (action) => Boolean(meta.now?.access?.actions?.includes(action))

export function address(path, query = {}) {
  const search = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== '') search.append(name, one)
    }
  }
  const text = search.toString()
  return new URL(`api/v1/${path}${text ? `?${text}` : ''}`, document.baseURI).href
}

async function answer(response) {
  const kind = response.headers.get('content-type') ?? ''
  if (response.ok) return kind.includes('json') ? response.json() : response.text()
  const told = kind.includes('json') ? await response.json().catch(() => ({})) : {}
  throw new Problem(response.status, told)
}

/** What early.js has asked for already, once. */
function early(url) {
  /** @type {Map<string, Promise<Response>> | undefined} */
  const asked = window['jetflowEarly']
  const answer = asked?.get(url)
  asked?.delete(url)
  return answer
}

async function send(url, options) {
  let response
  try {
    response = await (options.method ? fetch(url, options) : early(url) ?? fetch(url, options))
  } catch (error) {
    if (error.name === 'AbortError') throw error
    throw new Problem(0, { title: 'The dashboard does not answer', detail: 'its server cannot be reached', hint:
      'it is asked again by itself' })
  }
  return answer(response)
}

export const ask = (url, signal) => send(url, { signal, headers: { Accept: 'application/json' } })

/** The beginning of a stored value as text, and how many bytes it has in all. */
export async function askHead(path, head, signal) {
  const response = await fetch(address(path, { head }), { signal, headers: { Accept: 'application/json' } })
  if (!response.ok) await answer(response)
  const text = await response.text()
  return { text, size: Number(response.headers.get('x-size') ?? text.length) }
}

export const act = (method, path, body) =>
  send(address(path), { method, headers: { 'Content-Type': 'application/json', 'X-Jetflow': '1' }, body: method === 'DELETE' ? undefined :
    JSON.stringify(body ?? {}) })

export async function loadMeta() {
  const found = await ask(address('meta'))
  if (found.now) setClock(found.now)
  meta.set(found)
  return found
}

const kept = new Map()
function keep(url, data) {
  kept.delete(url)
  kept.set(url, { data, at: Date.now() })
  if (kept.size > 60) kept.delete(kept.keys().next().value)
}
export const forget = () => kept.clear()

/**
 * Ask for something as long as it is shown. Gives {data, problem, at, loading, again}.
 * With `topic`, news of it asks again, or `take(data, news)` makes the new data of it without asking.
 * At most one question is under way; news meanwhile leads to one more.
 */
export function useAsk(path, query, { topic = null, take = null, every = 0, keepOld = false } = {}) {
  const url = path === null ? null : address(path, query)
  const [, draw] = useState(0)
  const state = useRef({})
  const s = state.current
  if (s.url !== url) {
    s.abort?.abort()
    clearTimeout(s.timer)
    const known = kept.get(url)
    Object.assign(s, { url, data: known?.data ?? (keepOld ? s.data : undefined), at: known?.at, problem: null, busy: false, more: false,
      last: 0, tries: 0 })
  }
  s.again = () => {
    if (!url || s.url !== url) return
    if (s.busy) {
      s.more = true
      return
    }
    const pause = s.last + (every || 250) - Date.now()
    clearTimeout(s.timer)
    if (s.last && pause > 0) s.timer = setTimeout(s.now, pause)
    else s.now()
  }
  s.now = async () => {
    s.busy = true
    s.more = false
    s.last = Date.now()
    s.abort = new AbortController()
    const mine = s.url
    try {
      const data = await ask(mine, s.abort.signal)
      keep(mine, data)
      if (s.url !== mine) return
      Object.assign(s, { data, at: Date.now(), problem: null, tries: 0 })
    } catch (error) {
      if (error.name === 'AbortError' || s.url !== mine) return
      s.problem = error instanceof Problem ? error : new Problem(0, { title: 'Something went wrong', detail: String(error) })
      if (s.problem.status === 0 || s.problem.status >= 500) {
        s.tries += 1
        s.timer = setTimeout(s.now, Math.min(20_000, 1000 * 2 ** s.tries) * (0.6 + Math.random() * 0.6))
      }
    } finally {
      if (s.url === mine) s.busy = false
    }
    draw((n) => n + 1)
    if (s.more) s.again()
  }
  useEffect(() => {
    if (!url) return undefined
    s.now()
    /** @type {(() => unknown)[]} */
    const stops = [resumed(s.again)]
    if (topic) {
      stops.push(listen(topic, (news) => {
        const made = take && s.data !== undefined ? take(s.data, news) : undefined
        if (made === undefined) s.again()
        else {
          Object.assign(s, { data: made, at: Date.now() })
          keep(url, made)
          draw((n) => n + 1)
        }
      }))
    }
    return () => {
      stops.forEach((stop) => stop())
      clearTimeout(s.timer)
      s.abort?.abort()
      s.busy = false
    }
  }, [url, topic])
  return { data: s.data, problem: s.problem, at: s.at, loading: s.data === undefined && !s.problem, again: s.again }
}
