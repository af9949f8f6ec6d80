// What went in, and what came out.
import { html } from '../parts/html.js'
import { meta } from '../parts/api.js'
import { StoredValue } from '../parts/json.js'
import { Note } from '../parts/said.js'

const NO_OUTPUT = { failed: 'It has failed: there is no output.', cancelled: 'It was cancelled: there is no output.', timed_out:
  'Its time was over: there is no output.' }

export function Values({ id, run }) {
  if (meta.now && !meta.now.access.payloads) return html`<${Note}>Inputs and outputs are not shown to you here.</${Note}>`
  return html`<div class="two"><${StoredValue} path=${`runs/${id}/input`} title="Input" absent="The input is not stored any more." />
    ${run.status !== 'succeeded' ? html`<section class="panel"><header><h2>Output</h2></header><p class="none">
      ${NO_OUTPUT[run.status] ?? 'It has not ended yet.'}</p></section>` :
        html`<${StoredValue} path=${`runs/${id}/output`} title="Output" absent="No output is stored." />`}</div>`
}
