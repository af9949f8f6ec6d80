// How numbers, times and ids read.
// To make a formatter takes a browser longer than to draw a row: each is made once, when it is first needed.
const whole = new Intl.NumberFormat()
const made = new Map()
function formatter(key, make) {
  if (!made.has(key)) made.set(key, make())
  return made.get(key)
}
const compact = () => formatter('compact', () => new Intl.NumberFormat(undefined, { notation: 'compact', maximumFractionDigits: 1 }))

export const preferences = {
  get(name, otherwise) {
    try {
      return localStorage.getItem(`jetflow.${name}`) ?? otherwise
    } catch {
      return otherwise
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(`jetflow.${name}`, value)
    } catch {
      // a browser that keeps nothing still shows everything
    }
  },
}

let skew = 0
/** Take the server's clock: what ticks is measured by it, and not by that of this machine. */
export const setClock = (serverNow) => { skew = serverNow - Date.now() / 1000 }
export const now = () => Date.now() / 1000 + skew

export const count = (n) => (n === null || n === undefined ? '–' : whole.format(n))
export const short = (n) => (n === null || n === undefined ? '–' : n < 10_000 ? whole.format(n) : compact().format(n))
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`
export const percent = (part, of) => {
  if (!of) return '0 %'
  const share = (100 * part) / of
  if (part && share < 0.1) return '< 0.1 %'
  return `${share < 10 && share % 1 ? share.toFixed(1) : Math.floor(share)} %`
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return '–'
  const s = Math.max(0, seconds)
  if (s < 0.0995) return `${Math.round(s * 1000)} ms`
  if (s < 9.95) return `${s.toFixed(s < 0.995 ? 2 : 1)} s`
  if (s < 59.5) return `${Math.round(s)} s`
  if (s < 3600) return `${Math.floor(Math.round(s) / 60)} m ${String(Math.round(s) % 60).padStart(2, '0')} s`
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, '0')} m`
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`
}

export const perSecond = (rate) => (rate >= 10 ? `${count(Math.round(rate))}/s` : rate >= 0.1 ? `${rate.toFixed(1)}/s` :
  `${(rate * 60).toFixed(1)}/min`)

export function bytes(n) {
  if (n === null || n === undefined) return '–'
  if (n < 1000) return `${n} B`
  for (const unit of ['kB', 'MB', 'GB', 'TB']) {
    n /= 1000
    if (n < 999.5) return `${n < 10 ? n.toFixed(1) : Math.round(n)} ${unit}`
  }
  return '–'
}

export const iso = (seconds) => new Date(seconds * 1000).toISOString()
export const inUtc = () => preferences.get('zone', 'local') === 'utc'

export function clock(seconds, { date = false, ms = false } = {}) {
  const utc = inUtc()
  return formatter(`clock ${date} ${ms} ${utc}`, () => {
    /** @type {Intl.DateTimeFormatOptions} */
    const options = { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' }
    if (ms) options.fractionalSecondDigits = 3
    if (date) Object.assign(options, { month: 'short', day: 'numeric' })
    if (utc) options.timeZone = 'UTC'
    return new Intl.DateTimeFormat(undefined, options)
  }).format(seconds * 1000)
}

/** A time in a zone, with the day and the zone. */
export const clockIn = (seconds, zone) => formatter(`zone ${zone}`, () => new Intl.DateTimeFormat(undefined, { weekday: 'short', month:
  'short', day: 'numeric', hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23', timeZone: zone, timeZoneName: 'short'
})).format(seconds * 1000)

/** "12 s ago" below an hour, the time of today, or the date. */
export function when(seconds) {
  if (seconds === null || seconds === undefined) return '–'
  const ago = now() - seconds
  if (ago < 0) return ago > -1 ? 'now' : `in ${duration(-ago)}`
  if (ago < 1) return 'now'
  if (ago < 60) return `${Math.floor(ago)} s ago`
  if (ago < 3600) return `${Math.floor(ago / 60)} min ago`
  return clock(seconds, { date: ago > 43_200 }).replace(/:\d\d$/, '')
}

export const shortId = (id) => (id ? id.slice(-8) : '')
/** What a run is called in a list: its key, else the end of its id. */
export const nameOf = (run) => run.key || shortId(run.id)
export const words = (status) => (status === 'timed_out' ? 'timed out' : status)

export function preview(value, length = 120) {
  if (value === undefined) return ''
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return text.length > length ? `${text.slice(0, length)}…` : text
}
