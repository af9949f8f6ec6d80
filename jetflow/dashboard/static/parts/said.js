// What a page says when it has nothing, when it waits, and when something went wrong; and the line that tells what was done.
import { html, Value, cls, useEffect, useRef, useState, useValue } from './html.js'
import { Icon } from './icons.js'
import { count, duration } from './format.js'

export const toast = new Value(null)
export function tell(text) {
  toast.set({ text, at: Date.now() })
}

export function Toasts() {
  const said = useValue(toast)
  useEffect(() => {
    if (!said) return undefined
    const timer = setTimeout(() => toast.set(null), 3200)
    return () => clearTimeout(timer)
  }, [said])
  return html`<div class="toasts" role="status" aria-live="polite">${said && html`<div class="toast">${said.text}</div>`}</div>`
}

export async function copy(text, what = 'Copied') {
  try {
    await navigator.clipboard.writeText(text)
  } catch {
    const area = Object.assign(document.createElement('textarea'), { value: text })
    document.body.append(area)
    area.select()
    document.execCommand('copy')
    area.remove()
  }
  tell(what)
}

export function Copy({ text, label = 'Copy', small = true }) {
  const [done, set] = useState(false)
  return html`<button type="button" class=${cls('btn quiet icon', small && 'small')} aria-label=${label} title=${label}
    onClick=${(event) => { event.stopPropagation(); copy(text); set(true); setTimeout(() => set(false), 1500) }}>
      <${Icon} name=${done ? 'done' : 'copy'} size=${14} /></button>`
}

export const Command = ({ text }) => html`<div class="command"><code>${text}</code><${Copy} text=${text} label="Copy the command" /></div>`

const ART = {
  empty: html`<rect x="10" y="16" width="76" height="12" rx="4" /><rect x="10" y="34" width="76" height="12" rx="4" opacity="0.6" />
    <rect x="10" y="52" width="48" height="12" rx="4" opacity="0.3" />`,
  calm: html`<path d="M8 42h22l7-20 12 36 8-16h31" stroke-linejoin="round" />`,
  lost: html`<circle cx="44" cy="36" r="20" /><path d="M59 51l18 16M36 36h16" />`,
  start: html`<path d="M20 40h56M20 40c24 0 22-22 42-22h14M20 40c24 0 22 22 42 22h14" />
    <circle cx="20" cy="40" r="6" fill="currentColor" stroke="none" />`,
}
const Art = ({ name }) => html`<svg class="art" width="96" height="80" viewBox="0 0 96 80" fill="none" stroke="currentColor"
  stroke-width="2" stroke-linecap="round" aria-hidden="true">${ART[name]}</svg>`

export const Empty = ({ art = 'empty', title, children, actions }) =>
  html`<div class="empty"><${Art} name=${art} /><h2>${title}</h2><p>${children}</p>
    ${actions && html`<div class="line">${actions}</div>`}</div>`

/** Why there is nothing to show, or, above what was known before, why it is not newer. */
export function Trouble({ problem, at, again }) {
  if (!problem) return null
  const age = at ? `This is what was known ${duration((Date.now() - at) / 1000)} ago. ` : ''
  const button = again && html`<button class="btn small" onClick=${again}>Try again</button>`
  if (at) {
    return html`<div class="banner t-orange" role="status"><${Icon} name="errors" /><div><b>${problem.title}.</b> ${age}${problem.detail}
      ${problem.hint && html`<span class="dim"> ${problem.hint}</span>`}</div><div class="end">${button}</div></div>`
  }
  return html`<div class="panel"><${Empty} art="lost" title=${problem.title} actions=${button}>${problem.detail}
    ${problem.hint ? ` — ${problem.hint}` : ''}</${Empty}></div>`
}

/** Why something that was asked for was not done. */
export const Refused = ({ problem }) => problem &&
  html`<div class="banner t-red" role="alert"><${Icon} name="failed" /><div><b>
    ${problem.title ?? 'It was not done'}.</b> ${problem.detail || String(problem)}
      ${problem.hint && html`<span class="dim"> ${problem.hint}</span>`}</div></div>`

export const Note = ({ tone = 'grey', icon = 'info', children }) =>
  html`<div class=${cls('banner', `t-${tone}`)}><${Icon} name=${icon} /><div>${children}</div></div>`

export const Bones = ({ rows = 8, wide = false }) =>
  html`<div class=${cls('panel', wide && 'full')} role="status" aria-busy="true" aria-label="loading"><div class="body stack">
  ${Array.from({ length: rows }, (_, n) => html`<span key=${n} class="bone" style=${{ width: `${92 - ((n * 37) % 50)}%` }} />`)}
    </div></div>`

/** "read 4,000 of the newest runs; there may be more" where an answer was not looked for in everything. */
export const Searched = ({ searched, what = 'runs' }) =>
  searched && searched.complete === false ?
    html`<span>looked through the newest ${count(searched.runs)} ${what}: there may be more</span>` : null

/** How long the rows of a list took, once all of them were read; until then, how many were. */
export function Spread({ took, loaded }) {
  if (loaded < 1) return html`<span>reading all rows: ${Math.floor(100 * loaded)} %</span>`
  return took ?
    html`<span>took ${duration(took.p50)} at the median, ${duration(took.p95)} at p95, ${duration(took.most)} at most</span>` : null
}

/** Announce a text to those who listen, politely, and at most every five seconds. */
export function Announce({ text }) {
  const [said, say] = useState('')
  const last = useRef(0)
  useEffect(() => {
    const timer = setTimeout(() => { last.current = Date.now(); say(text) }, Math.max(0, last.current + 5000 - Date.now()))
    return () => clearTimeout(timer)
  }, [text])
  return html`<div class="hidden" role="status" aria-live="polite">${said}</div>`
}
