// What differs between two JSON values, a line for each place, and between two texts, line by line: no more than can be read.
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

const MOST_LINES = 600

/** Lines of two texts: {kind: 'same' | 'removed' | 'added', text}, by their longest common part; null where they are too long. */
export function lines(before, after) {
  const [a, b] = [before.split('\n'), after.split('\n')]
  if (a.length > MOST_LINES || b.length > MOST_LINES) return null
  const common = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1))
  for (let n = a.length - 1; n >= 0; n -= 1) {
    for (let m = b.length - 1; m >= 0; m -= 1) {
      common[n][m] = a[n] === b[m] ? common[n + 1][m + 1] + 1 : Math.max(common[n + 1][m], common[n][m + 1])
    }
  }
  const found = []
  let [n, m] = [0, 0]
  while (n < a.length || m < b.length) {
    if (n < a.length && m < b.length && a[n] === b[m]) {
      found.push({ kind: 'same', text: a[n] })
      n += 1
      m += 1
    } else if (m >= b.length || (n < a.length && common[n + 1][m] >= common[n][m + 1])) {
      found.push({ kind: 'removed', text: a[n] })
      n += 1
    } else {
      found.push({ kind: 'added', text: b[m] })
      m += 1
    }
  }
  return found
}
