// A look inside a child without leaving the list.
import { html } from '../parts/html.js'
import { useAsk } from '../parts/api.js'
import { nameOf } from '../parts/format.js'
import { Drawer } from '../parts/dialog.js'
import { Status } from '../parts/status.js'
import { Failure } from '../parts/trace.js'
import { StoredValue } from '../parts/json.js'
import { Took, When } from '../parts/time.js'
import { Trouble } from '../parts/said.js'
import { StepRows } from './steps.js'

export function Peek({ id, row, open, close }) {
  const { data, problem, at } = useAsk(`runs/${id}`, {})
  const run = data?.run
  return html`<${Drawer} title=${nameOf(row)} close=${close}
    head=${html`<div class="stack tight"><div class="line"><${Status} status=${run?.status ?? row.status} pill /><h2 class="cut">
      ${nameOf(row)}</h2></div></div>`}>
    <div class="line"><button class="btn main" onClick=${open}>Open the run<kbd>↵</kbd></button><span class="dim">${row.workflow}
      </span></div>
    <${Trouble} problem=${problem} at=${at} />
    <dl class="facts"><dt>Queued</dt><dd><${When} at=${row.queued} full /></dd><dt>Took</dt><dd>
      <${Took} started=${row.started ?? row.queued} ended=${run?.ended ?? row.ended} /></dd>
      <dt>Id</dt><dd class="mono">${id}</dd>${row.worker && html`<dt>Worker</dt><dd>${row.worker}</dd>`}</dl>
    ${run && (run.errors?.length ? run.errors : run.error ? [run.error] : []).map((error, n) =>
      html`<${Failure} key=${n} error=${error} />`)}
    ${run && html`<${StepRows} steps=${run.steps} />`}
    <${StoredValue} path=${`runs/${id}/input`} title="Input" absent="The input is not stored any more." />
    ${run?.status === 'succeeded' && html`<${StoredValue} path=${`runs/${id}/output`} title="Output" absent="No output." />`}</${Drawer}>`
}
