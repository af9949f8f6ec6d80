// What differs between two attempts of a step: where they ran, how long, and how they failed.
import { html, useState } from '../parts/html.js'
import { duration } from '../parts/format.js'
import { lines } from '../parts/diff.js'

const SIGN = { same: ' ', removed: '−', added: '+' }
const WORD = { same: '', removed: 'only before: ', added: 'only now: ' }
const AROUND = 2

/** An attempt as text: what is compared line by line. */
const told = ({ worker, started, ended, error }) => [
  `worker ${worker || 'not known'}`,
  `took ${started && ended ? duration(ended - started) : 'not known'}`,
  error ? `${error.type}: ${error.message}` : 'no error',
  error?.traceback ?? error?.place ?? '',
].join('\n').trimEnd()

/** Lines that differ, with a few around them; the others are counted. */
function folded(found) {
  const near = found.map((_, n) => found.slice(Math.max(0, n - AROUND), n + AROUND + 1).some((one) => one.kind !== 'same'))
  const parts = []
  for (let n = 0; n < found.length; n += 1) {
    if (near[n]) parts.push(found[n])
    else if (parts.at(-1)?.hidden) parts.at(-1).hidden += 1
    else parts.push({ kind: 'same', hidden: 1 })
  }
  return parts
}

export function AttemptDiff({ before, after }) {
  const [open, set] = useState(false)
  if (!before || !after?.error) return null
  const [a, b] = [told(before), told(after)]
  const found = open ? lines(a, b) : null
  const title = `Against attempt ${before.attempt}`
  return html`<div class="stack tight"><div><button class="btn small" aria-expanded=${open} onClick=${() => set(!open)}>
    ${open ? 'Hide what differs' : `What differs from attempt ${before.attempt}`}</button></div>
    ${open && (a === b ? html`<p class="faint">Nothing: it ran on the same worker, as long, and failed alike.</p>` : found === null ?
      html`<p class="faint">They are too long to compare here.</p>` : html`<pre class="raw trace lines" tabindex="0" role="group"
        aria-label=${title}>${folded(found).map((one, n) => (one.hidden ? html`<span key=${n} class="faint">
  ${one.hidden} ${one.hidden === 1 ? 'line' : 'lines'} alike${'\n'}</span>` : html`<span key=${n} class=${one.kind}>
<span aria-hidden="true">${SIGN[one.kind]} </span><span class="hidden">${WORD[one.kind]}</span>${one.text}${'\n'}</span>`))}</pre>`)}</div>`
}
