// Root runs, the newest first. What is asked for stands in the address; new runs slide in only where nobody is in the middle.
import { html, useEffect, useMemo, useRef, useState } from '../parts/html.js'
import { address, ask, may, useAsk } from '../parts/api.js'
import { href, refine, useRoute } from '../parts/router.js'
import { clock, count, nameOf, now, preview } from '../parts/format.js'
import { Bar, ended, Status } from '../parts/status.js'
import { Icon } from '../parts/icons.js'
import { Grid } from '../parts/grid.js'
import { Chips } from '../parts/tabs.js'
import { ErrorLine } from '../parts/trace.js'
import { Took, Until, When } from '../parts/time.js'
import { Bones, Empty, Searched, Spread, tell, Trouble } from '../parts/said.js'
import { Bulk } from './bulk.js'
import { SavedViews } from './saved-views.js'
import { Start } from './start.js'

const STATUSES = ['running', 'queued', 'retrying', 'succeeded', 'failed', 'timed_out', 'cancelled']
const SPANS = [['', 'Any time'], ['15m', 'Last 15 minutes'], ['1h', 'Last hour'], ['24h', 'Last 24 hours'], ['7d', 'Last 7 days']]
const UNITS = { s: 1, m: 60, h: 3600, d: 86_400 }

/** Seconds since the epoch of "1h", or of a number. */
export function sinceOf(text) {
  const match = /^(\d+)([smhd])$/.exec(text ?? '')
  if (match) return Math.floor((now() - Number(match[1]) * UNITS[match[2]]) / 10) * 10
  return text && Number.isFinite(Number(text)) ? Number(text) : null
}

/** Totals of the children of those rows that may have any, asked for at once, and again for those that are open. */
export function useTotals(rows, beat) {
  const [known, set] = useState({})
  const wanted = rows.filter((row) => !(row.id in known) || !ended(row.status)).map((row) => row.id).slice(0, 100)
  const key = wanted.join()
  useEffect(() => {
    if (!key) return undefined
    const control = new AbortController()
    ask(address('totals', { run: wanted }), control.signal).then((found) => set((old) => ({ ...old, ...found })), () => {})
    return () => control.abort()
  }, [key, beat])
  return known
}

export const runColumns = (totals, { workflow = true } = {}) => [
  { id: 'status', sort: 'status', label: 'Status', width: '112px', cell: (row) => html`<${Status}
    status=${row.again ? 'retrying' : row.status} />` },
  { id: 'run', sort: workflow ? 'workflow' : 'key', label: workflow ? 'Workflow' : 'Run', width: 'minmax(150px, 1.3fr)', className:
    'first cut', cell: (row) =>
    html`<a class="name" href=${href(`runs/${row.id}`)} tabindex="-1">${workflow ? row.workflow : nameOf(row)}</a>` },
  ...(workflow ? [{ id: 'key', sort: 'key', label: 'Key or id', width: 'minmax(110px, 1fr)', className: 'cut small-dim', cell: (row) =>
    html`<span class=${row.key ? '' : 'mono faint'} title=${row.id}>${nameOf(row)}</span>` }] : []),
  { id: 'children', label: 'Children', width: 'minmax(120px, 0.9fr)', className: 'whole', cell: (row) => {
    const told = totals[row.id]?.totals
    return told?.spawned ? html`<div class="meter"><${Bar} totals=${told} size="thin" live=${told.open > 0} /><span class="dim num">
      ${count(told.spawned)}</span></div>` : null
  } },
  { id: 'error', label: 'Error or metadata', width: 'minmax(140px, 1.7fr)', className: 'cut whole', cell: (row) => row.again ?
    html`<span class="err soft cut">again <${Until} at=${row.again} />${row.error && html`: <b>${row.error.type}</b> ${row.error.message}`}
      </span>` : row.error ? html`<${ErrorLine} error=${row.error} status=${row.status} />` : row.metadata ?
      html`<span class="tag cut">${preview(row.metadata)}</span>` : null },
  { id: 'took', sort: 'took', label: 'Took', width: '84px', num: true, className: 'push', cell: (row) =>
    html`<${Took} started=${row.triggered} ended=${row.ended} open=${!ended(row.status)} />` },
  { id: 'triggered', sort: 'triggered', label: 'Triggered', width: '104px', num: true, className: 'small-dim', cell: (row) =>
    html`<${When} at=${row.triggered} />` },
]

