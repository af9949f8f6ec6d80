// The children of a run: totals as chips, a window on up to a million rows, and what is chosen in the address.
import { html, useEffect, useMemo, useRef, useState } from '../parts/html.js'
import { address, ask, may } from '../parts/api.js'
import { go, href, refine, useRoute } from '../parts/router.js'
import { count, duration, nameOf, plural } from '../parts/format.js'
import { Status, ended } from '../parts/status.js'
import { Icon } from '../parts/icons.js'
import { usePages, VirtualGrid } from '../parts/vgrid.js'
import { Chips, Segments } from '../parts/tabs.js'
import { ErrorLine } from '../parts/trace.js'
import { Took, When } from '../parts/time.js'
import { Announce, Empty, Spread, Trouble } from '../parts/said.js'
import { Peek } from './peek.js'
import { Bulk } from './bulk.js'

const sum = (totals, statuses) => statuses.reduce((all, one) => (totals?.[one] === undefined ? undefined : all + totals[one]), 0)
const ERROR_WIDTH = 'minmax(160px, 2.4fr)'

/** From where a child was opened: its row, and what the list was asked. [ and ] go on from there. */
export const trail = {
  keep: (parent, asked, index, total) => sessionStorage.setItem('jetflow.trail', JSON.stringify({ parent, asked, index, total })),
  of: (parent) => {
    const kept = JSON.parse(sessionStorage.getItem('jetflow.trail') ?? 'null')
    return kept?.parent === parent ? kept : null
  },
}

function columnsOf({ steps, workflows, sort, narrow, longest, failedOnly }) {
  const by = (id, label, extra = {}) => ({ id, label, sorted: sort === id ? 'ascending' : sort === `-${id}` ? 'descending' : undefined,
    head: html`<button title=${`Sort by ${label}`}
      onClick=${() => refine({ sort: sort === `-${id}` ? id : sort === id ? null : `-${id}`, at: null })}>${label}
        ${sort === id || sort === `-${id}` ? html`<${Icon} name=${sort === id ? 'up' : 'down'} size=${12} />` : null}</button>`, ...extra })
  const name = by('key', 'Key', { width: 'minmax(130px, 1.5fr)', className: 'cut first', cell: (row) =>
    html`<a class=${row.key ? 'name' : 'name mono'} tabindex="-1" href=${href(`runs/${row.id}`)} title=${row.id}>${nameOf(row)}</a>` })
  const status = by('status', 'Status', { width: '104px', cell: (row) => html`<${Status} status=${row.status} />` })
  const took = by('took', 'Took', { width: narrow ? '70px' : '128px', num: true, className: 'push', cell: (row) => row.ended && row.started
    ? html`<span class="meter"><i style=${{ width: `${Math.max(2, Math.min(100, (100 * (row.ended - row.started)) / longest))}%` }} />
      <span>${duration(row.ended - row.started)}</span></span>`
    : html`<${Took} started=${row.started} ended=${row.ended} open=${!ended(row.status)} />` })
  const error = { id: 'error', label: 'Error', width: ERROR_WIDTH, className: 'cut whole', cell: (row) => row.error ?
    html`<${ErrorLine} error=${row.error} status=${row.status} />` : row.unattended ?
      html`<span class="err soft"><b>no worker takes it</b></span>` : null }
  if (narrow) return [status, name, took, error]
  return [
    by('n', 'n', { width: '56px', num: true, cell: (row, index) => html`<span class="faint">${count(row.n ?? index)}</span>` }),
    status, name,
    ...(workflows.length > 1 ? [by('workflow', 'Workflow', { width: 'minmax(90px, 0.8fr)', className: 'cut', cell: (row) =>
      row.workflow })] : []),
    ...(steps.length > 1 ? [{ id: 'step', label: 'Step', width: 'minmax(70px, 0.6fr)', className: 'cut dim', cell: (row) =>
      row.step }] : []),
    by('queued', 'Queued', { width: '100px', num: true, className: 'dim', cell: (row) => html`<${When} at=${row.queued} />` }),
    took,
    by('attempts', 'Tries', { width: '62px', num: true, cell: (row) =>
      html`<span class=${row.attempts > 1 ? '' : 'faint'}>${row.attempts || '–'}</span>` }),
    ...(failedOnly ? [] : [by('worker', 'Worker', { width: 'minmax(80px, 0.7fr)', className: 'cut dim', cell: (row) => row.worker ??
      html`<span class="faint">–</span>` })]),
    error,
  ]
}

