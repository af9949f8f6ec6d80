// A row for each step that workers pull: what waits, since when, what is held, and holding it back.
import { html, useState } from '../parts/html.js'
import { act, may, useAsk } from '../parts/api.js'
import { href, refine, useRoute } from '../parts/router.js'
import { count, now, plural } from '../parts/format.js'
import { Status } from '../parts/status.js'
import { Icon } from '../parts/icons.js'
import { Grid } from '../parts/grid.js'
import { Took, Until } from '../parts/time.js'
import { Bones, Empty, Note, tell, Trouble } from '../parts/said.js'
import { Confirm } from '../parts/dialog.js'

const idOf = (row) => `${row.workflow}/${row.step}`
const unserved = (row) => row.waiting > 0 && !row.pulls && !row.held && !row.paused_until
const UNTIL = [['900', 'for 15 minutes'], ['3600', 'for an hour'], ['86400', 'for a day'], ['', 'until somebody resumes it']]

function State({ row }) {
  if (row.paused_until) return html`<${Status} status="waiting">paused</${Status}>`
  if (unserved(row)) return html`<${Status} status="failed">nobody pulls</${Status}>`
  if (row.waiting) return html`<${Status} status="running">served</${Status}>`
  return html`<${Status} status="succeeded">clear</${Status}>`
}

export function Queues() {
  const { query } = useRoute()
  const { data, problem, at, loading, again } = useAsk('queues', {}, { topic: 'queues', take: (_, rows) => rows ?? undefined })
  const [pausing, setPausing] = useState(null)
  const text = query.get('q') ?? ''
  const rows = (data ?? []).filter((row) => idOf(row).includes(text)).sort((a, b) => Number(unserved(b)) - Number(unserved(a)) ||
    Number(b.waiting > 0) - Number(a.waiting > 0) || (a.oldest ?? Infinity) - (b.oldest ?? Infinity) || idOf(a).localeCompare(idOf(b)))
  const bad = (data ?? []).filter(unserved)
  const waiting = (data ?? []).reduce((sum, row) => sum + row.waiting, 0)
  const resume = async (row) => {
    try {
      await act('POST', `queues/${row.workflow}/${row.step}/resume`)
      tell(`${idOf(row)} goes on`)
      again()
    } catch (error) {
      tell(error.detail)
    }
  }
  const columns = [
    { id: 'state', label: 'State', width: '124px', cell: (row) => html`<${State} row=${row} />` },
    { id: 'step', label: 'Workflow and step', width: 'minmax(160px, 1.6fr)', className: 'cut first', cell: (row) =>
      html`<a class="name" href=${href(`workflows/${row.workflow}`)} tabindex="-1">${row.workflow}</a> <span class="dim">${row.step}
        </span>` },
    { id: 'waiting', label: 'Waiting', width: 'minmax(70px, 0.6fr)', num: true, small: 'waiting', cell: (row) =>
      html`<span class=${row.waiting ? 'name' : 'faint'}>${count(row.waiting)}</span>` },
    { id: 'oldest', label: 'Oldest', width: 'minmax(80px, 0.6fr)', num: true, small: 'oldest', cell: (row) => row.oldest ?
      html`<${Took} started=${row.oldest} />` : html`<span class="faint">–</span>` },
    { id: 'held', label: 'Held', width: 'minmax(60px, 0.5fr)', num: true, small: 'held', cell: (row) =>
      html`<span class=${row.held ? '' : 'faint'}>${count(row.held)}
        ${row.limit ? html`<span class="faint"> / ${count(row.limit)}</span>` : null}</span>` },
    { id: 'redelivered', label: 'Redelivered', width: '96px', num: true, className: 'wide', cell: (row) =>
      html`<span class=${row.redelivered ? '' : 'faint'}>${count(row.redelivered)}</span>` },
    { id: 'pulls', label: 'Pulls', width: '64px', num: true, className: 'wide', cell: (row) =>
      html`<span class="faint">${count(row.pulls)}</span>` },
    { id: 'until', label: 'Paused', width: 'minmax(90px, 0.8fr)', className: 'dim', cell: (row) => row.paused_until ?
      (row.paused_until - now() > 3.15e7 ? 'until resumed' : html`<${Until} at=${row.paused_until} />`) : null },
    ...(may('pause') ? [{ id: 'do', label: '', hidden: 'Action', width: '92px', num: true, className: 'push', cell: (row) =>
      row.paused_until ? html`<button class="btn small" onClick=${() => resume(row)}><${Icon} name="play" size=${12} />Resume</button>` :
        html`<button class="btn small quiet" onClick=${() => setPausing(row)}><${Icon} name="pause" size=${12} />Pause</button>` }] : []),
  ]
  return html`<div class="page">
    <div class="pagehead"><h1>Queues</h1><span class="sub">
      ${data ? `${count(waiting)} waiting in ${plural(data.length, 'step')}` : ''}</span>
      <div class="end search"><${Icon} name="search" />
        <input class="input" type="search" aria-label="Workflow or step" placeholder="Workflow or step" value=${text}
          onInput=${(e) => refine({ q: e.target.value })} /><kbd>/</kbd></div></div>
    <${Trouble} problem=${problem} at=${at} again=${again} />
    ${bad.length > 0 && html`<${Note} tone="red" icon="failed"><b>Tasks wait, and no worker pulls: ${bad.map(idOf).join(', ')}.</b> <span
      class="dim">Start a worker that has ${bad.length === 1 ? 'this workflow' : 'these workflows'}.</span></${Note}>`}
    ${loading ? html`<${Bones} />` : data && (rows.length ? html`<${Grid} label="Queues" columns=${columns} rows=${rows} idOf=${idOf} />`
      : html`<div class="panel"><${Empty} title=${text ? 'No queue is called so' : 'No queues yet'}>
        ${text ? 'Take the filter away to see all.' : 'A queue is there once a worker has pulled a step for the first time.'}</${Empty}>
          </div>`)}
    ${pausing && html`<${Confirm} title=${`Pause ${idOf(pausing)}?`} verb="Pause it" close=${() => setPausing(null)}
      run=${async (form) => { const span = form.elements.span.value; await act('POST', `queues/${pausing.workflow}/${pausing.step}/pause`,
        { until: span ? now() + Number(span) : null }); tell(`${idOf(pausing)} is paused`); again() }}>
      <p class="dim">The broker gives out no more of its tasks. What runs goes on, and nothing is lost: they wait.</p><div class="field">
        <label for="span">How long</label><select id="span" name="span" class="input">
          ${UNTIL.map(([value, label]) => html`<option key=${value} value=${value}>${label}</option>`)}</select></div></${Confirm}>`}
  </div>`
}
