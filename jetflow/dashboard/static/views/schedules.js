// What begins by itself: when each schedule is due, in words and as times, and what its last ticks have led to.
import { html, useEffect, useState } from '../parts/html.js'
import { act, may, useAsk } from '../parts/api.js'
import { go, href, refine, useRoute } from '../parts/router.js'
import { clock, clockIn, count, duration, now, plural, words } from '../parts/format.js'
import { Status, tone } from '../parts/status.js'
import { Icon } from '../parts/icons.js'
import { Grid } from '../parts/grid.js'
import { Json } from '../parts/json.js'
import { listen } from '../parts/live.js'
import { Until, When } from '../parts/time.js'
import { Bones, Command, Empty, Note, tell, Trouble } from '../parts/said.js'
import { Confirm, Drawer } from '../parts/dialog.js'

const CATCH_UP = { all: 'all are made up for', latest: 'the latest is made up for', none: 'none is made up for' }
const SPANS = [['3600', 'the last hour'], ['86400', 'the last day'], ['604800', 'the last 7 days'], ['2592000', 'the last 30 days']]

function State({ row }) {
  if (!row.known) return html`<${Status} status="failed" title="Nobody has declared its workflow">starts nothing</${Status}>`
  if (row.paused) return html`<${Status} status="waiting">paused</${Status}>`
  if (row.next === null) return html`<${Status} status="skipped">over</${Status}>`
  return html`<${Status} status="succeeded">on</${Status}>`
}

const said = (tick) => `${clock(tick.tick, { date: true })}: ${tick.status === null ? 'no run' : tick.status === 'open' ? 'goes on' :
  words(tick.status)}${tick.took === null ? '' : `, took ${duration(tick.took)}`}`

/** The last ticks, the oldest first: a mark for each, which leads to its run. */
export const Strip = ({ ticks }) => (ticks.length ? html`<span class="ticks">${ticks.map((tick) => tick.status === null ?
  html`<span key=${tick.tick} class="none" role="img" aria-label=${said(tick)} title=${said(tick)} />` :
    html`<a key=${tick.tick} class=${tone(tick.status)} href=${href(`runs/${tick.run}`)} tabindex="-1" aria-label=${said(tick)}
      title=${said(tick)}><${Icon} name=${tick.status} size=${14} /></a>`)}</span>` : html`<span class="faint">none yet</span>`)

export function Schedules() {
  const { query } = useRoute()
  const { data, problem, at, loading, again } = useAsk('schedules', {}, { topic: 'schedules', every: 1000 })
  const [filling, setFilling] = useState(null)
  useEffect(() => listen('runs', again), []) // what a tick has started ends
  const text = query.get('q') ?? ''
  const rows = (data ?? []).filter(({ schedule }) => `${schedule.name} ${schedule.workflow}`.includes(text))
  const lost = (data ?? []).filter(({ schedule }) => !schedule.known)
  const chosen = (data ?? []).find(({ schedule }) => schedule.name === query.get('name'))
  const attempt = async (what, done) => {
    try {
      const answer = await what()
      tell(done)
      again()
      return answer
    } catch (error) {
      tell(error.detail || String(error))
      return null
    }
  }
  const change = (row, verb) => attempt(() => act('POST', `schedules/${row.name}/${verb}`), `${row.name} ${verb === 'pause' ? 'is paused' :
    'goes on'}`)
  const start = async (row) => {
    const begun = await attempt(() => act('POST', `schedules/${row.name}/trigger`), 'Begun')
    if (begun) go(href(`runs/${begun.id}`))
  }
  const acts = may('pause') || may('trigger')
  const columns = [
    { id: 'state', label: 'State', width: '124px', cell: ({ schedule }) => html`<${State} row=${schedule} />` },
    { id: 'name', label: 'Schedule', width: 'minmax(140px, 1.2fr)', className: 'cut first', cell: ({ schedule }) =>
      html`<a class="name" tabindex="-1" href=${href('schedules', { name: schedule.name })}>${schedule.name}</a> <span class="dim">
        ${schedule.workflow}</span>` },
    { id: 'when', label: 'When', width: 'minmax(170px, 1.6fr)', className: 'cut', cell: ({ schedule }) =>
      html`<span title=${schedule.cron ?? ''}>${schedule.words}</span>` },
    { id: 'next', label: 'Next', width: '150px', className: 'cut push', cell: ({ schedule, upcoming }) => schedule.next === null ?
      html`<span class="faint">–</span>` : html`<span title=${upcoming.map((tick) => clock(tick, { date: true })).join('\n')}>
        <${Until} at=${schedule.next} /></span>` },
    { id: 'last', label: 'Last ticks', width: 'minmax(180px, 1fr)', className: 'whole', cell: ({ last }) =>
      html`<${Strip} ticks=${last} />` },
    ...(acts ? [{ id: 'acts', label: '', hidden: 'Actions', width: '172px', num: true, className: 'wide', cell: ({ schedule }) =>
      html`<span class="acts">${may('trigger') && html`<button class="btn small" disabled=${!schedule.known}
        onClick=${(event) => { event.stopPropagation(); start(schedule) }}><${Icon} name="play" size=${12} />Run now</button>`}
        ${may('pause') && html`<button class="btn small" onClick=${(event) => { event.stopPropagation(); change(schedule, schedule.paused ?
          'resume' : 'pause') }}>${schedule.paused ? 'Resume' : 'Pause'}</button>`}</span>` }] : []),
  ]
  return html`<div class="page">
    <div class="pagehead"><h1>Schedules</h1><span class="sub">${data ? plural(data.length, 'schedule') : ''}</span>
      <div class="end tools"><div class="search"><${Icon} name="search" />
        <input class="input" type="search" aria-label="Schedule or workflow" placeholder="Schedule or workflow" value=${text}
          onInput=${(e) => refine({ q: e.target.value })} /><kbd>/</kbd></div></div></div>
    <${Trouble} problem=${problem} at=${at} again=${again} />
    ${lost.length > 0 && html`<${Note} tone="red" icon="failed"><b>Nobody has declared
      ${lost.map(({ schedule }) => schedule.workflow).filter((one, n, all) => all.indexOf(one) === n).join(', ')}.</b> <span class="dim">
        ${plural(lost.length, 'schedule starts', 'schedules start')} nothing until a worker has it.</span></${Note}>`}
    ${loading ? html`<${Bones} />` : data && (rows.length ? html`<${Grid} label="Schedules" columns=${columns} rows=${rows}
      idOf=${({ schedule }) => schedule.name} to=${({ schedule }) => href('schedules', { name: schedule.name, q: text })}
      onSpace=${({ schedule }) => refine({ name: schedule.name }, { replace: false })} />`
      : html`<div class="panel"><${Empty} art="calm" title=${text ? 'No schedule is called so' : 'Nothing begins by itself'}>
        ${text ? 'Take the filter away to see all.' : html`A workflow declares when it runs, or a client makes a schedule:
          <${Command} text=${'flow.schedule("0 3 * * *", tz="Europe/Berlin")'} />`}</${Empty}></div>`)}
    ${chosen && html`<${Schedule} told=${chosen} close=${() => refine({ name: null })} change=${change} start=${start} fill=${setFilling} />`}
    ${filling && html`<${Backfill} row=${filling} close=${() => setFilling(null)} again=${again} />`}
  </div>`
}

