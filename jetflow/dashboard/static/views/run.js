// One run: where it stands, its path from the root, how far its children are, and a tab for each way to look at it.
import { html, useEffect, useState } from '../parts/html.js'
import { act, address, ask, may, useAsk } from '../parts/api.js'
import { go, href } from '../parts/router.js'
import { count, duration, nameOf, perSecond, percent, plural, shortId } from '../parts/format.js'
import { Bar, ended, Legend, Status, childrenOf } from '../parts/status.js'
import { Icon } from '../parts/icons.js'
import { useKeys } from '../parts/keys.js'
import { Tabs } from '../parts/tabs.js'
import { Took, Until, When } from '../parts/time.js'
import { Bones, copy, Empty, Note, tell, Trouble } from '../parts/said.js'
import { Confirm, Menu } from '../parts/dialog.js'
import { Children, trail } from './children.js'
import { Steps } from './run-graph.js'
import { Timeline } from './run-timeline.js'
import { RunErrors } from './run-errors.js'
import { Tree } from './run-tree.js'
import { Values } from './run-values.js'
import { Messages } from './run-messages.js'
import { Stalled } from './stalled.js'
import { Said } from './run-said.js'

export function Run({ id, tab = 'graph' }) {
  const take = (old, told) => (told ? { ...old, run: told } : undefined)
  const { data, problem, at, loading, again } = useAsk(`runs/${id}`, {}, { topic: `run:${id}`, take })
  const goesOn = data && !ended(data.run.status)
  const news = { topic: goesOn ? `totals:${id}` : null, take: (_, told) => told ?? undefined }
  const live = useAsk(data ? `runs/${id}/totals` : null, {}, news)
  const run = data?.run
  const totals = live.data ?? data?.totals
  useEffect(() => {
    if (run) document.title = `${nameOf(run)} · ${run.workflow} · jetflow`
    return () => { document.title = 'jetflow' }
  }, [run?.key, run?.workflow])
  if (loading) return html`<div class="page"><${Bones} rows=${3} /><${Bones} rows=${7} /></div>`
  if (!data) {
    return html`<div class="page">${problem.status === 404 ? html`<div class="panel">
      <${Empty} art="lost" title="This run is not stored" actions=${html`<a class="btn" href=${href('runs')}>All runs</a>`}>
      It may have been deleted, or kept for long enough; or it is of another namespace.<br /><span class="mono faint">${id}</span>
        </${Empty}></div>` : html`<${Trouble} problem=${problem} again=${again} />`}</div>`
  }
  const spawned = totals?.totals.spawned ?? 0
  const bad = (totals?.totals.failed ?? 0) + (totals?.totals.timed_out ?? 0)
  const own = (run.errors?.length ?? 0) || (run.error ? 1 : 0)
  const to = (name) => href(name === 'graph' ? `runs/${id}` : `runs/${id}/${name}`)
  const tabs = [
    { id: 'graph', label: 'Steps', href: to('graph'), count: run.steps.length > 1 ? run.steps.length : undefined },
    (spawned > 0 || tab === 'children') && { id: 'children', label: 'Children', href: to('children'), count: spawned },
    (bad > 0 || own > 0 || tab === 'errors') && { id: 'errors', label: 'Errors', href: to('errors'), count: bad + own, bad: true },
    { id: 'timeline', label: 'Timeline', href: to('timeline') },
    spawned > 0 && { id: 'tree', label: 'Tree', href: to('tree') },
    { id: 'values', label: 'Input and output', href: to('values') },
    { id: 'said', label: 'Log and streams', href: to('said') },
    { id: 'messages', label: 'Messages', href: to('messages') },
  ]
  const views = {
    graph: () => html`<${Steps} id=${id} run=${run} graph=${data.graph} totals=${totals} />`,
    children: () => html`<${Children} id=${id} totals=${totals} workflow=${run.workflow} live=${!ended(run.status)} />`,
    errors: () => html`<${RunErrors} id=${id} run=${run} totals=${totals} />`,
    timeline: () => html`<${Timeline} id=${id} run=${run} totals=${totals} beat=${at} />`,
    tree: () => html`<${Tree} id=${id} totals=${totals} />`,
    values: () => html`<${Values} id=${id} run=${run} />`,
    said: () => html`<${Said} id=${id} />`,
    messages: () => html`<${Messages} id=${id} />`,
  }
  return html`<div class="page full">
    <${Head} run=${run} lineage=${data.lineage} again=${again} />
    <${Trouble} problem=${problem} at=${at} again=${again} />
    ${run.unattended?.length > 0 && html`<${Note} tone="orange" icon="errors">
      <b>No worker takes its tasks.</b> Start one that has ${run.unattended.map((name, n) =>
        html`${n ? ', ' : ''}<code>${name}</code>`)}.</${Note}>`}
    ${spawned > 0 && goesOn && html`<${Stalled} id=${id} run=${run} totals=${totals} />`}
    ${spawned > 0 && tab !== 'children' && html`<${FanOut} id=${id} totals=${totals} />`}
    ${spawned > 0 && tab === 'children' && html`<${Line} totals=${totals} />`}
    <${Tabs} label="Ways to look at the run" tabs=${tabs} now=${tab} />
    ${(views[tab] ?? (() => html`<div class="panel"><${Empty} title="There is no such tab">${tab}</${Empty}></div>`))()}
  </div>`
}

