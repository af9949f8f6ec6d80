// What went in, and what came out; beside those of another run of the workflow, what differs.
import { html, useEffect, useState } from '../parts/html.js'
import { askHead, meta, useAsk } from '../parts/api.js'
import { href, refine, useRoute } from '../parts/router.js'
import { nameOf, preview, shortId, when, words } from '../parts/format.js'
import { diff } from '../parts/diff.js'
import { Icon } from '../parts/icons.js'
import { StoredValue } from '../parts/json.js'
import { useKeys } from '../parts/keys.js'
import { Bones, Note, Trouble } from '../parts/said.js'

const NO_OUTPUT = { failed: 'It has failed: there is no output.', cancelled: 'It was cancelled: there is no output.', timed_out:
  'Its time was over: there is no output.' }
const HEAD = 1_048_576
const ID = /^[0-9a-f]{32}$/

export function Values({ id, run }) {
  const { query } = useRoute()
  const other = query.get('with') ?? ''
  const known = ID.test(other) && other !== id
  const there = useAsk(known ? `runs/${other}` : null, {})
  useKeys({ '=': () => { const box = document.getElementById('compare'); box?.focus(); return Boolean(box) } })
  if (meta.now && !meta.now.access.payloads) return html`<${Note}>Inputs and outputs are not shown to you here.</${Note}>`
  return html`<div class="stack tight"><${Compare} id=${id} run=${run} other=${other} />
    ${known ? there.problem ? html`<${Trouble} problem=${there.problem} again=${there.again} />` : there.loading ? html`<${Bones} />` :
      html`<div class="two"><${Differences} key=${`in ${other}`} title="Input" paths=${[other, id].map((one) => `runs/${one}/input`)} />
        <${Differences} key=${`out ${other}`} title="Output" paths=${[there.data.run, run].map((one) =>
          (one.status === 'succeeded' ? `runs/${one.id}/output` : null))} ids=${[other, id]} /></div>` :
      html`<div class="two"><${StoredValue} path=${`runs/${id}/input`} title="Input" absent="The input is not stored any more." />
    ${run.status !== 'succeeded' ? html`<section class="panel"><header><h2>Output</h2></header><p class="none">
      ${NO_OUTPUT[run.status] ?? 'It has not ended yet.'}</p></section>` :
        html`<${StoredValue} path=${`runs/${id}/output`} title="Output" absent="No output is stored." />`}</div>`}</div>`
}

/** Chooses the other run: one of the newest of the workflow, a sibling, or any by its id. */
function Compare({ id, run, other }) {
  const [wrong, setWrong] = useState('')
  const siblings = useAsk(run.parent ? `runs/${run.parent}/children` : 'runs', run.parent ? { workflow: run.workflow, limit: 20 } :
    { workflow: run.workflow, limit: 20 }).data?.items ?? []
  const choose = (text) => {
    const given = text.trim().toLowerCase()
    const bad = given && !ID.test(given) ? 'that is no id of a run' : given === id ? 'that is this run' : ''
    setWrong(bad)
    if (!bad) refine({ with: given || null })
  }
  return html`<div class="line wrap tools"><label for="compare" class="dim">Compare with</label>
    <input id="compare" class="input mono grow compare" list="compare-runs" placeholder="the id of another run" autocomplete="off"
      key=${other} defaultValue=${other} aria-invalid=${Boolean(wrong)} onChange=${(e) => choose(e.target.value)} /><kbd>=</kbd>
    <datalist id="compare-runs">${siblings.filter((one) => one.id !== id).map((one) => html`<option key=${one.id} value=${one.id}>
      ${`${nameOf(one)}, ${words(one.status)}, ${when(one.triggered ?? one.queued)}`}</option>`)}</datalist>
    ${wrong && html`<span class="st t-red">${wrong}</span>`}
    ${other && html`<a class="btn" href=${href(`runs/${other}/values`)}>Open that run</a><button class="btn"
      onClick=${() => refine({ with: null })}><${Icon} name="close" size=${12} />Compare no more</button>`}</div>`
}

function useValues(paths) {
  const [state, set] = useState({})
  useEffect(() => {
    const control = new AbortController()
    Promise.all(paths.map((path) => path === null ? { problem: 'has none: it has not succeeded' } : askHead(path, HEAD, control.signal).then(({ text, size }) => {
      if (size > HEAD) return { problem: 'has one that is too large to compare here' }
      return { value: JSON.parse(text) }
    }).catch((problem) => {
      if (problem.name === 'AbortError') throw problem
      return { problem: problem.status === 404 ? 'has none that is stored' : `has one that cannot be read: ${problem.detail || problem}` }
    }))).then(([before, after]) => set({ before, after }), () => {})
    return () => control.abort()
  }, paths)
  return state
}

const SIGN = { changed: '~', added: '+', removed: '−' }
const WORD = { changed: 'differs', added: 'only here', removed: 'only there' }

function Differences({ title, paths, ids = paths.map((path) => path.split('/')[1]) }) {
  const { before, after } = useValues(paths)
  if (!before) return html`<${Bones} rows=${3} />`
  const problems = [before.problem && `The other run ${before.problem}.`, after.problem && `This run ${after.problem}.`]
    .filter(Boolean)
  const { found, more } = problems.length ? { found: [], more: false } : diff(before.value, after.value)
  return html`<section class="panel" aria-label=${`${title}, compared`}><header><h2>${title}</h2><div class="end">
    ${problems.length ? '' : found.length ? `${found.length}${more ? ' or more' : ''} places differ` : 'the same'}</div></header>
    ${problems.length > 0 ? html`<p class="none">${problems.join(' ')}</p>` : found.length === 0 ?
      html`<p class="none">Both runs have the same ${title.toLowerCase()}.</p>` : html`<ul class="diff">${found.map((one) =>
        html`<li key=${one.path} class=${one.kind}><span class="sign" title=${WORD[one.kind]}>${SIGN[one.kind]}
          <span class="hidden">${WORD[one.kind]}</span></span><code class="cut" title=${one.path}>${one.path}</code>
          ${one.kind !== 'added' && html`<del>${preview(JSON.stringify(one.before), 300)}</del>`}
          ${one.kind !== 'removed' && html`<ins>${preview(JSON.stringify(one.after), 300)}</ins>`}</li>`)}
        ${more && html`<li class="faint">There are more.</li>`}</ul>`}
    <p class="foot faint">− the run ${shortId(ids[0])}, + this run</p></section>`
}