export function Children({ id, totals, workflow: parentWorkflow, live }) {
  const { query } = useRoute()
  const [status, step, workflow, q, sort] = ['status', 'step', 'workflow', 'q', 'sort'].map((name) => query.get(name) ?? '')
  const asked = useMemo(() => ({ status, step, workflow, q, sort }), [status, step, workflow, q, sort])
  const key = JSON.stringify([id, asked])
  const [cursor, setCursor] = useState(query.has('row') ? Number(query.get('row')) : -1)
  const [peek, setPeek] = useState(null)
  const [picked, pick] = useState(new Map())
  const [bulk, setBulk] = useState(null)
  const [text, setText] = useState(q)
  const [narrow, setNarrow] = useState(matchMedia('(max-width: 959px)').matches)
  const steps = totals?.steps.filter((one) => one.totals.spawned) ?? []
  const workflows = totals?.workflows.filter((one) => one.spawned) ?? []
  const own = steps.find((one) => one.step === step)?.totals ?? (workflow ? workflows.find((one) => one.workflow === workflow) :
    totals?.totals)
  const known = q || (step && workflow) ? null : status ? sum(own, status.split(',')) : own?.spawned
  const pages = usePages((offset, limit, signal) => ask(address(`runs/${id}/children`, { ...asked, offset, limit }), signal), key, known)
  const stamp = JSON.stringify(totals?.totals ?? null)
  const refreshed = useRef(0)
  useEffect(() => {
    if (!live && refreshed.current === 0) return undefined
    const timer = setTimeout(() => { refreshed.current = Date.now(); pages.refresh() }, Math.max(0, refreshed.current + 1000 - Date.now()))
    return () => clearTimeout(timer)
  }, [stamp])
  useEffect(() => { if (live) refreshed.current = refreshed.current || 1 }, [live])
  useEffect(() => {
    const query_ = matchMedia('(max-width: 959px)')
    const changed = () => setNarrow(query_.matches)
    query_.addEventListener('change', changed)
    return () => query_.removeEventListener('change', changed)
  }, [])
  useEffect(() => {
    if (text === q) return undefined
    const timer = setTimeout(() => { setCursor(-1); refine({ q: text, at: null, row: null }) }, 350)
    return () => clearTimeout(timer)
  }, [text])
  const change = (changes) => { setCursor(-1); refine({ ...changes, at: null, row: null }) }
  const open = (row, index, event) => {
    trail.keep(id, asked, index, pages.total)
    refine({ at: query.get('at'), row: index })
    const to = href(`runs/${row.id}`)
    if (event?.metaKey || event?.ctrlKey) window.open(to)
    else go(to)
  }
  const toggle = (rows, far) => {
    const next = new Map(picked)
    for (const row of rows) if (far || !next.delete(row.id)) next.set(row.id, row)
    pick(next)
  }
  const columns = useMemo(() => {
    let longest = 0.001
    for (let n = 0; n < 60; n += 1) {
      const row = pages.row(Number(query.get('at') ?? 0) + n)
      if (row?.ended && row.started) longest = Math.max(longest, row.ended - row.started)
    }
    return columnsOf({ steps, workflows, sort, narrow, longest, failedOnly: status === 'failed' })
  }, [steps.length, workflows.length, sort, narrow, status, pages.known])
  const counts = own ?? {}
  const chips = [{ value: '', label: 'All', count: counts.spawned }, ...['failed', 'timed_out', 'open', 'succeeded',
    'cancelled'].filter((one) => one === 'failed' || counts[one] || status.split(',').includes(one)).map((one) => ({ value: one, label:
      html`<${Status} status=${one} />`, count: counts[one] }))]
  const none = pages.problem ? html`<${Trouble} problem=${pages.problem} again=${pages.refresh} />`
    : !pages.known ? html`<span class="bone" style=${{ width: '220px' }} />`
    : q || status || workflow || step ? html`<${Empty} title="No child is like that"
      actions=${html`<button class="btn" onClick=${() => { setText(''); change({ q: null, status: null, step: null, workflow:
        null }) }}>Show all children</button>`}>${status === 'failed' ? 'None has failed.' : 'Nothing that was spawned fits.'}</${Empty}>`
    : html`<${Empty} title="No children">
      ${parentWorkflow} has spawned none. A step spawns with <code>ctx.spawn_workflows</code>.</${Empty}>`
  const searching = (q || sort) && pages.total === 0 && !pages.known
  return html`<div class="stack tight">
    <div class="line wrap"><${Chips} label="Status" chosen=${status ? status.split(',') : []}
      choose=${(several) => change({ status: several.join(',') })}
      options=${chips} />
      ${steps.length > 1 && html`<${Segments} label="Step" now=${step} choose=${(value) => change({ step: value })}
        options=${[['', 'All steps'], ...steps.map((one) => [one.step, one.step])]} />`}
      ${workflows.length > 1 && html`<select class="input" aria-label="Workflow" value=${workflow}
        onChange=${(e) => change({ workflow: e.target.value })}><option value="">All workflows</option>
          ${workflows.map((one) => html`<option key=${one.workflow} value=${one.workflow}>
            ${one.workflow} (${count(one.spawned)})</option>`)}</select>`}
      <span class="grow" />
      <div class="search"><${Icon} name="search" />
        <input class="input" type="search" aria-label="Search by key, id or error" placeholder="Key, id or error text" value=${text}
          onInput=${(e) => setText(e.target.value)} /><kbd>/</kbd></div>
      ${may('bulk') && may('cancel') && counts.open > 0 &&
        html`<button class="btn" onClick=${() => setBulk({ query: { parent: id, status: status || 'open', ...(step &&
          { step }), ...(workflow && { workflow }), ...(q && { q }) } })}>Cancel these…</button>`}
      ${may('bulk') && may('rerun') && counts.failed > 0 && status === 'failed' &&
        html`<button class="btn" onClick=${() => setBulk({ action: 'rerun', query: { parent: id, status, ...(step &&
          { step }), ...(workflow && { workflow }), ...(q && { q }) } })}>Rerun these…</button>`}</div>
    ${picked.size > 0 && html`<div class="banner t-blue"><b>${plural(picked.size, 'child', 'children')} chosen</b><div class="end line">
      <button class="btn small" onClick=${() => pick(new Map())}>Choose none</button>
      ${may('rerun') && may('bulk') &&
        html`<button class="btn small" onClick=${() => setBulk({ action: 'rerun', ids: [...picked.keys()] })}>Rerun…</button>`}
      ${may('cancel') && html`<button class="btn small danger" onClick=${() => setBulk({ ids: [...picked.keys()] })}>Cancel…</button>`}
        </div></div>`}
    ${pages.problem && pages.total > 0 && html`<${Trouble} problem=${pages.problem} at=${Date.now() - 1000} again=${pages.refresh} />`}
    ${searching && html`<p class="faint">Sorting and searching read all ${count(totals?.totals.spawned)} rows first…</p>`}
    ${(pages.told?.took || pages.told?.loaded < 1) &&
      html`<p class="faint"><${Spread} took=${pages.told.took} loaded=${pages.told.loaded} /></p>`}
    <${VirtualGrid} key=${key} label="Children" columns=${columns} pages=${pages} at=${Number(query.get('at') ?? 0)}
      height=${narrow ? 52 : 28} above=${narrow ? 190 : 330}
      onAt=${(row) => refine({ at: row || null })} cursor=${cursor} onCursor=${setCursor} idOf=${(row) => row.id} onOpen=${open}
        onPeek=${(row, index) => setPeek({ row, index })}
      onPick=${may('cancel') || may('rerun') ? toggle : undefined} picked=${may('cancel') || may('rerun') ? picked : undefined} empty=${none} />
    <${Announce}
      text=${totals ?
        `${count(totals.totals.spawned - totals.totals.open)} of ${count(totals.totals.spawned)} children have ended, ${count(totals.totals.failed)} failed` : ''} />
    ${peek && html`<${Peek} id=${peek.row.id} row=${peek.row} open=${() => open(peek.row, peek.index)} close=${() => setPeek(null)} />`}
    ${bulk && html`<${Bulk} action="cancel" ...${bulk} close=${() => { setBulk(null); pick(new Map()) }} />`}
  </div>`
}

