// The steps of a run, as a graph and as a table with the same facts; a click opens the drawer of one step.
import { html, useState } from '../parts/html.js'
import { address, ask, may, useAsk } from '../parts/api.js'
import { go, href, refine, useRoute } from '../parts/router.js'
import { count, duration, plural } from '../parts/format.js'
import { Bar, childrenOf, Legend, Status, tone } from '../parts/status.js'
import { Icon } from '../parts/icons.js'
import { Graph } from '../parts/graph.js'
import { Drawer } from '../parts/dialog.js'
import { Failure } from '../parts/trace.js'
import { StoredValue } from '../parts/json.js'
import { Took, Until, When } from '../parts/time.js'
import { Note, Trouble } from '../parts/said.js'
import { WaitFacts } from '../parts/waits.js'
import { AttemptDiff } from './attempt-diff.js'
import { StepRows } from './steps.js'

/** The steps, with what only the workers know of those that go on: who holds one, since when, and whether it waits. */
function useHeld(id, run) {
  const goes = run.steps.some((step) => step.status === 'running')
  const { data } = useAsk(goes ? `runs/${id}/running` : null, {}, { topic: goes ? `totals:${id}` : null, every: 3000 })
  if (!goes || !data) return run.steps
  return run.steps.map((step) => {
    const held = step.status === 'running' && data.find((row) => row.step === step.name)
    return held ? { ...step, status: held.state, worker: step.worker ?? held.worker, started: step.started ?? held.started } : step
  })
}

export function Steps({ id, run, graph, totals }) {
  const { query } = useRoute()
  const name = query.get('step')
  const steps = useHeld(id, run)
  const step = steps.find((one) => one.name === name)
  const fans = totals?.steps ?? []
  const choose = (chosen) => refine({ step: chosen === name ? null : chosen }, { replace: Boolean(name) })
  const children = (chosen) => go(href(`runs/${id}/children`, fans.filter((one) => one.totals.spawned).length > 1 ? { step: chosen } : {}))
  const errors = run.errors?.length ? run.errors : run.error ? [run.error] : []
  return html`<div class="stack">
    ${(graph.nodes.length > 1 || fans.some((one) => one.totals.spawned)) && html`<${Graph} graph=${graph} steps=${steps} totals=${fans} chosen=${name} choose=${choose}
      openChildren=${children} />`}
    ${errors.slice(0, 2).map((error, n) => html`<${Failure} key=${n} error=${error} />`)}
    ${errors.length > 2 && html`<a class="link" href=${href(`runs/${id}/errors`)}>${plural(errors.length - 2, 'more error')}</a>`}
    <${StepRows} steps=${steps} totals=${fans} choose=${choose} />
    ${step && html`<${StepDrawer} id=${id} step=${step} fan=${fans.find((one) => one.step === name)} workflows=${totals?.workflows ?? []}
      close=${() => refine({ step: null })} />`}
  </div>`
}

function Stack({ id, step }) {
  const [state, set] = useState({})
  const look = () => { set({ busy: true }); ask(address(`runs/${id}/stack`)).then((rows) => set({ rows: rows.filter((row) =>
    row.step === step) }), (problem) => set({ problem })) }
  return html`<section class="stack tight"><div class="line"><h3 class="grow">Where its code stands</h3>
    <button class="btn small" disabled=${state.busy} onClick=${look}>
      ${state.busy ? 'Asking…' : state.rows ? 'Ask again' : 'Ask the worker'}</button></div>
    <${Trouble} problem=${state.problem} at=${state.problem ? Date.now() : 0} />
    ${state.rows && !state.rows.length && html`<p class="faint">No worker that answers holds this step now.</p>`}
    ${state.rows?.map((row) => html`<div class="trace" key=${row.worker}><header><div class="grow">${row.worker} <span class="faint">
      ${row.state}</span></div></header><pre class="raw" tabindex="0">${row.stack || 'nothing was told'}</pre></div>`)}</section>`
}

/** A join policy in words. */
function inWords(policy = {}) {
  const parts = []
  if (policy.anything) parts.push('however they end')
  else if (policy.quorum) parts.push(`${policy.quorum} must succeed`)
  else if (policy.fraction !== undefined) parts.push(`up to ${Math.round(100 * policy.fraction)} % may fail`)
  else if (policy.tolerated) parts.push(`up to ${policy.tolerated} may fail`)
  else parts.push('all must succeed')
  if (policy.early) parts.push('decided early')
  if (policy.seconds) parts.push(`within ${duration(policy.seconds)}`)
  return parts.join(', ')
}

