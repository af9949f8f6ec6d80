// What may be run: each declared workflow, how it fares, and where to begin one.
import { html } from '../parts/html.js'
import { may, useAsk } from '../parts/api.js'
import { href, refine, useRoute } from '../parts/router.js'
import { count, percent, plural } from '../parts/format.js'
import { Icon } from '../parts/icons.js'
import { Grid } from '../parts/grid.js'
import { Bones, Command, Empty, Trouble } from '../parts/said.js'

export function Workflows() {
  const { query } = useRoute()
  const text = query.get('q') ?? ''
  const { data, problem, at, loading, again } = useAsk('workflows', {}, { topic: 'queues', every: 10_000 })
  const rows = (data ?? []).filter((row) => row.name.includes(text)).sort((a, b) => a.name.localeCompare(b.name))
  const columns = [
    { id: 'name', label: 'Workflow', width: 'minmax(150px, 1.2fr)', className: 'cut first', cell: (row) =>
      html`<a class="name" tabindex="-1" href=${href(`workflows/${row.name}`)}>${row.name}</a>` },
    { id: 'doc', label: 'What it does', width: 'minmax(140px, 2fr)', className: 'cut dim whole', cell: (row) => row.doc ||
      html`<span class="faint">${row.steps.join(' → ')}</span>` },
    { id: 'steps', label: 'Steps', width: '60px', num: true, small: 'steps', cell: (row) => count(row.steps.length) },
    { id: 'triggered', label: 'Root runs, 24 h', width: '116px', num: true, small: 'runs', cell: (row) =>
      html`<span class=${row.triggered ? '' : 'faint'}>${count(row.triggered)}</span>` },
    { id: 'failed', label: 'Failed', width: '110px', num: true, small: 'failed', cell: (row) => row.failed ?
      html`<span class="st t-red">${count(row.failed)} <span class="faint">${percent(row.failed, row.triggered)}</span></span>` :
        html`<span class="faint">0</span>` },
    { id: 'waiting', label: 'Waiting', width: '76px', num: true, className: 'wide', cell: (row) =>
      html`<span class=${row.waiting ? '' : 'faint'}>${count(row.waiting)}</span>` },
    { id: 'version', label: 'Version', width: '86px', className: 'wide', cell: (row) =>
      html`<code class="faint" title=${row.version}>${row.version.slice(0, 8)}</code>` },
    ...(may('trigger') ? [{ id: 'do', label: '', hidden: 'Action', width: '92px', num: true, className: 'push', cell: (row) =>
      html`<a class="btn small" href=${href(`workflows/${row.name}/trigger`)}><${Icon} name="play" size=${12} />Trigger</a>` }] : []),
  ]
  return html`<div class="page"><div class="pagehead"><h1>Workflows</h1><span class="sub">
    ${data ? plural(data.length, 'workflow') : ''}</span>
      <div class="end search"><${Icon} name="search" />
        <input class="input" type="search" aria-label="Name" placeholder="Name" value=${text}
          onInput=${(e) => refine({ q: e.target.value })} /><kbd>/</kbd></div></div>
    <${Trouble} problem=${problem} at=${at} again=${again} />
    ${loading ? html`<${Bones} />` : data && (rows.length ?
      html`<${Grid} label="Workflows" columns=${columns} rows=${rows} idOf=${(row) => row.name}
        to=${(row) => href(`workflows/${row.name}`)} />`
      : html`<div class="panel"><${Empty} art="start" title=${text ? 'No workflow is called so' : 'No workflow is declared yet'}
        actions=${!text && html`<${Command} text="jetflow worker flows.py" />`}>
          ${text ? 'Take the filter away to see all.' : 'A worker declares its workflows when it starts.'}</${Empty}></div>`)}</div>`
}
