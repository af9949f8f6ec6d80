// News from the server: one EventSource for a tab, with the topics that something on the page listens to.
// A tab that is hidden for 30 s lets go of it; when it is seen again, state is asked for first, then news go on.
import { Value } from './html.js'

const HIDDEN_MS = 30_000
const STALE_MS = 25_000

export const connection = new Value({ state: 'starting', since: Date.now(), reason: '' })
const topics = new Map()
const onResume = new Set()
let source = null
let asked = ''
let opening = 0
let hiding = 0
let waking = 0
let tries = 0
let heard = Date.now()
let held = false

const say = (state, reason = '') => {
  if (connection.now.state !== state || connection.now.reason !== reason) connection.set({ state, since: Date.now(), reason })
}

/** Call `handler` with each news of a topic. Returns how to stop. */
export function listen(topic, handler) {
  if (!topics.has(topic)) topics.set(topic, new Set())
  topics.get(topic).add(handler)
  plan()
  return () => {
    topics.get(topic)?.delete(handler)
    if (!topics.get(topic)?.size) topics.delete(topic)
    plan()
  }
}

/** Call `handler` when news may have been missed: then state has to be asked for again. */
export function resumed(handler) {
  onResume.add(handler)
  return () => onResume.delete(handler)
}

const plan = () => {
  clearTimeout(opening)
  opening = setTimeout(open, 60)
}

function open() {
  const wanted = [...topics.keys()].sort()
  const key = wanted.join('\n')
  if (held || document.hidden && !source) return
  if (source && key === asked && source.readyState !== EventSource.CLOSED) return
  close()
  asked = key
  if (!wanted.length) {
    if (connection.now.state === 'starting') say('live')
    return
  }
  const url = new URL('api/v1/live', document.baseURI)
  for (const topic of wanted) url.searchParams.append('topic', topic)
  source = new EventSource(url)
  source.onopen = () => {
    heard = Date.now()
    const missed = tries > 0
    tries = 0
    say('live')
    if (missed) for (const handler of [...onResume]) handler()
  }
  source.onerror = () => {
    close()
    tries += 1
    say('offline', 'the connection was lost')
    clearTimeout(waking)
    waking = setTimeout(open, Math.min(15_000, 500 * 2 ** tries) * (0.5 + Math.random()))
  }
  source.addEventListener('ping', () => { heard = Date.now() })
  source.addEventListener('problem', (event) => {
    const told = read(event.data)
    if (told?.status >= 500) say('stale', told.detail)
  })
  for (const topic of wanted) {
    source.addEventListener(topic, (event) => {
      heard = Date.now()
      say('live')
      const news = read(event.data)
      for (const handler of [...(topics.get(topic) ?? [])]) handler(news)
    })
  }
}

function read(text) {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

function close() {
  source?.close()
  source = null
  asked = ''
}

export function holdLive(hold) {
  held = hold
  if (hold) {
    close()
    say('paused')
  } else {
    tries = 1
    plan()
  }
}

export function startLive() {
  plan()
  document.addEventListener('visibilitychange', () => {
    clearTimeout(hiding)
    if (document.hidden) hiding = setTimeout(close, HIDDEN_MS)
    else if (!source && !held) {
      for (const handler of [...onResume]) handler()
      plan()
    }
  })
  setInterval(() => {
    if (connection.now.state === 'live' && source && Date.now() - heard > STALE_MS) say('stale', 'nothing was heard')
  }, 3000)
  addEventListener('pagehide', close)
}
