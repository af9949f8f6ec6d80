// ⌘K: any page, any workflow, any run by its id or key. And the list of keys.
import { html, useEffect, useLayoutEffect, useRef, useState } from './html.js'
import { Dialog } from './dialog.js'
import { Icon } from './icons.js'
import { address, ask } from './api.js'
import { go, href } from './router.js'
import { Status } from './status.js'
import { nameOf, shortId } from './format.js'

const ID = /^[0-9a-f]{32}$/

export function Palette({ pages, close }) {
  const [text, setText] = useState('')
  const [found, setFound] = useState([])
  const [at, setAt] = useState(0)
  const input = useRef(null)
  const workflows = useRef(null)
  useLayoutEffect(() => { input.current.focus() }, [])
  const said = text.trim()
  useEffect(() => {
    const control = new AbortController()
    const timer = setTimeout(async () => {
      workflows.current ??= ask(address('workflows'), control.signal).catch(() => [])
      const [named, keyed] = await Promise.all([
        workflows.current,
        said.length > 1 && !ID.test(said) ? ask(address('runs', { key: said, limit: 5 }), control.signal).then((page) => page.items, () =>
          []) : [],
      ])
      if (control.signal.aborted) return
      setFound([
        ...keyed.map((run) => ({ label: `${run.workflow} · ${nameOf(run)}`, status: run.status, to: href(`runs/${run.id}`), note:
          shortId(run.id) })),
        ...named.filter((one) => said && one.name.includes(said)).slice(0, 6).map((one) => ({ label: one.name, icon: 'workflows', to:
          href(`workflows/${one.name}`), note: 'workflow' })),
      ])
    }, 140)
    return () => { clearTimeout(timer); control.abort() }
  }, [said])
  const lower = said.toLowerCase()
  const items = [
    ...(ID.test(lower) ? [{ label: `Open run ${shortId(lower)}`, icon: 'runs', to: href(`runs/${lower}`), note: 'by its id' }] : []),
    ...found,
    ...pages.filter(([, , label]) => label.toLowerCase().includes(lower)).map(([path, icon, label]) => ({ label, icon, to: href(path),
      note: 'page' })),
  ]
  const chosen = Math.min(at, items.length - 1)
  const open = (item) => { close(); go(item.to) }
  const key = (event) => {
    if (event.key === 'ArrowDown') setAt(Math.min(chosen + 1, items.length - 1))
    else if (event.key === 'ArrowUp') setAt(Math.max(0, chosen - 1))
    else if (event.key === 'Enter' && items[chosen]) open(items[chosen])
    else return
    event.preventDefault()
  }
  return html`<${Dialog} title="Go to" className="palette" close=${close}>
    <input ref=${input} role="combobox" aria-label="A page, a workflow, a run's id or key" aria-expanded="true"
      aria-controls="palette-list" aria-activedescendant=${items.length ? `palette-${chosen}` : undefined}
      placeholder="A page, a workflow, a run's id or key" value=${text} onInput=${(e) => { setText(e.target.value); setAt(0) }}
        onKeyDown=${key} />
    <ul id="palette-list" role="listbox" aria-label="Found">
      ${items.map((item, n) => html`<li key=${item.to} id=${`palette-${n}`} role="option" aria-selected=${n === chosen}
        onPointerMove=${() => setAt(n)} onClick=${() => open(item)}>
      ${item.status ? html`<${Status} status=${item.status}>${''}</${Status}>` : html`<${Icon} name=${item.icon} />`}<span class="cut">
        ${item.label}</span><span class="end">${item.note}</span></li>`)}</ul>
    ${!items.length && html`<p class="none body faint">Nothing is called so. Paste a whole id to open a run, or its exact key.</p>`}
      </${Dialog}>`
}

/** @type {[string, string[][]][]} */
const KEYS = [
  ['Anywhere', [['Ctrl K', 'go to anything'], ['g o', 'overview'], ['g r', 'runs'], ['g e', 'errors'], ['g w', 'workflows'], ['g q',
    'queues'], ['g k', 'workers'], ['g s', 'schedules'], ['g v', 'events'], ['g d', 'doctor'], ['/', 'filter'], ['t', 'light or dark'], ['p', 'pause live'], [',', 'copy link'],
      ['?', 'this']]],
  ['In lists', [['j k', 'next, previous row'], ['Enter', 'open'], ['Space', 'look inside'], ['x', 'choose'], ['Shift x', 'choose from there on'], ['Esc', 'back']]],
  ['In a run', [['1 – 8', 'tabs'], ['u', 'up to its parent'], ['[ ]', 'previous, next sibling'], ['.', 'copy id'], ['$', 'copy command'],
    ['c', 'cancel'], ['=', 'compare values']]],
]

export const Help = ({ close }) => html`<${Dialog} title="Keys" close=${close}><div class="body">
  ${KEYS.map(([title, keys]) => html`<section key=${title} class="stack tight"><h3>${title}</h3><div class="keys">
  ${keys.map(([name, what]) => html`<div key=${name}><span>${what}</span><kbd>${name}</kbd></div>`)}</div></section>`)}</div></${Dialog}>`
