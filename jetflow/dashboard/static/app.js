// The frame around every page: where one can go, what is live, and which view an address shows.
import { html, render, cls, useEffect, useErrorBoundary, useLayoutEffect, useState, useValue } from './parts/html.js'
import { href, startRouter, useRoute } from './parts/router.js'
import { Icon, Logo } from './parts/icons.js'
import { connection, holdLive, startLive } from './parts/live.js'
import { loadMeta, meta } from './parts/api.js'
import { GO, overlay, startKeys, useKeys } from './parts/keys.js'
import { clock, duration } from './parts/format.js'
import { flip, isDark, startTheme } from './parts/theme.js'
import { Bones, copy, Empty, Toasts, Trouble } from './parts/said.js'
import { Help, Palette } from './parts/palette.js'

const PAGES = [
  ['', 'overview', 'Overview'], ['runs', 'runs', 'Runs'], ['errors', 'errors', 'Errors'], ['workflows', 'workflows', 'Workflows'],
  ['queues', 'queues', 'Queues'], ['workers', 'workers', 'Workers'], ['schedules', 'schedules', 'Schedules'], ['events', 'events', 'Events'],
  ['doctor', 'doctor', 'Doctor'],
]
/** A view is loaded when it is first shown: by its file, and the name that it has there. */
const VIEWS = {
  overview: [() => import('./views/overview.js'), 'Overview'],
  runs: [() => import('./views/runs.js'), 'Runs'],
  run: [() => import('./views/run.js'), 'Run'],
  errors: [() => import('./views/errors.js'), 'Errors'],
  workflows: [() => import('./views/workflows.js'), 'Workflows'],
  workflow: [() => import('./views/workflow.js'), 'Workflow'],
  queues: [() => import('./views/queues.js'), 'Queues'],
  workers: [() => import('./views/workers.js'), 'Workers'],
  schedules: [() => import('./views/schedules.js'), 'Schedules'],
  events: [() => import('./views/events.js'), 'Events'],
  doctor: [() => import('./views/doctor.js'), 'Doctor'],
}
const loaded = new Map()

function View({ view, ...rest }) {
  const [, drawn] = useState(0)
  const [problem, setProblem] = useState(null)
  const [load, name] = VIEWS[view]
  useLayoutEffect(() => {
    if (loaded.has(view)) return undefined
    let here = true
    load().then((module) => { loaded.set(view, module[name]); if (here) drawn((n) => n + 1) }, (error) => here && setProblem(error))
    return () => { here = false }
  }, [view])
  const Shown = loaded.get(view)
  if (Shown) return html`<${Shown} ...${rest} />`
  return html`<div class="page">${problem ? html`<${Trouble} problem=${{ title: 'This page could not be loaded', detail:
    'the dashboard does not answer, or it was updated', hint: 'reload the page' }} />` : html`<${Bones} />`}</div>`
}
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
  if (first === 'runs' && second) return html`<${View} view="run" key=${second} id=${second} tab=${parts[2]} />`
  if (first === 'workflows' && second) return html`<${View} view="workflow" key=${second} name=${second} tab=${parts[2]} />`
  if (first === 'errors' && second) return html`<${View} view="errors" fingerprint=${second} />`
  const found = PAGES.find(([path]) => path === (first ?? ''))
  if (found && !second) return html`<${View} view=${found[1]} />`
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

/** Close an overlay that has told so, a moment later: another one may be open by then. */
function shut(one) {
  if (overlay.now === one) overlay.set(null)
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
    ${over === 'palette' && html`<${Palette} pages=${PAGES} close=${() => shut('palette')} />`}
    ${over === 'help' && html`<${Help} close=${() => shut('help')} />`}
    <${Toasts} />`
}

startTheme()
startRouter()
startLive()
startKeys()
render(html`<${App} />`, document.getElementById('app'))
