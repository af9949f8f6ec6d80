// What goes on: four figures, what ended, what waits, what fails, what takes long. Each leads to its page.
import { html, cls } from '../parts/html.js'
import { useAsk } from '../parts/api.js'
import { href, go, refine, useRoute } from '../parts/router.js'
import { count, nameOf, perSecond, plural } from '../parts/format.js'
import { Bar } from '../parts/status.js'
import { Icon } from '../parts/icons.js'
import { Grid } from '../parts/grid.js'
import { Segments } from '../parts/tabs.js'
import { Took } from '../parts/time.js'
import { Bones, Note, Trouble } from '../parts/said.js'
import { Ends } from '../parts/chart.js'
import { Groups } from './error-groups.js'
import { runColumns, useTotals } from './runs.js'
import { Start } from './start.js'

const WINDOWS = [['3600', '1 h'], ['21600', '6 h'], ['86400', '24 h'], ['604800', '7 d']]

const Figure = ({ label, icon, value, note, to, bad }) =>
  html`<a class=${cls('panel figure', bad && 'bad')} href=${to}><span class="label"><${Icon} name=${icon} size=${14} />${label}</span>
    <span class="value">${value}</span><span class="note">${note}</span></a>`

const Panel = ({ title, to, more, children, none }) =>
  html`<section class="panel" aria-label=${title}><header><h2>${title}</h2><div class="end">${more}
    ${to && html`<a class="link" href=${to}>All</a>`}</div></header>${none ? html`<p class="none">${none}</p>` : children}</section>`

const QUEUES = [
  { id: 'queue', label: 'Step', width: 'minmax(120px, 1fr)', className: 'cut first', cell: (row) =>
    html`<span class="name">${row.workflow}</span> <span class="dim">${row.step === 'run' ? '' : row.step}</span>` },
  { id: 'waiting', label: 'Waiting', width: '80px', num: true, cell: (row) => count(row.waiting) },
  { id: 'oldest', label: 'Oldest', width: '84px', num: true, className: 'push', cell: (row) => html`<${Took} started=${row.oldest} />` },
]
const longest = (totals) => [
  { id: 'run', label: 'Run', width: 'minmax(120px, 1fr)', className: 'cut first', cell: (row) =>
    html`<a class="name" tabindex="-1" href=${href(`runs/${row.id}`)}>${row.workflow}</a> <span class="dim">${nameOf(row)}</span>` },
  { id: 'progress', label: 'Children', width: '130px', className: 'whole', cell: (row) => totals[row.id]?.totals.spawned ?
    html`<div class="meter"><${Bar} totals=${totals[row.id].totals} size="thin" live /><span class="dim">
      ${count(totals[row.id].totals.spawned)}</span></div>` : null },
  { id: 'took', label: 'For', width: '84px', num: true, className: 'push', cell: (row) => html`<${Took} started=${row.triggered} />` },
]

function WorkersStrip({ workers, waiting }) {
  if (!workers.count) return html`<${Note} tone=${waiting ? 'red' : 'grey'} icon="workers">
    <b>No worker answers${waiting ? `, and ${plural(waiting, 'task')} wait` : ''}.</b> <span
      class="dim">Start one: <code>jetflow worker flows.py</code></span></${Note}>`
  const share = workers.used / Math.max(1, workers.slots)
  return html`<a class="panel strip" href=${href('workers')}><span class="label"><${Icon} name="workers" size=${14} />
    ${plural(workers.count, 'worker')}</span>
    <span class="bar" role="img" aria-label=${`${workers.used} of ${workers.slots} slots are used`}>
      <span class="t-blue" style=${{ width: `${100 * share}%` }} /></span>
    <span class="dim">${count(workers.used)} of ${count(workers.slots)} slots used${workers.waiting ?
      ` · ${plural(workers.waiting, 'step')} waiting for children` : ''}</span></a>`
}

