// An error with its traceback: the user's own frames are open, those of libraries folded.
import { html, cls, useState } from './html.js'
import { Copy } from './said.js'

const FRAME = /^\s*File "(.+)", line (\d+), in (.+)$/
const LIBRARY = /(site-packages|dist-packages|\/lib\/python3|<frozen|\/jetflow\/(worker|processes|context|step|engine)|^<)/

/** Frames of a Python traceback: {file, line, name, code, library}; null if it is none. */
export function frames(text) {
  const found = []
  let now = null
  for (const line of text.split('\n')) {
    const match = FRAME.exec(line)
    if (match) {
      now = { file: match[1], line: Number(match[2]), name: match[3], code: [], library: LIBRARY.test(match[1]) }
      found.push(now)
    } else if (now && /^\s{4}/.test(line)) now.code.push(line.trim())
    else now = null
  }
  return found.length ? found : null
}

const tail = (file) => file.split('/').slice(-2).join('/')

export function Failure({ error, open = false }) {
  const [all, showAll] = useState(false)
  const [raw, showRaw] = useState(false)
  const found = error.traceback ? frames(error.traceback) : null
  const folded = found ? found.filter((frame) => frame.library).length : 0
  const listed = found?.filter((frame) => all || !frame.library)
  return html`<div class="trace"><header><div class="grow"><b>${error.type}</b>
    ${error.message && html`<div class="message">${error.message}</div>`}
      ${!found && error.place && html`<div class="faint mono">${error.place}</div>`}</div>
        <${Copy} text=${error.traceback || `${error.type}: ${error.message}`} label="Copy the error" /></header>
    ${raw ? html`<pre class="raw">${error.traceback}</pre>` : listed &&
      html`<ol>${listed.map((frame, n) => html`<li key=${n} class=${cls(frame.library && 'lib')}>
      <div class="where"><b class="mono">${frame.name}</b> <span class="mono" title=${frame.file}>${tail(frame.file)}:${frame.line}
        </span></div>
      ${(open || !frame.library || all) && frame.code.length > 0 &&
        html`<pre>${frame.code.filter((line) => !/^[\^~ ]+$/.test(line)).join('\n')}</pre>`}</li>`)}</ol>`}
    ${found && html`<div>${folded > 0 && !raw && html`<button class="fold" onClick=${() => showAll(!all)}>
      ${all ? 'Hide' : 'Show'} ${folded} ${folded === 1 ? 'frame' : 'frames'} of libraries</button>`}
      <button class="fold" onClick=${() => showRaw(!raw)}>${raw ? 'As frames' : 'As text'}</button></div>`}
    ${!found && error.traceback && html`<pre class="raw">${error.traceback}</pre>`}</div>`
}

/** One line of an error in a list. */
export const ErrorLine = ({ error, status }) => (error ?
  html`<span class=${cls('err cut', status === 'cancelled' && 'mild', status === 'timed_out' && 'soft')}
    title=${`${error.type}: ${error.message}`}><b>${error.type}</b> ${error.message}</span>` : null)
