// What a run's steps say while it runs: how far they are, the end of their log, and the end of what they stream.
import { html, cls } from '../parts/html.js'
import { useAsk } from '../parts/api.js'
import { clock, plural } from '../parts/format.js'
import { Bones, Empty, Note, Trouble } from '../parts/said.js'

const TONES = { warning: 't-orange', error: 't-red', critical: 't-red' }
const again = (one) => (one.attempt > 1 ? html`<span class="faint">attempt ${one.attempt}</span> ` : null)

const Progress = ({ step, told }) => html`<div class="line"><b>${step}</b>
  <progress max="1" value=${told.fraction} aria-label=${`Progress of ${step}`}></progress>
  <span>${Math.round(100 * told.fraction)} %</span><span class="dim">${told.text}</span></div>`

const More = ({ count, what }) => count > 0 && html`<p class="dim">${plural(count, what)} came before these.</p>`

export function Said({ id }) {
  const { data, problem, at, loading, again: retry } = useAsk(`runs/${id}/said`, {}, { topic: `said:${id}`, every: 500 })
  if (loading) return html`<${Bones} />`
  const steps = Object.entries(data?.progress ?? {})
  const silent = data && !data.withheld && !steps.length && !data.lines.length && !data.chunks.length
  return html`<div class="stack tight"><${Trouble} problem=${problem} at=${at} again=${retry} />
    ${data?.withheld && html`<${Note}>You may see how far its steps are, and not what they log and stream.</${Note}>`}
    ${silent && html`<div class="panel"><${Empty} art="calm" title="Its steps have said nothing">
      They may, by <code>ctx.stream</code>, <code>ctx.progress</code> and <code>ctx.log</code>.</${Empty}></div>`}
    ${steps.length > 0 && html`<section class="panel" aria-label="Progress"><div class="body stack">
      ${steps.map(([step, told]) => html`<${Progress} key=${step} step=${step} told=${told} />`)}</div></section>`}
    ${data?.lines.length > 0 && html`<section class="panel" aria-label="Log"><div class="body">
      <${More} count=${data.more_lines} what="line" />
      <ol class="mono" style="list-style:none;margin:0;padding:0" tabindex="0">${data.lines.map((line, n) => html`<li
        key=${`${line.sequence}.${n}`} style="white-space:pre-wrap"><span class="faint">${clock(line.at, { ms: true })}</span>
        <span class=${cls(TONES[line.level])}> ${line.level}</span> <span class="dim">${line.step}</span> ${again(line)}${line.message}
        <span class="dim">${Object.entries(line.fields).map(([name, value]) => ` ${name}=${value}`)}</span></li>`)}</ol></div></section>`}
    ${data?.chunks.length > 0 && html`<section class="panel" aria-label="Streamed"><div class="body">
      <${More} count=${data.more_chunks} what="chunk" />
      <ol class="mono" style="list-style:none;margin:0;padding:0" tabindex="0">${data.chunks.map((chunk) => html`<li
        key=${chunk.sequence} style="white-space:pre-wrap"><span class="faint">${chunk.step} ${chunk.index}</span>
        ${again(chunk)} ${chunk.text}</li>`)}</ol></div></section>`}</div>`
}
