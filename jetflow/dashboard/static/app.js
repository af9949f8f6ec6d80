// The frame around every page: where one can go, what is live, and which view an address shows.
import { html, render, cls, useEffect, useErrorBoundary, useState, useValue } from './parts/html.js'
import { href, startRouter, useRoute } from './parts/router.js'
import { Icon, Logo } from './parts/icons.js'
import { connection, holdLive, startLive } from './parts/live.js'
import { loadMeta, meta } from './parts/api.js'
import { GO, overlay, startKeys, useKeys } from './parts/keys.js'
import { clock, duration } from './parts/format.js'
import { flip, isDark, startTheme } from './parts/theme.js'
import { copy, Empty, Toasts, Trouble } from './parts/said.js'
import { Help, Palette } from './parts/palette.js'
import { Overview } from './views/overview.js'
import { Runs } from './views/runs.js'
import { Run } from './views/run.js'
import { Errors } from './views/errors.js'
import { Workflows } from './views/workflows.js'
import { Workflow } from './views/workflow.js'
import { Queues } from './views/queues.js'
import { Workers } from './views/workers.js'
import { Doctor } from './views/doctor.js'

const PAGES = [
  ['', 'overview', 'Overview', Overview], ['runs', 'runs', 'Runs', Runs], ['errors', 'errors', 'Errors', Errors],
  ['workflows', 'workflows', 'Workflows', Workflows], ['queues', 'queues', 'Queues', Queues], ['workers', 'workers', 'Workers', Workers],
  ['doctor', 'doctor', 'Doctor', Doctor],
]
const KEY_OF = Object.fromEntries(Object.entries(GO).map(([key, path]) => [path, key]))

function LiveDot() {
  const { state, since, reason } = useValue(connection)
  const [, tick] = useState(0)
  useEffect(() => {
    const timer = setInterval(() => tick((n) => n + 1), 1000)
    return () => clearInterval(timer)
  }, [])
  const text = { live: 'Live', paused: 'Paused', offline: 'Offline', starting: 'Connecting' }[state] ??
    `Stale ${duration((Date.now() - since) / 1000)}`
  return html`<button class=${cls('livedot', state)} title=${reason || `${text}: press p to pause or go on`}
    onClick=${() => holdLive(state !== 'paused')}><i />${text}</button>`
}

function Rail({ here, open, close }) {
  const told = useValue(meta)
  return html`<aside class=${cls('rail', open && 'open')} aria-label="jetflow">
    <a class="brand" href=${href('')} onClick=${close}>
      <${Logo} />jetflow${told && html`<small class="cut" title=${`namespace ${told.namespace}`}>${told.namespace}</small>`}</a>
    <button class="jump" onClick=${() => { close(); overlay.set('palette') }}><${Icon} name="search" size=${14} />Go to…<kbd>
      ${/Mac|iP/.test(navigator.platform) ? '⌘K' : 'Ctrl K'}</kbd></button>
    <nav aria-label="Pages">${PAGES.map(([path, icon, label]) => html`<a key=${path} href=${href(path)} onClick=${close}
      title=${`${label} (g ${KEY_OF[path]})`} aria-current=${here === path ? 'page' : undefined}><${Icon} name=${icon} />${label}
        </a>`)}</nav>
    <div class="foot"><div class="line"><${LiveDot} /><span class="line">
      <button class="btn quiet icon small" aria-label="Light or dark" title="Light or dark (t)" onClick=${flip}>
        <${Icon} name=${isDark() ? 'sun' : 'moon'} size=${14} /></button>
      <button class="btn quiet icon small" aria-label="Keys" title="Keys (?)" onClick=${() => overlay.set('help')}>
        <${Icon} name="help" size=${14} /></button></span></div>
      ${told && html`<div class="cut" title=${`NATS ${told.server.version} ${told.server.name}`}>
        ${told.version} · NATS ${told.server.version}${told.access.actions.length ? '' : ' · read-only'}</div>`}</div></aside>`
}

function Page({ parts }) {
  const [failed, again] = useErrorBoundary((error) => console.error(error))
  if (failed) return html`<div class="page"><div class="panel">
    <${Empty} art="lost" title="This page broke" actions=${html`<button class="btn" onClick=${again}>Draw it again</button>`}>
      ${String(failed)}</${Empty}></div></div>`
  const [first, second] = parts
  if (first === 'runs' && second) return html`<${Run} key=${second} id=${second} tab=${parts[2]} rest=${parts.slice(3)} />`
  if (first === 'workflows' && second) return html`<${Workflow} key=${second} name=${second} tab=${parts[2]} />`
  if (first === 'errors' && second) return html`<${Errors} fingerprint=${second} />`
  const found = PAGES.find(([path]) => path === (first ?? ''))
  if (found && !second) return html`<${found[3]} />`
  return html`<div class="page"><div class="panel">
    <${Empty} art="lost" title="There is no such page"
      actions=${html`<a class="btn" href=${href('')}>Overview</a>`}>The address ${parts.join('/')} shows nothing here.</${Empty}>
        </div></div>`
}

function Offline() {
  const { state, since, reason } = useValue(connection)
  if (state !== 'offline' || Date.now() - since < 0) return null
  return html`<div class="banner t-orange" role="status"><${Icon} name="errors" /><div>
    <b>News do not arrive.</b> What you see is from ${clock(since / 1000)}: ${reason}. It is tried again by itself.</div></div>`
}

function App() {
  const { parts } = useRoute()
  const [menu, setMenu] = useState(false)
  const [problem, setProblem] = useState(null)
  const told = useValue(meta)
  const over = useValue(overlay)
  const first = parts[0] ?? ''
  useEffect(() => {
    const load = () => loadMeta().then(() => setProblem(null), setProblem)
    load()
    return connection.listen(({ state }) => { if (state === 'live' && !meta.now) load() })
  }, [])
  useEffect(() => {
    if (!problem) return undefined
    const timer = setTimeout(() => loadMeta().then(() => setProblem(null), setProblem), 2500)
    return () => clearTimeout(timer)
  }, [problem])
  useKeys({ t: flip, p: () => holdLive(connection.now.state !== 'paused'), ',': () => copy(location.href, 'Link copied') })
  if (problem?.status === 401 && problem.rest.location) location.assign(problem.rest.location)
  const page = PAGES.find(([path]) => path === first)
  return html`<a class="skip" href="#main" onClick=${(e) =>
    { e.preventDefault(); document.querySelector('main').focus() }}>To the content</a>
    <div class="frame"><div class="top"><a class="brand" href=${href('')}><${Logo} />${page?.[2] ?? 'jetflow'}</a>
      <button class="btn quiet icon" aria-label="Search" onClick=${() => overlay.set('palette')}><${Icon} name="search" /></button>
      <button class="btn quiet icon" aria-label="Menu" aria-expanded=${menu} onClick=${() => setMenu(!menu)}>
        <${Icon} name=${menu ? 'close' : 'menu'} /></button></div>
    <${Rail} here=${first} open=${menu} close=${() => setMenu(false)} />
    <main id="main" tabindex="-1">${problem && !told ? html`<div class="page"><${Trouble} problem=${problem} /></div>` :
      html`<${Offline} /><${Page} key=${parts.slice(0, 2).join('/')} parts=${parts} />`}</main></div>
    ${over === 'palette' && html`<${Palette} pages=${PAGES} close=${() => overlay.set(null)} />`}
    ${over === 'help' && html`<${Help} close=${() => overlay.set(null)} />`}
    <${Toasts} />`
}

startTheme()
startRouter()
startLive()
startKeys()
render(html`<${App} />`, document.getElementById('app'))
