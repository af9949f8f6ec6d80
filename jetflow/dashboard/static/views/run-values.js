// What went in, and what came out.
import { html } from '../parts/html.js'
import { meta } from '../parts/api.js'
import { StoredValue } from '../parts/json.js'
import { ended } from '../parts/status.js'
import { Note } from '../parts/said.js'

const NO_OUTPUT = { failed: 'It has failed: there is no output.', cancelled: 'It was cancelled: there is no output.', timed_out: 'Its time was over: there is no output.' }

export function Values({ id, run }) {
  if (meta.now && !meta.now.access.payloads) return html`<${Note}>Inputs and outputs are not shown to you here.</${Note}>`
  return html`<div class="two"><${StoredValue} path=${`runs/${id}/input`} title="Input" absent="The input is not stored any more." />
    <${StoredValue} key=${run.status} path=${`runs/${id}/output`} title="Output" absent=${NO_OUTPUT[run.status] ?? (ended(run.status) ? 'No output is stored.' : 'It has not ended yet.')} /></div>`
}
