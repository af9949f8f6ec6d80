// Who works: the workers that answer, their slots, and what each runs at this moment. Gone ones stay for ten minutes.
import { html, useEffect, useRef, useState } from '../parts/html.js'
import { address, ask, may, useAsk } from '../parts/api.js'
import { href } from '../parts/router.js'
import { count, duration, plural, shortId } from '../parts/format.js'
import { Status } from '../parts/status.js'
import { Grid } from '../parts/grid.js'
import { Took, When } from '../parts/time.js'
import { Bones, Command, Empty, Trouble } from '../parts/said.js'
import { Dialog } from '../parts/dialog.js'

const GONE_FOR = 600_000
const SHOWN = 8

const Slots = ({ row }) => row.slots <= 64
  ? html`<div class="slots" role="img" aria-label=${`${row.used} of ${row.slots} slots run steps`}>
    ${Array.from({ length: row.slots }, (_, n) => html`<i key=${n} class=${n < row.used ? 'used' : ''} />`)}</div>`
  : html`<div class="bar" role="img" aria-label=${`${row.used} of ${row.slots} slots run steps`}>
    <span class="t-blue" style=${{ width: `${(100 * row.used) / row.slots}%` }} /></div>`

const COLUMNS = (look) => [
  { id: 'state', label: 'State', width: '92px', cell: (row) => html`<${Status} status=${row.state} />` },
  { id: 'step', label: 'Step', width: 'minmax(90px, 1fr)', className: 'cut first', cell: (row) =>
    html`<a class="name" tabindex="-1" href=${href(`runs/${row.run}`, { step: row.step })}>${row.workflow}</a> <span class="dim">
      ${row.step === 'run' ? shortId(row.run) : row.step}</span>` },
  { id: 'for', label: 'For', width: '64px', num: true, className: 'push', cell: (row) => html`<${Took} started=${row.started} />` },
  ...(may('stack') ? [{ id: 'stack', label: '', hidden: 'Stack', width: '54px', num: true, cell: (row) =>
    html`<button class="btn quiet small" onClick=${() => look(row)}>Stack</button>` }] : []),
]

function StackOf({ row, close }) {
  const [state, set] = useState({})
  useEffect(() => { ask(address(`runs/${row.run}/stack`)).then((rows) => set({ rows: rows.filter((one) => one.step === row.step) }),
    (problem) => set({ problem })) }, [])
  return html`<${Dialog} title=${`${row.workflow} / ${row.step}`} close=${close}><div class="body"><${Trouble} problem=${state.problem} />
    ${!state.rows && !state.problem && html`<span class="bone" />`}
      ${state.rows && !state.rows.length && html`<p class="dim">It has ended meanwhile.</p>`}
    ${state.rows?.map((one) => html`<pre class="trace raw" tabindex="0" key=${one.worker}>${one.stack || 'nothing was told'}</pre>`)}
      <div class="actions"><a class="btn" href=${href(`runs/${row.run}`)} onClick=${close}>Open the run</a></div></div></${Dialog}>`
}

function Card({ row, gone, look }) {
  const [all, showAll] = useState(false)
  const rows = all ? row.running : row.running.slice(0, SHOWN)
  return html`<section class=${gone ? 'panel worker gone' : 'panel worker'} aria-label=${`Worker ${row.name}`}>
    <div class="line"><h2 class="cut" title=${row.name}>${row.name}</h2><span class="grow" />
      ${gone ? html`<${Status} status="cancelled">last seen ${duration((Date.now() - gone) / 1000)} ago</${Status}>` : row.leaving ?
        html`<${Status} status="retrying">leaving</${Status}>` : html`<${Status} status="succeeded">alive</${Status}>`}</div>
    <div class="inside"><div class="stack"><div class="stack tight"><div class="line"><span class="grow dim"><b>${count(row.used)}
      </b> of ${plural(row.slots, 'slot')} used${row.waiting ? ` · ${row.waiting} waiting` : ''}</span></div><${Slots} row=${row} /></div>
    <dl class="facts"><dt>Host</dt><dd>${row.host} <span class="faint">pid ${row.pid}</span></dd><dt>Up</dt><dd>
      <${Took} started=${row.started} /> <span class="faint">since <${When} at=${row.started} full /></span></dd>
      <dt>Version</dt><dd>${row.version} <span class="faint">Python ${row.python}</span></dd>
      <dt>Steps</dt><dd>${count(row.succeeded)} ok${row.failed ? html` · <span class="st t-red">${count(row.failed)} failed</span>` : ''}
        ${row.retried ? html` · <span class="st t-orange">${count(row.retried)} retried</span>` : ''}</dd>
      <dt>Loop lag</dt><dd><span class=${row.lag > 0.1 ? 'st t-orange' : ''}>${duration(row.lag)}</span></dd><dt>Workflows</dt><dd>
        ${row.workflows.map((name, n) => html`${n ? ', ' : ''}<a class="link" href=${href(`workflows/${name}`)}>${name}</a>`)}</dd>
          </dl></div>
    ${gone ? html`<p class="faint">What it held goes to others.</p>` : rows.length > 0 ?
      html`<${Grid} label=${`What ${row.name} runs`} columns=${COLUMNS(look)} rows=${rows} idOf=${(one) => `${one.run}/${one.step}`}
        to=${(one) => href(`runs/${one.run}`, { step: one.step })} keys=${false}
      foot=${row.running.length > SHOWN && html`<button class="btn small quiet" onClick=${() => showAll(!all)}>
        ${all ? 'Fewer' : `All ${row.running.length}`}</button>`} />` : html`<p class="faint">It runs nothing at the moment.</p>`}</div>
          </section>`
}

export function Workers() {
  const { data, problem, at, loading, again } = useAsk('workers', {}, { topic: 'workers', take: (_, rows) => rows ?? undefined })
  const known = useRef(new Map())
  const [stack, setStack] = useState(null)
  const seen = Date.now()
  for (const row of data ?? []) known.current.set(row.name, { row, at: seen })
  const gone = [...known.current.values()].filter(({ row, at: last }) => seen - last < GONE_FOR && !(data ?? []).some((one) =>
    one.name === row.name))
  const rows = [...(data ?? [])].sort((a, b) => a.name.localeCompare(b.name))
  const slots = rows.reduce((sum, row) => sum + row.slots, 0)
  return html`<div class="page">
    <div class="pagehead"><h1>Workers</h1><span class="sub">
      ${rows.length ? `${plural(rows.length, 'worker')} · ${count(rows.reduce((sum, row) => sum + row.used,
        0))} of ${count(slots)} slots used` : ''}</span></div>
    <${Trouble} problem=${problem} at=${at} again=${again} />
    ${loading ? html`<${Bones} />` : data && !rows.length &&
      html`<div class="panel"><${Empty} art="calm" title="No worker answers"
        actions=${html`<${Command}
          text="jetflow worker flows.py" />`}>Workers answer by themselves while they live. One that is cut off, or of an SDK that does not answer, is not in this list.</${Empty}></div>`}
    <div class="cards">${rows.map((row) => html`<${Card} key=${row.name} row=${row} look=${setStack} />`)}
      ${gone.map(({ row, at: last }) => html`<${Card} key=${row.name} row=${row} gone=${last} />`)}</div>
    ${stack && html`<${StackOf} row=${stack} close=${() => setStack(null)} />`}</div>`
}
