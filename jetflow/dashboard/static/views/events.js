// Events that were published, the newest first, and the runs that each has started.
import { html, useEffect, useState } from '../parts/html.js'
import { address, ask, useAsk } from '../parts/api.js'
import { href, refine, useRoute } from '../parts/router.js'
import { bytes, count, nameOf, plural, preview } from '../parts/format.js'
import { Status } from '../parts/status.js'
import { Icon } from '../parts/icons.js'
import { Grid } from '../parts/grid.js'
import { Json } from '../parts/json.js'
import { listen } from '../parts/live.js'
import { When } from '../parts/time.js'
import { Bones, Command, Copy, Empty, Note, tell, Trouble } from '../parts/said.js'
import { Drawer } from '../parts/dialog.js'

const EXAMPLE = `jetflow publish order.paid '{"amount": 12}'`
const titleOf = (row) => (!row.read ? 'cannot be read' : row.run ? `signal ${row.topic}` : row.topic)

const Topic = ({ row }) => (row.run ? html`<span class="dim">signal</span> <b>${row.topic}</b>` : html`<b>${row.topic}</b>`)

/** What an event has started: a mark and a link for each run. */
const Started = ({ row }) => (row.started.length ? html`<span class="line wrap">${row.started.map((one) => html`<a key=${one.run}
  class="link" tabindex="-1" href=${href(`runs/${one.run}`)}><${Status} status=${one.status}>${one.workflow}</${Status}></a>`)}</span>` :
    row.run ? html`<a class="link mono" tabindex="-1" href=${href(`runs/${row.run}`)}>run ${nameOf({ id: row.run })}</a>` :
      html`<span class="faint">started nothing</span>`)

export function Events() {
  const { query } = useRoute()
  const [topic, key] = ['topic', 'key'].map((name) => query.get(name) ?? '')
  const asked = { topic, key }
  const { data, problem, at, loading, again } = useAsk('events', asked, { topic: 'events', every: 1000 })
  const [tail, setTail] = useState({ of: '', rows: [], next: null })
  const [busy, setBusy] = useState(false)
  useEffect(() => listen('runs', again), [topic, key]) // what they have started goes on
  const of = JSON.stringify(asked)
  const more = tail.of === of ? tail : { rows: [], next: undefined }
  const first = data?.items ?? []
  const rows = [...first, ...more.rows.filter((row) => !first.some((other) => other.sequence === row.sequence))]
  const next = more.next === undefined ? data?.next : more.next
  const chosen = rows.find((row) => String(row.sequence) === query.get('event'))
  const load = async () => {
    setBusy(true)
    try {
      const page = await ask(address('events', { ...asked, before: rows.at(-1).sequence }))
      setTail({ of, rows: [...more.rows, ...page.items], next: page.next })
    } catch (error) {
      tell(`${error.title}: ${error.detail}`)
    }
    setBusy(false)
  }
  const columns = [
    { id: 'topic', label: 'Topic', width: 'minmax(140px, 1.2fr)', className: 'cut first', cell: (row) => html`<a class="name" tabindex="-1"
      href=${href('events', { ...asked, event: row.sequence })}>${row.read ? html`<${Topic} row=${row} />` :
        html`<${Status} status="failed">cannot be read</${Status}>`}</a>` },
    { id: 'key', label: 'Key', width: 'minmax(90px, 0.8fr)', className: 'cut dim', cell: (row) => row.key },
    { id: 'payload', label: 'Payload', width: 'minmax(150px, 1.8fr)', className: 'cut whole', cell: (row) => row.withheld ?
      html`<span class="faint">${bytes(row.size)}</span>` : html`<code class="cut">${preview(row.payload ?? '')}</code>` },
    { id: 'started', label: 'Started', width: 'minmax(140px, 1.2fr)', className: 'cut whole', cell: (row) =>
      html`<${Started} row=${row} />` },
    { id: 'at', label: 'Published', width: '104px', num: true, className: 'small-dim push', cell: (row) => html`<${When} at=${row.at} />` },
  ]
  return html`<div class="page">
    <div class="pagehead"><h1>Events</h1><span class="sub">${data?.total ? `${count(data.total)} ${topic || key ? 'found' : 'stored'}` : ''}</span>
      <div class="end tools"><div class="search"><${Icon} name="search" />
        <input class="input" type="search" aria-label="Topic, or a pattern" placeholder="order.paid, order.* or run.>" defaultValue=${topic}
          key=${topic} onKeyDown=${(e) => e.key === 'Enter' && refine({ topic: e.target.value.trim() })}
          onSearch=${(e) => refine({ topic: e.target.value.trim() })} /><kbd>/</kbd></div>
        <input class="input short" aria-label="Key" placeholder="Key" defaultValue=${key} key=${`key ${key}`}
          onChange=${(e) => refine({ key: e.target.value.trim() })} /></div></div>
    <${Trouble} problem=${problem} at=${at} again=${again} />
    ${data && !data.started_by.length && rows.length > 0 && html`<${Note}>No workflow here is started by events. One is by
      <code>flow.on("${rows.find((row) => row.read && !row.run)?.topic ?? 'order.paid'}")</code>.</${Note}>`}
    ${loading ? html`<${Bones} />` : rows.length ? html`<${Grid} label="Events" columns=${columns} rows=${rows} total=${data?.total}
      idOf=${(row) => String(row.sequence)} to=${(row) => href('events', { ...asked, event: row.sequence })}
      onSpace=${(row) => refine({ event: row.sequence }, { replace: false })}
      foot=${html`<span>${count(rows.length)} of ${count(data?.total)}</span>${next && html`<span class="end"><button class="btn small"
        disabled=${busy} onClick=${load}>${busy ? 'Reading…' : 'Show more'}</button></span>`}`} />` :
      data && html`<div class="panel"><${Empty} art="calm" title=${topic || key ? 'No event is like that' : 'No events yet'}
        actions=${(topic || key) && html`<button class="btn" onClick=${() => refine({ topic: null, key: null })}>Show all events</button>`}>
        ${topic || key ? 'They are kept for a week.' : html`What is published starts runs, and wakes steps that wait for it:
          <${Command} text=${EXAMPLE} />`}</${Empty}></div>`}
    ${chosen && html`<${Event} row=${chosen} close=${() => refine({ event: null })} />`}
  </div>`
}

