// What differs between two JSON values: a line for each place, and no more than can be read.
const MOST = 400

const isTree = (value) => value !== null && typeof value === 'object'
const kindOf = (value) => (Array.isArray(value) ? 'list' : isTree(value) ? 'object' : 'leaf')

/** Places that differ: {path, kind: 'changed' | 'added' | 'removed', before, after}; `more` where there are too many. */
export function diff(before, after) {
  const found = []
  let more = false
  const add = (one) => {
    if (found.length < MOST) found.push(one)
    else more = true
  }
  const compare = (a, b, path) => {
    if (more || Object.is(a, b)) return
    const kind = kindOf(a)
    if (kind !== kindOf(b) || kind === 'leaf') {
      add({ path, kind: 'changed', before: a, after: b })
      return
    }
    const place = (name) => (kind === 'list' ? `${path}[${name}]` : `${path}.${name}`)
    const names = kind === 'list' ? [...Array(Math.max(a.length, b.length)).keys()] : [...new Set([...Object.keys(a), ...Object.keys(b)])]
    for (const name of names) {
      if (!Object.hasOwn(b, name)) add({ path: place(name), kind: 'removed', before: a[name] })
      else if (!Object.hasOwn(a, name)) add({ path: place(name), kind: 'added', after: b[name] })
      else compare(a[name], b[name], place(name))
    }
  }
  compare(before, after, '$')
  return { found, more }
}