function Sentence({ totals }) {
  const { spawned, open } = totals.totals
  return html`<b>${count(spawned - open)} of ${totals.spawning ? '≥ ' : ''}${count(spawned)}</b><span class="dim">
    ${percent(spawned - open, spawned)} of its children have ended</span>
    ${totals.rate > 0 && open > 0 && html`<span class="dim">${perSecond(totals.rate)}</span>`}
    ${totals.eta > 0 && open > 0 && !totals.spawning && html`<span class="dim">about ${duration(Math.ceil(totals.eta))} left</span>`}
    ${totals.spawning && html`<span class="st t-blue"><${Icon} name="running" size=${14} />may spawn more</span>`}`
}

const Line = ({ totals }) => html`<div class="fanout bare"><div class="top-line"><${Sentence} totals=${totals} /></div>
  <${Bar} totals=${totals.totals} size="fat" live=${totals.totals.open > 0} label="Children" /></div>`

const FanOut = ({ id, totals }) => html`<section class="panel fanout" aria-label="Children">
  <div class="top-line"><${Sentence} totals=${totals} /><span class="grow" /><a class="link" href=${childrenOf(id)}>Open the table</a></div>
  <${Bar} totals=${totals.totals} size="fat" live=${totals.totals.open > 0} label="Children" />
  <${Legend} totals=${totals.totals} to=${(status) => childrenOf(id, { status })} /></section>`

function Head({ run, lineage, again }) {
  const [asking, setAsking] = useState(null)
  const path = lineage.path.slice(0, -1)
  const parent = path.at(-1)
  const over = ended(run.status)
  const up = () => (parent ? go(upTo(parent, run)) : go(href('runs')))
  const keys = {
    u: up, '.': () => copy(run.id, 'Id copied'), $: () => copy(`jetflow show ${run.id}`, 'Command copied'),
    '[': () => sibling(parent, lineage, -1), ']': () => sibling(parent, lineage, 1),
    c: () => !over && may('cancel') && setAsking('cancel'),
    r: () => over && may('rerun') && setAsking('rerun'),
    Escape: () => { up() },
  }
  useKeys(keys)
  const siblings = parent && trail.of(parent.id)
  return html`<header class="runhead">
    <nav class="crumbs" aria-label="Path"><a href=${href('runs')}>Runs</a>
      ${path.map((one, n) => html`<${Icon} name="right" size=${12} />${lineage.skipped > 0 && n === 1 &&
        html`<span>${plural(lineage.skipped, 'run')} between</span><${Icon} name="right" size=${12} />`}
          <a class="cut" href=${n === path.length - 1 ? upTo(one, run) : href(`runs/${one.id}`)} title=${`${one.workflow} ${one.id}`}>
            ${one.workflow}${one.key ? ` · ${one.key}` : ''}</a>
              ${n === path.length - 1 && lineage.path.at(-1).step ? html`<span class="faint">${lineage.path.at(-1).step}</span>` : null}`)}
      <${Icon} name="right" size=${12} /><span class="dim cut">${nameOf(run)}</span></nav>
    <div class="title"><h1 class="cut">${run.key ?? run.workflow}</h1><${Status} status=${run.status} pill />
      <div class="end">${parent && html`<button class="btn icon" aria-label="Previous sibling" title="Previous sibling ([)"
        disabled=${!siblings && lineage.n === null} onClick=${keys['[']}><${Icon} name="prev" /></button>
          <button class="btn icon" aria-label="Next sibling" title="Next sibling (])" disabled=${!siblings && lineage.n === null}
            onClick=${keys[']']}><${Icon} name="right" /></button>
        <a class="btn" href=${upTo(parent, run)} title="Up to its parent (u)"><${Icon} name="level" size=${14} />Up</a>`}
        ${!over && may('cancel') && html`<button class="btn danger" onClick=${() => setAsking('cancel')}>
          <${Icon} name="stop" size=${14} />Cancel</button>`}
        ${over && may('rerun') && html`<button class="btn" onClick=${() => setAsking('rerun')}>
          <${Icon} name="play" size=${14} />Rerun</button>`}
        <${Menu} label="More" items=${[{ label: 'Copy id', icon: 'copy', key: '.', run: keys['.'] }, { label: 'Copy link', icon:
          'link', key: ',', run: () => copy(location.href, 'Link copied') },
          { label: 'Copy command', icon: 'copy', key: '$', run: keys.$ }, { label: 'Copy Python', icon: 'copy', run: () =>
            copy(`await client.describe("${run.id}")`, 'Python copied') },
          !run.parent && may('delete') && { label: 'Delete…', icon: 'close', run: () => setAsking('delete') }]} /></div></div>
    <div class="meta">${run.key && html`<span><span>Workflow</span><a class="link" href=${href(`workflows/${run.workflow}`)}>
      ${run.workflow}</a></span>`}<span title=${run.version}><span>Version</span><code>${run.version.slice(0, 8)}</code></span>
      <span><span>Triggered</span><${When} at=${run.triggered} full /></span><span><span>Took</span>
        <${Took} started=${run.triggered} ended=${run.ended} open=${!over} /></span>
      ${run.deadline && !over && html`<span><span>Deadline</span><${Until} at=${run.deadline} /></span>`}<span title="Copy with .">
        <span>Id</span><code>${run.id}</code></span>
      ${run.rerun_of && html`<span><span>Rerun of</span><a class="link" href=${href(`runs/${run.rerun_of}`)}>
        <code>${shortId(run.rerun_of)}</code></a></span>`}
      ${run.rerun_as && html`<span><span>Rerun as</span><a class="link" href=${href(`runs/${run.rerun_as}`)}>
        <code>${shortId(run.rerun_as)}</code></a></span>`}
      ${run.metadata && html`<span class="cut"><span>Metadata</span><code>${JSON.stringify(run.metadata)}</code></span>`}</div>
    ${asking === 'cancel' && html`<${Cancel} run=${run} close=${() => setAsking(null)} again=${again} />`}
    ${asking === 'rerun' && html`<${Rerun} run=${run} close=${() => setAsking(null)} />`}
    ${asking === 'delete' && html`<${Confirm} title="Delete this run?" verb="Delete it" danger word=${shortId(run.id)}
      close=${() => setAsking(null)} run=${async () => { await act('DELETE', `runs/${run.id}`); tell('Deleted'); go(href('runs')) }}>
        <p class="dim">All that is stored of it and of its descendants is gone for good.${over ? '' : ' It is cancelled first.'}</p>
          </${Confirm}>`}
  </header>`
}