export function Overview() {
  const { query } = useRoute()
  const window = query.get('window') ?? '3600'
  const label = WINDOWS.find(([value]) => value === window)?.[1] ?? ''
  const { data, problem, at, loading, again } = useAsk('overview', { window }, { topic: 'overview', every: 4000, take: window === '3600' ?
    (_, told) => told ?? undefined : null, keepOld: true })
  const shown = data ? [...data.longest, ...data.newest] : []
  const totals = useTotals([...new Map(shown.map((row) => [row.id, row])).values()], at)
  const head = html`<div class="pagehead"><h1>Overview</h1><div class="end">
    <${Segments} label="Window" options=${WINDOWS} now=${window}
      choose=${(value) => refine({ window: value === '3600' ? null : value })} /></div></div>`
  if (loading) return html`<div class="page">${head}<${Bones} rows=${3} /><${Bones} rows=${6} /></div>`
  if (!data) return html`<div class="page">${head}<${Trouble} problem=${problem} again=${again} /></div>`
  const { counts } = data
  const since = Math.floor(data.at - data.window)
  const quiet = !data.newest.length && !counts.waiting && !counts.ended
  if (quiet) return html`<div class="page">${head}<${Trouble} problem=${problem} at=${at} again=${again} />
    <${WorkersStrip} workers=${data.workers} waiting=${0} /><${Start} /></div>`
  const columns = runColumns(totals)
  return html`<div class="page">${head}<${Trouble} problem=${problem} at=${at} again=${again} />
    <div class="figures">
      <${Figure} label="Running now" icon="running" value=${count(counts.running)}
        note=${`steps on ${plural(data.workers.count, 'worker')}`} to=${href('workers')} />
      <${Figure} label="Waiting now" icon="queued" value=${count(counts.waiting)} note="tasks in queues" to=${href('queues')} />
      <${Figure} label="Failed" icon="failed" value=${count(counts.failed)}
        note=${`of ${plural(counts.ended, 'run')} that ended in ${label}`} bad=${counts.failed > 0}
          to=${href('runs', { status: 'failed', since })} />
      <${Figure} label="Rate" icon="succeeded" value=${counts.rate >= 0.1 || !counts.rate ?
        html`${count(Math.round(counts.rate * 10) / 10)}<small>/s</small>` : perSecond(counts.rate)} note="runs ending"
          to=${href('runs', { since })} />
    </div>
    <${WorkersStrip} workers=${data.workers} waiting=${counts.waiting} />
    <${Panel} title="Runs that ended" none=${counts.ended ? null : `None has ended in the last ${label}.`}>
      <${Ends} series=${data.series} choose=${(from, to) => go(href('runs', { since: Math.floor(from), until: Math.ceil(to) }))} />
        </${Panel}>
    <div class="cols">
      <${Panel} title="Failures" to=${href('errors')} none=${data.errors.items.length ? null : 'Nothing has failed.'}
        more=${data.errors.total ? html`<span>${count(data.errors.total)} in ${label}</span>` : null}>
          <${Groups} groups=${data.errors.items.slice(0, 6)} to=${(group) => href(`errors/${group.fingerprint}`)} /></${Panel}>
      <div class="stack"><${Panel} title="Longest running" none=${data.longest.length ? null : 'No run is in flight.'}
        more=${data.longest_complete ? null : html`<span>of the newest open ones</span>`}>
          <${Grid} label="Longest running" columns=${longest(totals)} rows=${data.longest.slice(0, 6)}
            to=${(row) => href(`runs/${row.id}`)} keys=${false} /></${Panel}>
        <${Panel} title="Queues" to=${href('queues')} none=${data.queues.length ? null : 'Nothing waits.'}>
          <${Grid} label="Queues" columns=${QUEUES} rows=${data.queues.slice(0, 6)} idOf=${(row) => `${row.workflow}/${row.step}`}
            to=${() => href('queues')} keys=${false} /></${Panel}></div>
    </div>
    <section class="stack tight"><div class="line"><h2 class="grow">Newest runs</h2><a class="link dim" href=${href('runs')}>All runs</a>
      </div><${Grid} label="Newest runs" columns=${columns} rows=${data.newest} to=${(row) => href(`runs/${row.id}`)} /></section>
  </div>`
}

