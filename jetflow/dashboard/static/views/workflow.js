// One workflow: its graph, what its steps allow, its schemas, its runs; and a form to begin one.
import { html } from '../parts/html.js'
import { may, useAsk } from '../parts/api.js'
import { go, href } from '../parts/router.js'
import { count, duration } from '../parts/format.js'
import { Icon } from '../parts/icons.js'
import { Graph } from '../parts/graph.js'
import { Grid } from '../parts/grid.js'
import { Json } from '../parts/json.js'
import { useKeys } from '../parts/keys.js'
import { Tabs } from '../parts/tabs.js'
import { Bones, Copy, Empty, Note, Trouble } from '../parts/said.js'
import { Trigger } from './trigger.js'
import { runColumns, useTotals } from './runs.js'

const Schema = ({ title, value }) => html`<section class="panel"><header><h2>${title}</h2><div class="end">
  <${Copy} text=${JSON.stringify(value, null, 2)} label=${`Copy the schema of the ${title.toLowerCase()}`} /></div></header>
    <div class="body json">${value && Object.keys(value).length ? html`<${Json} value=${value} />` :
      html`<span class="faint">anything</span>`}</div></section>`

function Newest({ name }) {
  const { data, problem, at, loading, again } = useAsk('runs', { workflow: name, limit: 20 }, { topic: 'runs', every: 1500 })
  const totals = useTotals(data?.items ?? [], at)
  if (loading) return html`<${Bones} rows=${4} />`
  return html`<div class="stack tight"><${Trouble} problem=${problem} at=${at} again=${again} />
    ${data && (data.items.length ? html`<${Grid} label="Runs" columns=${runColumns(totals, { workflow: false })} rows=${data.items}
      to=${(row) => href(`runs/${row.id}`)} foot=${html`<a class="link" href=${href('runs', { workflow: name })}>All its root runs</a>`} />`
    : html`<div class="panel">
      <${Empty} title="No root run is stored">It may have run as a child: those are in the tables of their parents.</${Empty}>
        </div>`)}</div>`
}

const STEPS = (queues) => [
  { id: 'step', label: 'Step', width: 'minmax(110px, 1fr)', className: 'cut first', cell: (row) =>
    html`<span class="name">${row.name}</span>` },
  { id: 'doc', label: 'What it does', width: 'minmax(120px, 1.8fr)', className: 'cut dim whole', cell: (row) => row.doc },
  { id: 'attempts', label: 'Attempts', width: '76px', num: true, small: 'attempts', cell: (row) => row.attempts },
  { id: 'timeout', label: 'Timeout', width: '84px', num: true, small: 'timeout', cell: (row) => row.timeout ? duration(row.timeout) :
    html`<span class="faint">none</span>` },
  { id: 'running', label: 'At once', width: '76px', num: true, className: 'wide', cell: (row) => row.max_running ??
    html`<span class="faint">any</span>` },
  { id: 'waiting', label: 'Waiting', width: '76px', num: true, small: 'waiting', cell: (row) => count(queues.find((one) =>
    one.step === row.name)?.waiting ?? 0) },
  { id: 'source', label: 'Code', width: 'minmax(100px, 1fr)', className: 'cut wide', cell: (row) =>
    html`<code class="faint" title=${row.source}>${row.source}</code>` },
]

export function Workflow({ name, tab = 'overview' }) {
  const { data, problem, at, loading, again } = useAsk(`workflows/${name}`, {})
  useKeys({ u: () => go(href('workflows')), Escape: () => go(href('workflows')) })
  if (loading) return html`<div class="page"><${Bones} /></div>`
  if (!data) return html`<div class="page">${problem.status === 404 ? html`<div class="panel">
    <${Empty} art="lost" title="No workflow is called so" actions=${html`<a class="btn" href=${href('workflows')}>All workflows</a>`}>
      ${problem.detail}</${Empty}></div>` : html`<${Trouble} problem=${problem} again=${again} />`}</div>`
  const steps = data.graph.nodes.map((node) => ({ name: node.name, after: [], attempts: 1, ...data.steps[node.name], status: 'pending' }))
  const doc = steps[0]?.doc
  const to = (id) => href(id === 'overview' ? `workflows/${name}` : `workflows/${name}/${id}`)
  const tabs = [{ id: 'overview', label: 'Overview', href: to('overview') }, { id: 'schemas', label: 'Schemas', href: to('schemas') },
    may('trigger') && { id: 'trigger', label: 'Trigger', href: to('trigger') }]
  return html`<div class="page"><header class="runhead"><nav class="crumbs" aria-label="Path"><a href=${href('workflows')}>Workflows</a>
    <${Icon} name="right" size=${12} /><span>${name}</span></nav>
      <div class="title"><h1 class="cut">${name}</h1><code class="faint" title=${data.version}>${data.version.slice(0, 8)}</code>
        <div class="end">${may('trigger') && tab !== 'trigger' && html`<a class="btn main" href=${to('trigger')}>
          <${Icon} name="play" size=${14} />Trigger</a>`}</div></div>
      ${doc && html`<p class="dim">${doc}</p>`}
      <div class="meta">${data.deadline && html`<span><span>Deadline</span>${duration(data.deadline)}</span>`}
        ${data.fail_fast && html`<span><span>Fails</span>at the first error</span>`}
          ${data.on_failure && html`<span><span>On failure</span>${data.on_failure}</span>`}
          ${data.on_success && html`<span><span>On success</span>${data.on_success}</span>`}</div></header>
    <${Trouble} problem=${problem} at=${at} again=${again} />
    <${Tabs} label="Ways to look at the workflow" tabs=${tabs} now=${tab} />
    ${tab === 'trigger' ? may('trigger') ? html`<${Trigger} name=${name} schema=${data.input} />` :
      html`<${Note}>You may only look here.</${Note}>`
      : tab === 'schemas' ? html`<div class="two"><${Schema} title="Input" value=${data.input} />
        <${Schema} title="Output" value=${data.output} /></div>`
      : html`<div class="stack">${steps.length > 1 && html`<${Graph} graph=${data.graph} steps=${steps} totals=${[]} plain />`}
        <${Grid} label="Steps" columns=${STEPS(data.queues)} rows=${steps} idOf=${(row) => `step:${row.name}`} keys=${false} />
          <h2>Newest root runs</h2><${Newest} name=${name} /></div>`}</div>`
}