const Cancel = ({ run, close, again }) => html`<${Confirm} title=${`Cancel ${nameOf(run)}?`} verb="Cancel the run" danger close=${close}
  run=${async (form) => { const { changed } = await act('POST', `runs/${run.id}/cancel`, { tree:
    form.elements.tree.value === 'tree' }); tell(changed ? 'Cancelled' : 'It had ended already'); again() }}>
  <p class="dim">What runs is told to stop, and what is queued never begins. The outcome stands for ever.</p>
  <label class="toggle"><input type="radio" name="tree" value="tree" checked />With all its descendants</label><label class="toggle">
    <input type="radio" name="tree" value="alone" />This run alone</label></${Confirm}>`

const Rerun = ({ run, close }) => html`<${Confirm} title=${`Run ${nameOf(run)} again?`} verb="Run it again" close=${close}
  run=${async (form) => { const chosen = form.elements.only.value; const step = chosen.startsWith('from-') ? chosen.slice(5) : null
    const { id, changed } = await act('POST', `runs/${run.id}/rerun`, step ? { step } : { only: chosen })
    tell(changed ? 'Begun again' : 'It was run again before'); go(href(`runs/${id}`)) }}>
  <p class="dim">A new run with the same input. This one stays as it is.</p>
  <label class="toggle"><input type="radio" name="only" value="failed" checked=${run.status !== 'succeeded'}
    disabled=${run.status === 'succeeded'} />Only what has failed: the rest is taken over</label>
  <label class="toggle"><input type="radio" name="only" value="all" checked=${run.status === 'succeeded'} />All of it</label>
  ${run.steps.length > 1 && run.steps.map((step) => html`<label class="toggle" key=${step.name}>
    <input type="radio" name="only" value=${`from-${step.name}`} />From step ${step.name} on</label>`)}</${Confirm}>`

/** Where "up" leads: into the list that one came from, at its row; or to the parent. */
function upTo(parent, run) {
  const kept = trail.of(parent.id)
  return kept ? href(`runs/${parent.id}/children`, { ...kept.asked, row: kept.index, at: Math.max(0, kept.index - 8) || null }) :
    href(`runs/${parent.id}`, run.parent_step ? { step: run.parent_step } : {})
}

async function sibling(parent, lineage, by) {
  if (!parent) return
  const kept = trail.of(parent.id) ?? { asked: {}, index: lineage.n, total: null }
  if (kept.index === null) {
    tell('Its place among its siblings is not known')
    return
  }
  const index = kept.index + by
  if (index < 0) {
    tell('That was the first one')
    return
  }
  const page = await ask(address(`runs/${parent.id}/children`, { ...kept.asked, offset: index, limit: 1 })).catch((problem) =>
    ({ problem }))
  if (page.problem) tell(page.problem.detail)
  else if (!page.items.length) tell('That was the last one')
  else {
    trail.keep(parent.id, kept.asked, index, kept.total)
    go(href(`runs/${page.items[0].id}`))
  }
}

