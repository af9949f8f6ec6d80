// What went wrong below a run, in groups: one line for each kind of error, however often it came.
import { html } from '../parts/html.js'
import { useAsk } from '../parts/api.js'
import { childrenOf } from '../parts/status.js'
import { Failure } from '../parts/trace.js'
import { Bones, Searched, Trouble } from '../parts/said.js'
import { count } from '../parts/format.js'
import { Groups } from './error-groups.js'

export function RunErrors({ id, run, totals }) {
  const bad = (totals?.totals.failed ?? 0) + (totals?.totals.timed_out ?? 0)
  const { data, problem, at, loading, again } = useAsk(bad ? `runs/${id}/errors` : null, {}, { topic: ['queued',
    'running'].includes(run.status) ? `totals:${id}` : null, every: 2000 })
  const own = run.errors?.length ? run.errors : run.error ? [run.error] : []
  return html`<div class="stack">
    ${own.length > 0 && html`<section class="stack tight"><h2>Of the run itself</h2>
      ${own.map((error, n) => html`<${Failure} key=${n} error=${error} open=${true} />`)}</section>`}
    ${bad > 0 && html`<section class="stack tight"><div class="line"><h2 class="grow">Of its children</h2><span class="faint">
      ${data && html`${count(data.total)} in all <${Searched} searched=${data.searched} what="failures" />`}</span></div>
      <${Trouble} problem=${problem} at=${at} again=${again} />
      ${loading ? html`<${Bones} rows=${4} />` : data &&
        html`<div class="panel"><${Groups} groups=${data.items} to=${(group) => childrenOf(id, { status: group.status, q: group.type })} />
          </div>`}</section>`}
    ${!bad && !own.length && html`<div class="panel"><p class="none">Nothing has failed.</p></div>`}</div>`
}
