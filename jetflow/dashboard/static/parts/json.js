// JSON that folds. Only what is open is in the document, and long lists are shown in hundreds.
import { html, useEffect, useState } from './html.js'
import { count, bytes } from './format.js'
import { address, askHead } from './api.js'
import { Copy, Trouble } from './said.js'
import { Icon } from './icons.js'

const MANY = 100

function Marked({ text, search }) {
  if (!search) return text
  const at = text.toLowerCase().indexOf(search.toLowerCase())
  return at < 0 ? text : html`${text.slice(0, at)}<mark>${text.slice(at, at + search.length)}</mark>${text.slice(at + search.length)}`
}

const holds = (value, search) => Boolean(search) && JSON.stringify(value).toLowerCase().includes(search.toLowerCase())

function Leaf({ name, value, search, path }) {
  const kind = value === null ? 'b' : typeof value === 'string' ? 's' : typeof value === 'number' ? 'n' : 'b'
  return html`<div class="leafrow" title=${path}>${name !== null && html`<span class="k">
    <${Marked} text=${String(name)} search=${search} />: </span>`}<span class=${kind}>
      <${Marked} text=${JSON.stringify(value)} search=${search} /></span></div>`
}

function Branch({ name, value, level, search, path }) {
  const list = Array.isArray(value)
  const size = list ? value.length : Object.keys(value).length
  const [chosen, choose] = useState(null)
  const [most, more] = useState(MANY)
  const open = chosen ?? (level < 2 && size <= 60 || holds(value, search))
  const entries = open ? (list ? value.slice(0, most).map((one, n) => [n, one]) : Object.entries(value).slice(0, most)) : []
  return html`<details open=${open} onToggle=${(event) => event.currentTarget.open !== open && choose(event.currentTarget.open)}>
    <summary title=${path}>${name !== null && html`<span class="k"><${Marked} text=${String(name)} search=${search} />: </span>`}
      ${list ? `[${open ? '' : '…]'}` : `{${open ? '' : '…}'}`} <span class="faint">
        ${count(size)} ${list ? (size === 1 ? 'item' : 'items') : size === 1 ? 'key' : 'keys'}</span></summary>
    ${open && html`<div>${entries.map(([key, one]) => html`<${Json} key=${key} name=${key} value=${one} level=${level + 1} search=${search}
      path=${list ? `${path}[${key}]` : `${path}.${key}`} />`)}
      ${size > most && html`<button class="btn quiet small" onClick=${() => more(most + 10 * MANY)}>${count(size - most)} more</button>`}
        </div><span class="leafrow">${list ? ']' : '}'}</span>`}</details>`
}

export const Json = ({ name = null, value, level = 0, search = '', path = '$' }) =>
  value !== null && typeof value === 'object' && Object.keys(value).length
    ? html`<${Branch} name=${name} value=${value} level=${level} search=${search} path=${path} />`
    : html`<${Leaf} name=${name} value=${value} search=${search} path=${path} />`

const HEAD = 65_536
const read = (text) => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** A stored value, by its address: the first 64 KiB are read; what is larger is there to download. */
export function StoredValue({ path, title, absent }) {
  const [state, set] = useState({})
  const [search, find] = useState('')
  useEffect(() => {
    const control = new AbortController()
    set({})
    askHead(path, HEAD, control.signal).then(
      ({ text, size }) => set({ text, size, value: size > HEAD ? undefined : read(text) }),
      (problem) => problem.name !== 'AbortError' && set({ problem }),
    )
    return () => control.abort()
  }, [path])
  const { problem, text, size, value } = state
  const cut = size > HEAD
  const whole = value === undefined ? text : JSON.stringify(value, null, 2)
  return html`<section class="panel"><header><h2>${title}</h2><div class="end">
      ${!cut && size > 400 && html`<input class="input" type="search" aria-label=${`Search in ${title}`} placeholder="Search"
        value=${search} onInput=${(e) => find(e.target.value)} />`}
      ${text !== undefined && html`<span>${cut ? `${bytes(HEAD)} of ` : ''}${bytes(size)}</span>
        <${Copy} text=${whole} label=${`Copy ${title}`} />
        <a class="btn quiet icon small" href=${address(path, { download: true })} download aria-label=${`Download ${title}`}
          title="Download"><${Icon} name="download" size=${14} /></a>`}</div></header>
    <div class="body">${problem ? html`<${Absent} problem=${problem} absent=${absent} />` : text === undefined ? html`<span class="bone" />`
      : value === undefined ? html`<pre tabindex="0">${text}</pre>${cut &&
        html`<p class="faint">This is how it begins. Download it for the rest.</p>`}`
      : html`<div class="json"><${Json} value=${value} search=${search} /></div>`}</div></section>`
}

const Absent = ({ problem, absent }) =>
  problem.status === 404 ? html`<p class="faint">${absent}</p>` : problem.status === 403 ? html`<p class="faint">${problem.detail}</p>` :
    html`<${Trouble} problem=${problem} at=${1} />`
