// Where we are is the address, and nothing else: path below <base>, query for filters, sort, row and tab.
// Going on keeps the scroll position and the focused row of the page that is left; back restores both.
import { Value, useValue } from './html.js'

export const base = new URL(document.baseURI).pathname.replace(/[^/]*$/, '')

function read() {
  const path = decodeURI(location.pathname.slice(base.length)).replace(/\/+$/, '')
  return { path, parts: path.split('/').filter(Boolean).map(decodeURIComponent), query: new URLSearchParams(location.search) }
}

export const route = new Value(read())
export const useRoute = () => useValue(route)

/** An address below the base: href('runs', {status: 'failed', step: null}) is "runs?status=failed". */
export function href(path, query = {}) {
  const search = query instanceof URLSearchParams ? query : new URLSearchParams()
  if (search !== query) {
    for (const [name, value] of Object.entries(query)) {
      for (const one of Array.isArray(value) ? value : [value]) {
        if (one !== null && one !== undefined && one !== '') search.append(name, one)
      }
    }
  }
  const text = search.toString()
  return base + path + (text ? `?${text}` : '')
}

function keepPlace() {
  const focused = document.activeElement?.closest?.('[data-row]')
  history.replaceState({ ...history.state, y: scrollY, row: focused?.getAttribute('data-row') ?? null }, '')
}

export function go(to, { replace = false } = {}) {
  const target = new URL(to, document.baseURI)
  if (target.href === location.href) return
  keepPlace()
  const samePage = target.pathname === location.pathname
  history[replace ? 'replaceState' : 'pushState']({}, '', target)
  route.set(read())
  if (!samePage && !replace) {
    scrollTo(0, 0)
    document.querySelector('main')?.focus({ preventScroll: true })
  }
}

/** Change some of the query and leave the rest; null takes a name away. */
export function refine(changes, { replace = true } = {}) {
  const query = new URLSearchParams(location.search)
  for (const [name, value] of Object.entries(changes)) {
    query.delete(name)
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== '') query.append(name, one)
    }
  }
  const text = query.toString()
  go(location.pathname + (text ? `?${text}` : ''), { replace })
}

function restorePlace({ y = 0, row = null } = {}) {
  let tries = 0
  const attempt = () => {
    scrollTo(0, y)
    const found = /** @type {HTMLElement | null} */ (row && document.querySelector(`[data-row="${CSS.escape(row)}"]`))
    found?.focus({ preventScroll: true })
    if ((Math.abs(scrollY - y) > 2 || (row && !found)) && tries++ < 40) setTimeout(attempt, 25)
  }
  requestAnimationFrame(attempt)
}

export function startRouter() {
  history.scrollRestoration = 'manual'
  addEventListener('popstate', () => {
    const place = history.state ?? {}
    route.set(read())
    restorePlace(place)
  })
  addEventListener('pagehide', keepPlace)
  if (history.state?.y) restorePlace(history.state)
  document.addEventListener('click', (event) => {
    const at = /** @type {Element} */ (event.target)
    const link = /** @type {HTMLAnchorElement | null | undefined} */ (at.closest?.('a[href]'))
    if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return
    if (link.target || link.hasAttribute('download') || link.origin !== location.origin || !link.pathname.startsWith(base)) return
    if (link.pathname.startsWith(`${base}api/`)) return
    event.preventDefault()
    go(link.href)
  })
}
