// The steps of a run as a table: what the graph shows, for the keyboard and for those who read with their ears.
import { html } from '../parts/html.js'
import { count } from '../parts/format.js'
import { Bar, Status } from '../parts/status.js'
import { Grid } from '../parts/grid.js'
import { ErrorLine } from '../parts/trace.js'
import { Took, Until } from '../parts/time.js'
import { WaitLine } from '../parts/waits.js'

const open = (step) => ['running', 'waiting', 'retrying'].includes(step.status)

/** A step that is tried again: what its last attempt failed with, and when the next one is due. */
function Again({ step }) {
  const last = step.failures?.at(-1)?.error
  return html`<span class="err soft cut">again <${Until} at=${step.again} />${last && html`: <b>${last.type}</b> ${last.message}`}</span>`
}

/** `choose(name)` opens a step. */
export function StepRows({ steps, totals = [], choose }) {
  const spawned = new Map(totals.map((one) => [one.step, one.totals]))
  const columns = [
    { id: 'status', label: 'Status', width: '112px', cell: (step) => html`<${Status} status=${step.status} />` },
    { id: 'step', label: 'Step', width: 'minmax(100px, 1fr)', className: 'cut first', cell: (step) => choose ?
      html`<button class="name" tabindex="-1" onClick=${() => choose(step.name)}>${step.name}</button>` :
        html`<span class="name">${step.name}</span>` },
    ...(choose ? [{ id: 'children', label: 'Children', width: 'minmax(110px, 1fr)', cell: (step) => spawned.get(step.name)?.spawned ?
      html`<div class="meter"><${Bar} totals=${spawned.get(step.name)} size="thin" /><span class="dim">
        ${count(spawned.get(step.name).spawned)}</span></div>` : null },
      { id: 'after', label: 'After', width: 'minmax(80px, 0.8fr)', className: 'cut faint wide', cell: (step) =>
        step.after.join(', ') }] : []),
    { id: 'tries', label: 'Tries', width: '72px', num: true, cell: (step) => step.attempts ?
      html`<span>${step.attempts}${step.declared?.attempts ? html`<span class="faint"> / ${step.declared.attempts}</span>` : null}
        </span>` : html`<span class="faint">–</span>` },
    { id: 'took', label: 'Took', width: '92px', num: true, className: 'push', cell: (step) =>
      html`<${Took} started=${step.started} ended=${step.ended} open=${open(step)} />` },
    ...(choose ? [{ id: 'worker', label: 'Worker', width: 'minmax(80px, 0.8fr)', className: 'cut dim wide', cell: (step) =>
      step.worker }] : []),
    { id: 'error', label: choose ? 'Error, or what it waits for' : '', hidden: 'Error', width: choose ? 'minmax(120px, 1.6fr)' : 'minmax(0, 0.6fr)', className:
      'cut whole', cell: (step) => step.error ? html`<${ErrorLine} error=${step.error} status=${step.status} />` : step.again ?
        html`<${Again} step=${step} />` : step.unattended ?
          html`<span class="err soft"><b>no worker takes it</b></span>` : html`<${WaitLine} step=${step} />` },
  ]
  return html`<${Grid} label="Steps" columns=${columns} rows=${steps} idOf=${(step) => `step:${step.name}`} keys=${Boolean(choose)}
    onSpace=${choose ? (step) => choose(step.name) : undefined} />`
}