function read(text) {
  try {
    return { value: JSON.parse(text) }
  } catch {
    return null // it was cut
  }
}

function Event({ row, close }) {
  const whole = row.payload === null ? null : read(row.payload)
  return html`<${Drawer} title=${`Event ${row.sequence}`} close=${close}
    head=${html`<div class="line wrap"><h2>${titleOf(row)}</h2></div>`}>
    ${!row.read && html`<${Note} tone="red" icon="failed"><b>Its payload is no JSON, or its topic is none.</b> It starts nothing.</${Note}>`}
    <dl class="facts"><dt>Published</dt><dd><${When} at=${row.at} full /></dd>
      ${row.key !== null && html`<dt>Key</dt><dd class="mono">${row.key} <a class="link" href=${href('events', { key: row.key })}>others of it
        </a></dd>`}
      ${row.run && html`<dt>To the run</dt><dd><a class="link mono" href=${href(`runs/${row.run}`)}>${row.run}</a></dd>`}
      ${row.id && html`<dt>Id</dt><dd class="mono">${row.id} <${Copy} text=${row.id} label="Copy the id" /></dd>`}
      <dt>Sequence</dt><dd>${count(row.sequence)}</dd><dt>Size</dt><dd>${bytes(row.size)}</dd></dl>
    ${!row.run && row.read && html`<section class="stack tight"><h3>${row.started.length ? `Started ${plural(row.started.length, 'run')}` :
      'Started nothing'}</h3>${row.started.length ? html`<ul class="times">${row.started.map((one) => html`<li key=${one.run}>
        <a class="link" href=${href(`runs/${one.run}`)}>${one.workflow}</a><${Status} status=${one.status} /></li>`)}</ul>` :
        html`<p class="faint">No workflow was declared that asks for it when it was published, or its runs are not stored any more.</p>`}
      </section>`}
    ${row.read && (row.withheld ? html`<${Note}>Payloads are not shown to you here.</${Note}>` : html`<section class="stack tight">
      <h3>Payload</h3>${whole ? html`<div class="json"><${Json} value=${whole.value} /></div>` : html`<pre class="raw trace" tabindex="0">${row.payload}</pre>`}
        </section>`)}
    ${Object.keys(row.metadata).length > 0 && html`<section class="stack tight"><h3>Metadata</h3><div class="json"><${Json} value=${row.metadata} /></div></section>`}
  </${Drawer}>`
}