export function StepDrawer({ id, step, fan, workflows, close }) {
  const runs = ['running', 'waiting'].includes(step.status)
  const parked = step.status === 'waiting' && (step.sleeps_until || step.join?.waits.length > 0)
  const last = step.error || step.ended || step.started
  return html`<${Drawer} title=${`Step ${step.name}`} close=${close}
    head=${html`<div class="line wrap"><h2>${step.name}</h2><${Status} status=${step.status} pill /></div>`}>
    ${step.declared?.doc && html`<p class="dim">${step.declared.doc}</p>`}
    <dl class="facts">
      <dt>Took</dt><dd><${Took} started=${step.started} ended=${step.ended} open=${runs || step.status === 'retrying'} /></dd>
      <dt>Queued</dt><dd><${When} at=${step.queued} full />
        ${step.started && step.queued ? html`<span class="faint"> · began ${duration(step.started - step.queued)} later</span>` : null}</dd>
      ${step.worker && html`<dt>Worker</dt><dd>${step.worker}</dd>`}
      ${step.again && html`<dt>Next attempt</dt><dd><${Until} at=${step.again} /></dd>`}
      ${step.after.length > 0 && html`<dt>After</dt><dd>${step.after.join(', ')}</dd>`}
      ${step.turns > 1 &&
        html`<dt>Turns</dt><dd>${step.turns}<span class="faint"> · begun from its top, after waits and retries</span></dd>`}
      ${step.declared && html`<dt>Allows</dt><dd>${plural(step.declared.attempts, 'attempt')}
        ${step.declared.timeout ? ` of ${duration(step.declared.timeout)}` : ''}
          ${step.declared.max_running ? `, ${step.declared.max_running} at once` : ''}</dd>`}
      ${step.declared?.source && html`<dt>Code</dt><dd class="mono">${step.declared.source}</dd>`}
      ${step.join?.needed > 0 && html`<dt>Join</dt><dd>${step.join.kind === 'sealed' ? 'its function has returned' :
        'parked'}, ${count(step.join.needed)} needed${step.join.total ? ` of ${count(step.join.total)}` :
          ''} · ${inWords(step.join.policy)}${step.join.until ? html` · until <${When} at=${step.join.until} full />` : ''}</dd>`}
    </dl>
    ${fan?.totals.spawned > 0 && html`<section class="stack tight"><div class="line"><h3 class="grow">
      ${plural(fan.totals.spawned, 'child', 'children')}${fan.sealed ? '' : ' so far'}</h3>
        <a class="btn small" href=${childrenOf(id, { step: step.name })}>Open the table<${Icon} name="right" size=${12} /></a></div>
      <${Bar} totals=${fan.totals} size="fat" live=${fan.totals.open > 0} />
        <${Legend} totals=${fan.totals} to=${(status) => childrenOf(id, { step: step.name, status })} />
      ${workflows.length > 1 && html`<dl class="facts">${workflows.map((one) =>
        html`<dt key=${one.workflow}>${one.workflow}</dt><dd>${count(one.spawned)}
          ${one.failed ? html` · <span class="st t-red">${count(one.failed)} failed</span>` : ''}</dd>`)}</dl>`}</section>`}
    <${WaitFacts} step=${step} />
    ${step.unattended && html`<${Note} tone="orange" icon="errors">It has been queued for a while, and no worker takes it.</${Note}>`}
    ${(step.failures.length > 0 || last) && html`<section class="stack tight"><h3>Attempts</h3><ol class="attempts">
      ${step.failures.map((one, n) => html`<li key=${one.attempt}><${Icon} name="failed" className="t-red st" /><div class="stack tight"><div>
        <b>Attempt ${one.attempt}</b> <span class="dim">${one.worker && `on ${one.worker}, `}</span><${When} at=${one.started} full />
          ${one.started && one.ended && html`<span class="dim"> · ${duration(one.ended - one.started)}</span>`}</div>
            ${one.error && html`<${Failure} error=${one.error} />`}<${AttemptDiff} before=${step.failures[n - 1]} after=${one} />
              </div></li>`)}
      ${step.started && !(step.status === 'retrying') &&
        html`<li key="last"><${Icon} name=${step.status} className=${`st ${tone(step.status)}`} /><div class="stack tight"><div>
          <b>Attempt ${Math.max(1, step.attempts)}</b> <span class="dim">${step.worker ? `on ${step.worker}, ` : ''}</span>
            <${When} at=${step.started} full /><span class="dim"> · <${Took} started=${step.started} ended=${step.ended} open=${runs} />
              </span></div>${step.error && html`<${Failure} error=${step.error} />
                <${AttemptDiff} before=${step.failures.at(-1)} after=${{ ...step, attempt: Math.max(1, step.attempts) }} />`}</div></li>`}
    </ol></section>`}
    ${runs && !parked && may('stack') && html`<${Stack} id=${id} step=${step.name} />`}
    ${step.status === 'succeeded' && html`<${StoredValue} path=${`runs/${id}/steps/${step.name}/output`} title="Output"
      absent="No output is stored." />`}</${Drawer}>`
}
