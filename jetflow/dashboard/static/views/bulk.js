// An action on many runs: counted first, frozen at that moment, then done with progress and a way to stop.
import { html, useEffect, useState } from '../parts/html.js'
import { act, address, ask, forget } from '../parts/api.js'
import { clock, count, plural, words } from '../parts/format.js'
import { Dialog } from '../parts/dialog.js'
import { Refused } from '../parts/said.js'

const VERBS = { cancel: ['Cancel', 'cancelled'], delete: ['Delete', 'deleted'], rerun: ['Rerun', 'begun again'] }
const PASSED = { rerun: 'had nothing to be run again' }
const SURE_FROM = 100

function inWords(query, ids) {
  if (ids) return `${plural(ids.length, 'run')} that you chose`
  const parts = [query.status ? `${words(query.status)} ` : '', query.parent ? 'children' : 'runs']
  if (query.step) parts.push(` of step ${query.step}`)
  if (query.workflow) parts.push(` of workflow ${query.workflow}`)
  if (query.q) parts.push(` with “${query.q}” in key, id or error`)
  return `All ${parts.join('')}`
}

export function Bulk({ action, ids, query, close }) {
  const [job, setJob] = useState(null)
  const [problem, setProblem] = useState(null)
  const [typed, setTyped] = useState('')
  const [verb, done] = VERBS[action]
  useEffect(() => { act('POST', 'bulk', ids ? { action, ids } : { action, query }).then(setJob, setProblem) }, [])
  const moving = job && ['counting', 'running'].includes(job.state)
  useEffect(() => {
    if (!moving) return undefined
    const timer = setTimeout(() => ask(address(`bulk/${job.job}`)).then(setJob, setProblem), 400)
    return () => clearTimeout(timer)
  }, [job])
  const over = job && ['done', 'aborted', 'failed'].includes(job.state)
  const sure = !job || job.found <= SURE_FROM || typed.replace(/\D/g, '') === String(job.found)
  const start = (event) => { event.preventDefault(); act('POST', `bulk/${job.job}/start`).then(setJob, setProblem); forget() }
  return html`<${Dialog} title=${`${verb} many`} close=${() => { if (job?.state === 'ready') act('DELETE', `bulk/${job.job}`).catch(() =>
    {}); close() }}><form class="body" onSubmit=${start}>
    <p>${inWords(query ?? {}, ids)}.</p>
    <${Refused} problem=${problem ?? job?.problem} />
    ${job && html`<p class="line"><b>${count(job.found)}</b><span class="dim">
      ${job.state === 'counting' ? 'found so far…' : `as of ${clock(job.at)}: runs that come later are not touched`}</span></p>`}
    ${job?.state === 'ready' && html`<ul class="mono">${job.samples.map((one) =>
      html`<li class="cut" key=${one.id ?? one}>${one.key ?? one.id ?? one}</li>`)}
        ${job.found > job.samples.length && html`<li class="faint">and ${count(job.found - job.samples.length)} more</li>`}</ul>`}
    ${job?.state === 'ready' && job.found > SURE_FROM &&
      html`<div class="field"><label for="sure">Type ${job.found} to go on</label>
        <input id="sure" class="input" inputmode="numeric" autocomplete="off" value=${typed}
          onInput=${(e) => setTyped(e.target.value)} /></div>`}
    ${job && (job.state === 'running' || over) && html`<div class="stack tight">
      <div class="bar fat" role="progressbar" aria-valuenow=${job.done + job.skipped + job.failed} aria-valuemax=${job.found}
        aria-label="done"><span class="t-blue" style=${{ width: `${(100 * job.done) / Math.max(1, job.found)}%` }} />
          <span class="t-grey" style=${{ width: `${(100 * job.skipped) / Math.max(1, job.found)}%` }} /></div>
      <p class="dim">${count(job.done)} ${done}, ${count(job.skipped)} ${PASSED[action] ?? 'had ended already'}${job.failed ?
        `, ${count(job.failed)} could not be` : ''}${job.state === 'aborted' ? '. Stopped: what is done stays done.' : ''}</p></div>`}
    <div class="actions">${over ? html`<button type="button" class="btn main"
      onClick=${(e) => e.target.closest('dialog').close()}>Close</button>`
      : job?.state === 'running' ? html`<button type="button" class="btn danger"
        onClick=${() => act('DELETE', `bulk/${job.job}`).then(setJob, setProblem)}>Stop</button>`
      : html`<button type="button" class="btn" onClick=${(e) => e.target.closest('dialog').close()}>Leave them</button>
        <button class="btn danger main" disabled=${job?.state !== 'ready' || !job.found || !sure}>${verb} ${job ? count(job.found) : ''}
          </button>`}</div></form></${Dialog}>`
}