function Schedule({ told, close, change, start, fill }) {
  const { schedule: row, last, upcoming } = told
  const from = row.every !== null || row.times.length ? 'UTC' : row.tz
  return html`<${Drawer} title=${`Schedule ${row.name}`} close=${close}
    head=${html`<div class="line wrap"><h2>${row.name}</h2><${State} row=${row} /></div>`}>
    <p class="large">${row.words}</p>
    <div class="line wrap">${may('trigger') && html`<button class="btn" disabled=${!row.known} onClick=${() => start(row)}>
      <${Icon} name="play" size=${14} />Run now</button><button class="btn" disabled=${!row.known} onClick=${() => fill(row)}>Make up for…
        </button>`}
      ${may('pause') && html`<button class="btn" onClick=${() => change(row, row.paused ? 'resume' : 'pause')}>
        ${row.paused ? 'Resume' : 'Pause'}</button>`}
      <a class="btn" href=${href('runs', { 'meta.jetflow_schedule': row.name })}>All its runs<${Icon} name="right" size=${12} /></a></div>
    <dl class="facts"><dt>Workflow</dt><dd><a class="link" href=${href(`workflows/${row.workflow}`)}>${row.workflow}</a></dd>
      ${row.cron && html`<dt>Cron</dt><dd><code>${row.cron}</code> <span class="faint">${row.tz}</span></dd>`}
      <dt>Missed ticks</dt><dd>${CATCH_UP[row.catch_up] ?? row.catch_up}${row.window ? ` within ${duration(row.window)}` : ''}</dd>
      <dt>Overlap</dt><dd>${row.overlap === 'skip' ? 'a tick is left out while the last run goes on' : 'runs may go on beside each other'}</dd>
      ${row.jitter > 0 && html`<dt>Jitter</dt><dd>up to ${duration(row.jitter)} late</dd>`}
      ${row.start && html`<dt>From</dt><dd><${When} at=${row.start} full /></dd>`}${row.end && html`<dt>Until</dt><dd>
        <${When} at=${row.end} full /></dd>`}
      <dt>Declared</dt><dd>${row.declared ? 'with the workflow' : 'by a client'}</dd></dl>
    <section class="stack tight"><h3>Next</h3>${upcoming.length ? html`<ol class="times">${upcoming.map((tick) => html`<li key=${tick}>
      <span>${clockIn(tick, from)}</span><span class="faint"><${Until} at=${tick} /></span></li>`)}</ol>` :
        html`<p class="faint">${row.paused ? 'It is paused.' : 'There is none.'}</p>`}</section>
    <section class="stack tight"><h3>Last</h3>${last.length ? html`<ol class="times">${[...last].reverse().map((tick) => html`<li
      key=${tick.tick}><span>${clockIn(tick.tick, from)}</span>${tick.status === null ?
        html`<span class="faint" title="It was missed, left out, or its run is not stored any more">no run</span>` :
        html`<a href=${href(`runs/${tick.run}`)}><${Status} status=${tick.status} /></a>`}
      <span class="faint">${tick.took === null ? '' : duration(tick.took)}</span></li>`)}</ol>` :
        html`<p class="faint">None has come.</p>`}</section>
    ${row.input !== null && html`<section class="stack tight"><h3>Input</h3><div class="json"><${Json} value=${row.input} /></div></section>`}
  </${Drawer}>`
}

const Backfill = ({ row, close, again }) => html`<${Confirm} title=${`Make up for ticks of ${row.name}?`} verb="Begin their runs"
  close=${close} run=${async (form) => {
    const made = await act('POST', `schedules/${row.name}/backfill`, { since: now() - Number(form.elements.span.value), until: now() })
    tell(`${count(made.count)} ticks have their runs`)
    again()
  }}><p class="dim">Each tick of that time that has no run gets one now. Those that have one keep it.</p>
  <div class="field"><label for="span">Ticks of</label><select id="span" name="span" class="input">
    ${SPANS.map(([value, label]) => html`<option key=${value} value=${value}>${label}</option>`)}</select></div></${Confirm}>`
