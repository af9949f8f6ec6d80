// What a step waits for beside its children: events, signals, or a time; and since when.
import { html } from './html.js'
import { href } from './router.js'
import { Took, Until, When } from './time.js'

const OPERATORS = { '==': '=', '!=': '≠', '<=': '≤', '>=': '≥' }
const named = (wait) => (wait.signal ? `signal ${wait.topic}` : `${wait.topic}${wait.key ? ` (${wait.key})` : ''}`)
const waits = (step) => (step.status === 'waiting' ? step.join?.waits ?? [] : [])

/** In a few words, for a node of the graph; null where it waits for neither events nor a time. */
export function waitWords(step) {
  const found = waits(step)
  if (found.length) return `waits for ${named(found[0])}${found.length > 1 ? ` or ${found.length - 1} more` : ''}`
  return step.sleeps_until ? html`sleeps, goes on <${Until} at=${step.sleeps_until} />` : null
}

/** On one line, for a row. */
export function WaitLine({ step }) {
  const found = waits(step)
  if (!found.length) return step.sleeps_until ? html`<span class="dim cut">sleeps, goes on <${Until} at=${step.sleeps_until} /></span>` : null
  return html`<span class="dim cut waits" title=${found.map(named).join(' or ')}>waits for <b>${named(found[0])}</b>
    ${found.length > 1 ? ` or ${found.length - 1} more` : ''}${step.join.since ? html`, for <${Took} started=${step.join.since} />` : null}
    ${step.join.until ? html`, gives up <${Until} at=${step.join.until} />` : null}</span>`
}

/** All of it, for the drawer of a step. */
export function WaitFacts({ step }) {
  const found = waits(step)
  if (!found.length && !step.sleeps_until) return null
  return html`<section class="stack tight"><h3>${found.length > 1 ? 'Waits for one of' : found.length ? 'Waits for' : 'Sleeps'}</h3>
    ${found.length > 0 && html`<ul class="times">${found.map((wait, n) => html`<li key=${n}><span>${wait.signal ?
      html`signal <b>${wait.topic}</b>` : html`<a class="link" href=${href('events', { topic: wait.topic, key: wait.key })}>${wait.topic}</a>`}
      ${wait.key ? html` <span class="faint">key</span> <code>${wait.key}</code>` : null}</span>
      ${wait.conditions.length > 0 && html`<span class="mono dim">${wait.conditions.map(([path, operator, value]) =>
        `${path} ${OPERATORS[operator] ?? operator} ${JSON.stringify(value)}`).join(' and ')}</span>`}</li>`)}</ul>`}
    <dl class="facts">${step.join?.since && html`<dt>Since</dt><dd><${When} at=${step.join.since} full /> <span class="faint">· for <${Took} started=${step.join.since} /></span></dd>`}
      ${(step.join?.until ?? step.sleeps_until) && html`<dt>${found.length ? 'Gives up' : 'Goes on'}</dt><dd>
        <${Until} at=${step.join?.until ?? step.sleeps_until} /></dd>`}</dl></section>`
}
