// Whether all is well here, what is stored and what that costs; and how this page looks to you.
import { html, useState } from '../parts/html.js'
import { forget, meta, useAsk } from '../parts/api.js'
import { bytes, count, preferences } from '../parts/format.js'
import { Icon } from '../parts/icons.js'
import { Grid } from '../parts/grid.js'
import { Segments } from '../parts/tabs.js'
import { setTheme } from '../parts/theme.js'
import { When } from '../parts/time.js'
import { Bones, Trouble } from '../parts/said.js'

const TITLES = { served: 'Queues are served', paused: 'Paused queues', workers: 'Workers answer', loops: 'Event loops', orphans:
  'Orphan queues' }
const STREAMS = [
  { id: 'name', label: 'Stream', width: 'minmax(150px, 1.5fr)', className: 'cut first mono', cell: (row) => row.name },
  { id: 'messages', label: 'Messages', width: 'minmax(80px, 1fr)', num: true, small: 'messages', cell: (row) => count(row.messages) },
  { id: 'bytes', label: 'Size', width: 'minmax(80px, 1fr)', num: true, small: 'size', cell: (row) => bytes(row.bytes) },
  { id: 'oldest', label: 'Oldest', width: 'minmax(90px, 1fr)', num: true, className: 'dim', cell: (row) =>
    html`<${When} at=${row.oldest} />` },
]

function Preferences() {
  const [, draw] = useState(0)
  const set = (name, apply) => (value) => { preferences.set(name, value); apply?.(value); forget(); draw((n) => n + 1) }
  return html`<section class="panel"><header><h2>How it looks to you</h2></header><div class="body prefs">
    <div class="line"><span>Theme</span><${Segments} label="Theme" now=${preferences.get('theme', 'system')}
      choose=${set('theme', setTheme)} options=${[['system', 'System'], ['light', 'Light'], ['dark', 'Dark']]} /></div>
    <div class="line"><span>Times</span><${Segments} label="Times" now=${preferences.get('zone', 'local')} choose=${set('zone')}
      options=${[['local', 'Local'], ['utc', 'UTC']]} /></div>
    <div class="line"><span>Rows</span><${Segments} label="Rows" now=${preferences.get('density', 'roomy')}
      choose=${set('density', (value) => { document.documentElement.dataset.density = value })}
        options=${[['roomy', 'Roomy'], ['compact', 'Compact']]} /></div></div></section>`
}

export function Doctor() {
  const { data, problem, at, loading, again } = useAsk('doctor', {})
  const told = meta.now
  const look = data?.checks.filter((one) => one.state === 'look').length ?? 0
  return html`<div class="page"><div class="pagehead"><h1>Doctor</h1><span class="sub">
    ${data ? (look ? `${count(look)} worth a look` : 'all is well') : ''}</span><div class="end">
      <button class="btn" onClick=${again}>Look again</button></div></div>
    <${Trouble} problem=${problem} at=${at} again=${again} />
    <div class="cols aside"><div class="stack">${loading ? html`<${Bones} />` : data &&
      html`<section class="panel" aria-label="Checks">
        ${data.checks.map((one) => html`<div class="check" key=${one.name}>
          <span class=${`st ${one.state === 'ok' ? 't-green' : one.state === 'look' ? 't-orange' : 't-grey'}`}>
            <${Icon} name=${one.state === 'ok' ? 'succeeded' : one.state === 'look' ? 'errors' : 'info'} /></span><b>
              ${TITLES[one.name] ?? one.name[0].toUpperCase() + one.name.slice(1).replace(/[_-]/g, ' ')}</b><div>${one.detail}
              ${one.hint && html`<div class="faint">${one.hint}</div>`}</div></div>`)}</section>
        <section class="stack tight"><div class="line"><h2 class="grow">What is stored</h2>
          <span class="faint">about ${bytes(data.storage.memory)} of the server's memory</span></div>
            <${Grid} label="Streams" columns=${STREAMS} rows=${data.storage.streams} idOf=${(row) => row.name} /></section>`}</div>
      <div class="stack"><${Preferences} />${told && html`<section class="panel"><header><h2>Where this is</h2></header><div class="body">
        <dl class="facts"><dt>jetflow</dt><dd>${told.version}</dd><dt>Namespace</dt><dd>${told.namespace}</dd><dt>Server</dt>
          <dd>NATS ${told.server.version}</dd>${told.server.name && html`<dt>Name</dt><dd class="mono">${told.server.name}</dd>`}
            ${told.server.cluster && html`<dt>Cluster</dt><dd>${told.server.cluster}</dd>`}
        ${told.access.user && html`<dt>You</dt><dd>${told.access.user}</dd>`}<dt>You may</dt><dd>
          ${told.access.actions.join(', ') || 'look'}</dd></dl></div></section>`}</div></div></div>`
}
