// Failures of all runs, in groups of those that are alike; and one group: its newest runs, and a sample in full.
import { html, useMemo } from '../parts/html.js'
import { useAsk } from '../parts/api.js'
import { href, refine, useRoute } from '../parts/router.js'
import { count, plural, shortId, words } from '../parts/format.js'
import { Status } from '../parts/status.js'
import { Spark } from '../parts/chart.js'
import { Failure } from '../parts/trace.js'
import { useKeys } from '../parts/keys.js'
import { go } from '../parts/router.js'
import { When } from '../parts/time.js'
import { Bones, copy, Empty, Searched, Trouble } from '../parts/said.js'
import { Groups } from './error-groups.js'
import { sinceOf } from './runs.js'

const SPANS = [['1h', 'Last hour'], ['24h', 'Last 24 hours'], ['7d', 'Last 7 days'], ['', 'All that is stored']]

export function Errors({ fingerprint }) {
  const { query } = useRoute()
  const span = query.get('since') ?? (fingerprint ? '' : '24h')
  const workflow = query.get('workflow') ?? ''
  const since = useMemo(() => (span === 'all' ? null : sinceOf(span)), [span])
  const { data, problem, at, loading, again } = useAsk('errors', { since, workflow, limit: 200 }, { topic: 'runs', every: 3000 })
  const workflows = useAsk('workflows', {}).data ?? []
  const move = (by) => { const rows = /** @type {HTMLElement[]} */ ([...document.querySelectorAll('.errgroup')])
    const next = rows[Math.max(0, Math.min(rows.length - 1,
    rows.indexOf(/** @type {any} */ (document.activeElement)) + by))]; next?.focus(); return Boolean(next) }
  useKeys({ j: () => move(1), k: () => move(-1) }, !fingerprint)
  if (fingerprint) return html`<${Group} group=${data?.items.find((one) => one.fingerprint === fingerprint)} loading=${loading}
    problem=${problem} again=${again} />`
  const total = data ? data.items.reduce((sum, group) => sum + group.count, 0) : 0
  return html`<div class="page">
    <div class="pagehead"><h1>Errors</h1><span class="sub">
      ${data && total > 0 ? `${plural(data.items.length, 'group')} of ${plural(data.total, 'failure')}` : ''}</span>
      <div class="end"><select class="input" aria-label="Workflow" value=${workflow}
        onChange=${(e) => refine({ workflow: e.target.value })}><option value="">All workflows</option>
          ${workflows.map((one) => html`<option key=${one.name} value=${one.name}>${one.name}</option>`)}</select>
        <select class="input" aria-label="Time" value=${span === 'all' ? '' : span}
          onChange=${(e) => refine({ since: e.target.value || 'all' })}>
            ${SPANS.map(([value, label]) => html`<option key=${value} value=${value}>${label}</option>`)}</select></div></div>
    <${Trouble} problem=${problem} at=${at} again=${again} />
    ${loading ? html`<${Bones} />` : data && (data.items.length ?
      html`<div class="panel"><${Groups} groups=${data.items}
        to=${(group) => href(`errors/${group.fingerprint}`, { workflow, since: query.get('since') })} />
        ${(data.total > total || !data.searched.complete) &&
          html`<div class="grid"><div class="foot"><span>
            ${data.total > total ? `Shows the newest ${count(total)} of ${count(data.total)} failures. ` : ''}
              <${Searched} searched=${data.searched} what="failures" /></span></div></div>`}</div>`
      : html`<div class="panel"><${Empty} art="calm" title="Nothing has failed"
        actions=${span !== 'all' && html`<button class="btn" onClick=${() => refine({ since:
          'all' })}>Look at all that is stored</button>`}>
            ${data.searched.complete ? `No run failed or timed out${span && span !== 'all' ? ` in this time` : ''}.` :
              'None among those that were read.'}</${Empty}></div>`)}
  </div>`
}

const issue = (group) => `## ${group.type}: ${group.message}\n\n- workflow: \`${group.workflow}\`${group.step ?
  `, step \`${group.step}\`` :
    ''}\n- place: \`${group.place}\`\n- count: ${group.count}, first ${new Date(group.first * 1000).toISOString()}, last ${new Date(group.last * 1000).toISOString()}\n- runs: ${group.samples.map((id) => `\`${id}\``).join(', ')}\n\n\`\`\`\n${group.sample}\n\`\`\`\n`

function Group({ group, loading, problem, again }) {
  const newest = group?.samples[0]
  const { data } = useAsk(newest ? `runs/${newest}` : null, {})
  const error = data && (data.run.errors?.find((one) => one.type === group.type) ?? data.run.error)
  useKeys({ u: () => go(href('errors')), Escape: () => go(href('errors')) })
  if (loading) return html`<div class="page"><${Bones} /></div>`
  if (!group) return html`<div class="page">${problem ? html`<${Trouble} problem=${problem} again=${again} />` :
    html`<div class="panel"><${Empty} art="lost" title="This group is not there any more"
      actions=${html`<a class="btn" href=${href('errors', { since:
        'all' })}>All errors</a>`}>Its failures may be older than what is looked at, or deleted.</${Empty}></div>`}</div>`
  return html`<div class="page"><header class="runhead"><nav class="crumbs" aria-label="Path"><a href=${href('errors')}>Errors</a>
    <span>›</span><span>${group.type}</span></nav>
      <div class="title"><h1 class="cut">${group.type}</h1><${Status} status=${group.status} pill /><div class="end">
        <button class="btn" onClick=${() => copy(issue(group), 'Copied as Markdown')}>Copy as issue</button></div></div>
      <p class="dim">${group.message}</p></header>
    <div class="figures">${[['Failures', count(group.count), `${words(group.status)} runs`], ['First', html`<${When} at=${group.first} />`,
      ''], ['Last', html`<${When} at=${group.last} />`, ''], ['Trend', html`<${Spark} values=${group.trend} label="failures over time" />`,
        'from the first to the last']].map(([label, value, note]) =>
          html`<div class="panel figure" key=${label}><span class="label">${label}</span><span class="value">${value}</span>
            <span class="note">${note}</span></div>`)}</div>
    <div class="cols aside"><section class="stack tight"><h2>The newest</h2>
      ${error ? html`<${Failure} error=${error} open=${true} />` :
        html`<${Failure} error=${{ type: group.type, message: group.sample, place: group.place }} />`}</section>
      <section class="panel"><header><h2>Newest runs</h2></header><div class="body stack tight"><dl class="facts"><dt>Workflow</dt><dd>
        <a class="link" href=${href(`workflows/${group.workflow}`)}>${group.workflow}</a></dd>
          ${group.step && html`<dt>Step</dt><dd>${group.step}</dd>`}
            ${group.place && html`<dt>Place</dt><dd class="mono">${group.place}</dd>`}</dl>
        ${group.samples.map((id) => html`<a key=${id} class="line btn" href=${href(`runs/${id}`)}><code>${shortId(id)}</code>
          <span class="grow" /><span class="faint">open</span></a>`)}
        <a class="link dim" href=${href('runs', { status: group.status, workflow:
          group.workflow })}>Root runs of this workflow that ${words(group.status)}</a></div></section></div>
  </div>`
}
