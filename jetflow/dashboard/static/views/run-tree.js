// The runs below a run, rolled up by step and workflow: a line however many they are; ten or less are named.
import { html } from '../parts/html.js'
import { useAsk } from '../parts/api.js'
import { href } from '../parts/router.js'
import { count, duration, plural, shortId } from '../parts/format.js'
import { Bar, childrenOf, Legend } from '../parts/status.js'
import { Icon } from '../parts/icons.js'
import { Bones, Empty, Searched, Trouble } from '../parts/said.js'

/** Where a line of the first level leads: to those children, of this status. */
function tableOf(id, node, status) {
  return childrenOf(id, { step: node.step, workflow: node.workflow, status })
}

function Node({ id, node, level }) {
  const { spawned } = node.totals
  const label = `${plural(spawned, 'run')} of ${node.workflow} by ${node.step}`
  return html`<li><div class="leaf"><span class="line"><${Icon} name="children" size=${14} />
    ${level === 0 ? html`<a class="link cut" href=${tableOf(id, node)} aria-label=${label}><b>${node.workflow}</b></a>` :
      html`<b class="cut" title=${label}>${node.workflow}</b>`}<span class="faint cut">by ${node.step}</span><span class="grow" />
      <b>${count(spawned)}</b></span>
    <${Bar} totals=${node.totals} label=${label} live=${node.totals.open > 0} />
    <span class="line wrap"><${Legend} totals=${node.totals} to=${level === 0 ? (status) => tableOf(id, node, status) : null} />
      ${node.took && html`<span class="faint">p50 ${duration(node.took.p50)}, p95 ${duration(node.took.p95)}</span>`}</span></div>
    ${(node.runs.length > 0 || node.children.length > 0 || node.deeper) && html`<ul>
      ${node.runs.length > 0 && html`<li class="named">${node.runs.map((run, n) => html`<a key=${run} class="btn small"
        href=${href(`runs/${run}`)} title=${run}>${node.keys[n] ?? html`<code>${shortId(run)}</code>`}</a>`)}</li>`}
      ${node.children.map((one) => html`<${Node} key=${`${one.step} ${one.workflow}`} id=${id} node=${one} level=${level + 1} />`)}
      ${node.deeper && html`<li class="named faint">There is more below: open one of these runs to see it.</li>`}</ul>`}</li>`
}

export function Tree({ id, totals }) {
  const open = (totals?.totals.open ?? 0) > 0
  const many = (totals?.totals.spawned ?? 0) > 10_000 // all of it is read: about a second for 100,000
  const { data, problem, at, loading, again } = useAsk(`runs/${id}/tree`, { depth: 4 }, { topic: open ? `totals:${id}` : null,
    every: many ? 20_000 : 3000 })
  return html`<div class="stack tight"><${Trouble} problem=${problem} at=${at} again=${again} />
    ${loading ? html`<${Bones} rows=${5} />` : data && (data.children.length ?
      html`<div class="panel"><ul class="tree" aria-label="Runs below">${data.children.map((one) =>
        html`<${Node} key=${`${one.step} ${one.workflow}`} id=${id} node=${one} level=${0} />`)}</ul></div>
        <p class="faint"><${Searched} searched=${data.searched} what="runs of the tree" /></p>` :
      html`<div class="panel"><${Empty} title="Nothing below">This run has spawned none.</${Empty}></div>`)}</div>`
}
