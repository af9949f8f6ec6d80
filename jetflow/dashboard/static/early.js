// Asks for what the page needs first while its modules are still on their way: parts/api.js finds the answers here.
// It says the same addresses as the views do; where it does not, they ask for themselves.
(() => {
  const early = new Map()
  Object.assign(window, { jetflowEarly: early })
  const query = new URLSearchParams(location.search)
  const [page, id, tab] = location.pathname.slice(new URL(document.baseURI).pathname.length).split('/')
  const ask = (path) => {
    const url = new URL(`api/v1/${path}`, document.baseURI).href
    const answer = fetch(url, { headers: { Accept: 'application/json' } })
    answer.catch(() => {}) // whoever takes it sees the error
    early.set(url, answer)
  }
  ask('meta')
  if (page === '') ask(`overview?window=${encodeURIComponent(query.get('window') || '3600')}`)
  if (page !== 'runs' || !/^[0-9a-f]{32}$/.test(id ?? '')) return
  ask(`runs/${id}`)
  if (tab !== 'children') return
  const wanted = new URLSearchParams()
  for (const name of ['status', 'step', 'workflow', 'q', 'sort']) if (query.get(name)) wanted.append(name, query.get(name))
  wanted.append('offset', String(Math.floor(Math.max(0, Number(query.get('at') || 0) - 4) / 100) * 100))
  wanted.append('limit', '100')
  ask(`runs/${id}/children?${wanted}`)
})()