export function Runs() {
  const { query } = useRoute()
  const status = query.get('status') ?? ''
  const workflow = query.get('workflow') ?? ''
  const [since, until] = useMemo(() => [sinceOf(query.get('since')), sinceOf(query.get('until'))], [query.get('since'), query.get('until')])
  const meta = [...query].filter(([name]) => name.startsWith('meta.'))
  const asked = { status, workflow, since, until, key: query.get('key'), q: query.get('q'), sort: query.get('sort'),
    ...Object.fromEntries(meta) }
  const { data, problem, at, loading, again } = useAsk('runs', { ...asked, limit: 50 }, { topic: 'runs', every: 1000 })
  const workflows = useAsk('workflows', {}).data
  const [more, setMore] = useState({ key: '', rows: [], next: null })
  const [busy, setBusy] = useState(false)
  const [picked, pick] = useState(new Set())
  const [asking, ask_] = useState(null)
  const key = JSON.stringify(asked)
  const tail = more.key === key ? more : { rows: [], next: undefined }
  const first = data?.items ?? []
  const rows = [...first, ...tail.rows.filter((row) => !first.some((other) => other.id === row.id))]
  const next = tail.next === undefined ? data?.next : tail.next
  const totals = useTotals(rows, at)
  const seen = useRef(null)
  const fresh = new Set(seen.current ? first.filter((row) => !seen.current.has(row.id)).map((row) => row.id) : [])
  useEffect(() => { seen.current = data ? new Set(rows.map((row) => row.id)) : null }, [data, key])
  const load = async () => {
    setBusy(true)
    try {
      const page = await ask(address('runs', { ...asked, limit: 100, after: next }))
      setMore({ key, rows: [...tail.rows, ...page.items], next: page.next })
    } catch (error) {
      tell(`${error.title}: ${error.detail}`)
    }
    setBusy(false)
  }
  const find = (text) => {
    const match = /^meta\.([^=\s]+)=(.*)$/.exec(text)
    if (match) refine({ [`meta.${match[1]}`]: match[2] })
    else refine({ q: text || null })
  }
  const filtered = Object.entries(asked).some(([name, value]) => name !== 'sort' && Boolean(value))
  useEffect(() => {
    if (!(data?.loaded < 1)) return undefined // a search or an order: the rows are being read, and asked for again
    const timer = setTimeout(again, 400)
    return () => clearTimeout(timer)
  }, [data])
  useEffect(() => { // nobody tells when an attempt has begun
    if (status !== 'retrying' || !data) return undefined
    const due = Math.min(10, ...data.items.map((row) => row.again - now() + 0.5))
    const timer = setTimeout(again, Math.max(1, due) * 1000)
    return () => clearTimeout(timer)
  }, [data, status])
  const columns = runColumns(totals)
  const chosen = rows.filter((row) => picked.has(row.id) && !ended(row.status))
  const again_ = rows.filter((row) => picked.has(row.id) && ended(row.status) && row.status !== 'succeeded')
  const many = chosen.length + again_.length
  return html`<div class="page">
    <div class="pagehead"><h1>Runs</h1><span class="sub">
      ${data?.total ? `${count(data.total)} ${filtered ? 'found' : 'in all'}` : ''}</span>
      <div class="end tools"><div class="search"><${Icon} name="search" />
        <input class="input" type="search" aria-label="Key, id, text, or meta.name=value" placeholder="Key, id, text, meta.name=value"
          defaultValue=${query.get('q') ?? ''} onKeyDown=${(e) => e.key === 'Enter' && find(e.target.value.trim())}
            onSearch=${(e) => find(e.target.value.trim())} /><kbd>/</kbd></div>
      <select class="input" aria-label="Workflow" value=${workflow} onChange=${(e) => refine({ workflow: e.target.value })}>
        <option value="">All workflows</option>${[...new Set([...(workflows ?? []).map((one) => one.name),
          workflow].filter(Boolean))].map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select>
      <select class="input" aria-label="Time" value=${query.get('since') ?? ''}
        onChange=${(e) => refine({ since: e.target.value, until: null })}>
          ${SPANS.map(([value, label]) => html`<option key=${value} value=${value}>${label}</option>`)}
        ${since && !SPANS.some(([value]) => value === query.get('since')) &&
          html`<option value=${query.get('since')}>${clock(since)} – ${until ? clock(until) : 'now'}</option>`}</select>
        ${may('trigger') && html`<a class="btn" href=${href('workflows')}><${Icon} name="play" size=${14} />Trigger…</a>`}</div></div>
    <div class="line filters"><${Chips} label="Status" chosen=${status ? status.split(',') : []}
      choose=${(several) => refine(several.includes('retrying') ? { status: 'retrying', sort: null, q: null } : { status:
        several.join(',') })}
      options=${[{ value: '', label: 'All' }, { value: 'open', label: html`<${Status} status="open">in flight</${Status}>` },
        ...STATUSES.map((value) => ({ value, label: html`<${Status} status=${value} />` }))]} />
      <span class="grow" /><${SavedViews} /></div>
    ${meta.length > 0 && html`<div class="chips">${meta.map(([name, value]) =>
      html`<button key=${name} class="chip" aria-label=${`Take the filter ${name} away`} onClick=${() => refine({ [name]: null })}>
        <span class="mono">${name.slice(5)} = ${value}</span><${Icon} name="close" size=${12} /></button>`)}</div>`}
    <${Trouble} problem=${problem} at=${at} again=${again} />
    ${many > 0 && html`<div class="banner t-blue"><b>${count(many)} chosen</b><div class="end line">
      <button class="btn small" onClick=${() => pick(new Set())}>Choose none</button>
        ${may('rerun') && may('bulk') && again_.length > 0 &&
          html`<button class="btn small" onClick=${() => ask_({ action: 'rerun', ids: again_.map((row) => row.id) })}>Rerun…</button>`}
        ${may('cancel') && may('bulk') && chosen.length > 0 &&
          html`<button class="btn small danger" onClick=${() => ask_({ action: 'cancel', ids: chosen.map((row) => row.id) })}>Cancel…</button>`}
          </div></div>`}
    ${loading ? html`<${Bones} />` : rows.length ?
      html`<${Grid} label="Runs" columns=${columns} rows=${rows} sort=${query.get('sort') ?? undefined}
        onSort=${status === 'retrying' ? undefined : (id) => refine({ sort: id })} total=${data?.total} to=${(row) => href(`runs/${row.id}`)} fresh=${fresh}
        picked=${may('cancel') || may('rerun') ? picked : undefined}
          onPick=${may('cancel') || may('rerun') ? pick : undefined}
      foot=${html`<span>${count(rows.length)} ${data?.total ? `of ${count(data.total)}` : 'shown'}</span>
        <${Spread} took=${data?.took} loaded=${data?.loaded} /><${Searched} searched=${data?.searched} />
          ${next && html`<span class="end"><button class="btn small" disabled=${busy} onClick=${load}>${busy ? 'Reading…' : 'Show more'}
            </button></span>`}`} />`
      : data && (filtered ? html`<div class="panel"><${Empty} title=${data.searched.complete ? 'No run is like that' : 'None so far'}
        actions=${html`<button class="btn" onClick=${() => refine({ status: null, workflow: null, since: null, until: null, q: null,
          key: null, ...Object.fromEntries(meta.map(([name]) => [name, null])) })}>Show all runs</button>
            ${next && html`<button class="btn" onClick=${load}>Look further back</button>`}`}>
          ${data.searched.complete ? 'All stored runs were looked through.' :
            html`The newest ${count(data.searched.runs)} runs were looked through: there may be more behind them.`}</${Empty}></div>` :
              html`<${Start} />`)}
    ${asking && html`<${Bulk} ...${asking}
      close=${() => { ask_(null); pick(new Set()); again() }} />`}
  </div>`
}
