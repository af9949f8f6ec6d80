// Begin a run: a form made from the workflow's JSON Schema, and the JSON beside it. Either may be edited.
import { html, useMemo, useState } from '../parts/html.js'
import { act } from '../parts/api.js'
import { go, href } from '../parts/router.js'
import { Icon } from '../parts/icons.js'
import { Refused, tell } from '../parts/said.js'
import { Field, resolve, starting } from './schema-form.js'

const read = (text) => {
  try {
    return { value: text.trim() === '' ? null : JSON.parse(text), wrong: '' }
  } catch (error) {
    return { value: undefined, wrong: error.message }
  }
}

export function Trigger({ name, schema }) {
  const root = useMemo(() => resolve(schema ?? {}, schema ?? {}), [schema])
  const [text, setText] = useState(() => JSON.stringify(starting(root, schema), null, 2))
  const [key, setKey] = useState('')
  const [metadata, setMetadata] = useState('')
  const [problem, setProblem] = useState(null)
  const [busy, setBusy] = useState(false)
  const { value, wrong } = read(text)
  const extra = read(metadata)
  const badMetadata = metadata.trim() && (extra.wrong || (typeof extra.value !== 'object' || Array.isArray(extra.value) ?
    'it must be an object' : ''))
  const submit = async (event) => {
    event.preventDefault()
    setBusy(true)
    setProblem(null)
    try {
      const { id, created } = await act('POST', 'runs', { workflow: name, input: value, ...(key && { key }), ...(metadata.trim() &&
        { metadata: extra.value }) })
      if (!created) tell('This run existed already')
      go(href(`runs/${id}`))
    } catch (error) {
      setProblem(error)
      setBusy(false)
    }
  }
  const known = root && (root.type || root.properties || root.enum || root.anyOf)
  return html`<form class="cols" onSubmit=${submit}>
    <section class="panel"><header><h2>Input</h2><div class="end">${known ? 'as the workflow declares it' : 'the workflow takes anything'}
      </div></header><div class="body form">
      ${known ? wrong ? html`<p class="faint">Mend the JSON to go on with the form.</p>` :
        html`<${Field} schema=${root} of=${schema} value=${value}
          change=${(next) => setText(JSON.stringify(next === undefined ? null : next, null, 2))} label="" path="input" />` :
            html`<p class="faint">Write it as JSON beside.</p>`}</div></section>
    <section class="panel"><header><h2><label for="raw">As JSON</label></h2></header><div class="body form">
      <div class="field"><textarea id="raw" class="input" rows=${Math.min(24, Math.max(7, text.split('\n').length + 1))} spellcheck="false"
        aria-invalid=${Boolean(wrong)} aria-describedby="raw-wrong" value=${text} onInput=${(e) => setText(e.target.value)} />
          <div id="raw-wrong" class="wrong">${wrong}</div></div>
      <div class="field"><label for="key">Key <span class="faint">optional</span></label>
        <input id="key" class="input" autocomplete="off" value=${key} onInput=${(e) => setKey(e.target.value)} />
          <div class="hint">The same key is the same run: if it exists, it is opened.</div></div>
      <div class="field"><label for="metadata">Metadata <span class="faint">optional</span></label>
        <textarea id="metadata" class="input" rows="2" spellcheck="false" placeholder=${'{"customer": "acme"}'} value=${metadata}
          aria-invalid=${Boolean(badMetadata)} onInput=${(e) => setMetadata(e.target.value)} />
            ${badMetadata && html`<div class="wrong">${badMetadata}</div>`}</div>
      <${Refused} problem=${problem} />${problem?.rest?.run && html`<a class="link"
        href=${href(`runs/${problem.rest.run}`)}>Open the run that has this key</a>`}
      <div class="line"><button class="btn main" disabled=${busy || Boolean(wrong) || Boolean(badMetadata)}>
        <${Icon} name="play" size=${14} />${busy ? 'Beginning…' : `Trigger ${name}`}</button></div></div></section></form>`
}
