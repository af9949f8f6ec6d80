// Fields from a JSON Schema, as msgspec and pydantic write them: $ref, anyOf with null, enum, objects, lists, bounds.
// What a form cannot show well is edited as JSON.
import { html, useState } from '../parts/html.js'
import { Icon } from '../parts/icons.js'

/** A schema with its reference followed. */
export function resolve(schema, of, depth = 0) {
  if (!schema?.$ref || depth > 8) return schema ?? {}
  const found = schema.$ref.replace(/^#\//, '').split('/').reduce((at, name) => at?.[name.replaceAll('~1', '/').replaceAll('~0', '~')], of)
  const { $ref, ...rest } = schema
  return { ...resolve(found, of, depth + 1), ...rest }
}

const optional = (schema) => {
  const several = schema.anyOf ?? schema.oneOf
  if (!several || !several.some((one) => one.type === 'null')) return null
  const left = several.filter((one) => one.type !== 'null')
  return left.length === 1 ? left[0] : null
}

/** What a field begins with: its default, or the emptiest value that fits. */
export function starting(given, of, depth = 0) {
  const schema = resolve(given, of)
  if (schema.default !== undefined) return schema.default
  if (schema.const !== undefined) return schema.const
  if (schema.enum) return schema.enum[0]
  if (optional(schema) || depth > 5) return null
  if (schema.anyOf) return starting(schema.anyOf[0], of, depth + 1)
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type
  if (type === 'object' || schema.properties) {
    const required = schema.required ?? Object.keys(schema.properties ?? {})
    return Object.fromEntries(required.filter((name) => schema.properties?.[name]).map((name) => [name, starting(schema.properties[name],
      of, depth + 1)]))
  }
  return { array: [], string: '', integer: schema.minimum ?? 0, number: schema.minimum ?? 0, boolean: false }[type] ?? null
}

function AsJson({ id, value, change }) {
  const [text, setText] = useState(JSON.stringify(value ?? null))
  const [wrong, setWrong] = useState('')
  const edit = (event) => {
    setText(event.target.value)
    try {
      change(JSON.parse(event.target.value))
      setWrong('')
    } catch (error) {
      setWrong(error.message)
    }
  }
  return html`<textarea id=${id} class="input" rows="2" spellcheck="false" aria-invalid=${Boolean(wrong)} value=${text} onInput=${edit} />
    ${wrong && html`<div class="wrong">${wrong}</div>`}`
}

function Items({ schema, of, value, change, path }) {
  const list = Array.isArray(value) ? value : []
  const item = schema.items ?? schema.prefixItems?.[0] ?? {}
  return html`<div class="stack tight">${list.slice(0, 50).map((one, n) =>
    html`<div class="line" key=${n}><div class="grow">
      <${Field} schema=${item} of=${of} value=${one} label=${`${n + 1}`} bare path=${`${path}.${n}`}
        change=${(next) => change(list.map((old, at) => (at === n ? next : old)))} /></div>
      <button type="button" class="btn quiet icon small" aria-label=${`Take item ${n + 1} away`}
        onClick=${() => change(list.filter((_, at) => at !== n))}><${Icon} name="close" size=${12} /></button></div>`)}
    ${list.length > 50 && html`<p class="faint">${list.length - 50} more: edit them as JSON.</p>`}<div>
      <button type="button" class="btn small" onClick=${() => change([...list, starting(item, of)])}>Add one</button></div></div>`
}

function wrongOf(schema, value) {
  if (typeof value === 'number') {
    if (schema.minimum !== undefined && value < schema.minimum) return `at least ${schema.minimum}`
    if (schema.exclusiveMinimum !== undefined && value <= schema.exclusiveMinimum) return `more than ${schema.exclusiveMinimum}`
    if (schema.maximum !== undefined && value > schema.maximum) return `at most ${schema.maximum}`
    if (schema.type === 'integer' && !Number.isInteger(value)) return 'a whole number'
  }
  if (typeof value === 'string' && schema.minLength > value.length) return `at least ${schema.minLength} characters`
  return ''
}

export function Field({ schema: given, of, value, change, label, path, bare = false, required = true }) {
  const schema = resolve(given, of)
  const inner = optional(schema)
  const id = `field-${path}`
  const type = Array.isArray(schema.type) ? schema.type.find((one) => one !== 'null') : schema.type
  const title = label && !bare ? html`<label for=${id}>${label}${!required && html` <span class="faint">optional</span>`}</label>` : null
  const hint = schema.description && html`<div class="hint">${schema.description}</div>`
  if (inner) {
    return html`<div class="field"><label class="toggle">
      <input type="checkbox" checked=${value !== null && value !== undefined}
        onChange=${(e) => change(e.target.checked ? starting(inner, of) : null)} />${label || 'given'}</label>
      ${value !== null && value !== undefined && html`<${Field} schema=${inner} of=${of} value=${value} change=${change} label=${label}
        bare path=${path} />`}${hint}</div>`
  }
  if (type === 'object' && schema.properties) {
    const object = value && typeof value === 'object' ? value : {}
    const need = new Set(schema.required ?? [])
    const fields = Object.entries(schema.properties).sort(([a], [b]) => Number(need.has(b)) - Number(need.has(a))).map(([name, one]) =>
      html`<${Field} key=${name} schema=${one} of=${of} value=${name in object ? object[name] : resolve(one, of).default} label=${name}
        path=${`${path}.${name}`} required=${need.has(name)} change=${(next) => change({ ...object, [name]: next })} />`)
    return label ? html`<fieldset><legend>${label}</legend>${hint}${fields}</fieldset>` : html`${hint}${fields}`
  }
  const shown = (control) => html`<div class="field">${title}${control}${hint}
    ${wrongOf(schema, value) && html`<div class="wrong">${wrongOf(schema, value)}</div>`}</div>`
  const named = bare || !label ? { 'aria-label': label || 'input' } : {}
  if (schema.enum) return shown(html`<select id=${id} class="input" ...${named} value=${JSON.stringify(value)}
    onChange=${(e) => change(JSON.parse(e.target.value))}>
      ${schema.enum.map((one) => html`<option key=${String(one)} value=${JSON.stringify(one)}>${String(one)}</option>`)}</select>`)
  if (type === 'boolean') return html`<div class="field"><label class="toggle">
    <input id=${id} type="checkbox" checked=${Boolean(value)} onChange=${(e) => change(e.target.checked)} />${label || 'yes'}</label>
      ${hint}</div>`
  if (type === 'integer' || type === 'number') return shown(html`<input id=${id} class="input" ...${named} type="number"
    step=${type === 'integer' ? 1 : 'any'} min=${schema.minimum} max=${schema.maximum} value=${value ?? ''}
      onInput=${(e) => change(e.target.value === '' ? null : Number(e.target.value))} />`)
  if (type === 'string') return shown(html`<input id=${id} class="input" ...${named} type=${schema.format === 'date' ? 'date' : 'text'}
    value=${value ?? ''} autocomplete="off" onInput=${(e) => change(e.target.value)} />`)
  if (type === 'array' && !schema.prefixItems) return html`<div class="field"><span class="label">${bare ? '' : label}</span>${hint}
    <${Items} schema=${schema} of=${of} value=${value} change=${change} path=${path} /></div>`
  return shown(html`<${AsJson} id=${id} value=${value} change=${change} />`)
}
