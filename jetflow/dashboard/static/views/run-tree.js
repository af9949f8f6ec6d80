// The runs below a run, rolled up: totals where there are many, single runs where there are ten or less.
import { html } from '../parts/html.js'
import { useAsk } from '../parts/api.js'
import { href } from '../parts/router.js'
import { count, shortId } from '../parts/format.js'
import { Bar, childrenOf, Legend, Status } from '../parts/status.js'
import { Icon } from '../parts/icons.js'
import { Bones, Trouble } from '../parts/said.js'

function Below({ node }) {
  const totals = node.totals.totals
  if (node.children) return html`<ul>${node.children.map((child) => html`<${Node} key=${child.id} node=${child} />`)}</ul>`
  if (!totals.spawned) return null
  const steps = node.totals.steps.filter((one) => one.totals.spawned)
  return html`<ul>${steps.map((one) => html`<li key=${one.step}><div class="leaf"><span class="line"><${Icon} name="children" size=${14} />
    <a class="link cut" href=${childrenOf(node.id, steps.length > 1 ? { step: one.step } : {})}>
      ${count(one.totals.spawned)} children of ${one.step}</a></span>
    <${Bar} totals=${one.totals} /><${Legend} totals=${one.totals}
      to=${(status) => childrenOf(node.id, { step: steps.length > 1 ? one.step : null, status })} /></div></li>`)}</ul>`
}

const Node = ({ node }) => html`<li><div class="leaf"><span class="line"><${Status} status=${node.status}>${''}</${Status}>
  <a class="cut" href=${href(`runs/${node.id}`)} title=${node.id}><b>${node.workflow}</b> <span class="dim">${node.key ?? shortId(node.id)}
    </span></a></span>
  ${node.totals.totals.spawned ? html`<${Bar} totals=${node.totals.totals} /><span class="dim">
    ${count(node.totals.totals.spawned)} children</span>` : html`<span /><span />`}</div><${Below} node=${node} /></li>`

export function Tree({ id, totals }) {
  const open = (totals?.totals.open ?? 0) > 0
  const { data, problem, at, loading, again } = useAsk(`runs/${id}/tree`, {}, { topic: open ? `totals:${id}` : null, every: 3000 })
  return html`<div class="stack tight"><${Trouble} problem=${problem} at=${at} again=${again} />
    ${loading ? html`<${Bones} rows=${5} />` : data &&
      html`<div class="panel"><ul class="tree" aria-label="Runs below"><${Node} node=${data} /></ul></div>`}</div>`
}
