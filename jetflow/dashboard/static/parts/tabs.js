// Tabs are links: each has an address. The keys 1 to 9 choose.
import { html, cls } from './html.js'
import { count } from './format.js'
import { go } from './router.js'
import { useKeys } from './keys.js'

export function Tabs({ tabs, now, label }) {
  const shown = tabs.filter(Boolean)
  useKeys(Object.fromEntries(shown.slice(0, 9).map((tab, n) => [String(n + 1), () => go(tab.href)])))
  return html`<nav class="tabs" aria-label=${label}>
    ${shown.map((tab, n) => html`<a key=${tab.id} href=${tab.href} aria-current=${tab.id === now ? 'page' : undefined}
      title=${`${tab.label} (${n + 1})`}>
    ${tab.label}${tab.count !== undefined && html`<span class=${cls('count', tab.bad && 'bad')}>${count(tab.count)}</span>`}</a>`)}</nav>`
}

export const Segments = ({ options, now, choose, label }) =>
  html`<div class="seg" role="group" aria-label=${label}>${options.map(([value, text]) => html`
  <button key=${value} aria-pressed=${value === now} onClick=${() => choose(value)}>${text}</button>`)}</div>`

/** A choice of several, with counts: a click shows only that one, with Shift or Ctrl it is added or taken away. */
export function Chips({ options, chosen, choose, label }) {
  const press = (value) => (event) => {
    if (event.shiftKey || event.ctrlKey || event.metaKey) choose(chosen.includes(value) ? chosen.filter((one) => one !== value) : [...chosen, value])
    else choose(chosen.length === 1 && chosen[0] === value ? [] : [value])
  }
  return html`<div class="chips scroll" role="group" aria-label=${label}>
    ${options.map(({ value, label: text, count: n }) =>
      html`<button key=${value} title=${value === '' ? undefined : 'With Shift: beside the others'} class=${cls('chip', n === 0 && 'none')}
        aria-pressed=${value === '' ? !chosen.length : chosen.includes(value)} onClick=${value === '' ? () => choose([]) : press(value)}>
      ${text}${n !== undefined && n !== null && html`<b>${count(n)}</b>`}</button>`)}</div>`
}
