// A window on very many rows: what is seen is in the document, and nothing else. Rows are read in pages by their place.
// Browsers end at some 17 million pixels; above 14 the scrollbar stands for more than one pixel a pixel, and the wheel
// still moves line by line.
import { html, cls, useEffect, useLayoutEffect, useRef, useState } from './html.js'
import { count } from './format.js'
import { useKeys } from './keys.js'

const TALLEST = 14_000_000
const PAGE = 100
const KEPT = 24
const MOST_CHOSEN = 2000

/** Pages of rows: `load(offset, limit, signal)` gives {items, total}. What is far away is forgotten. */
export function usePages(load, key, total) {
  const [, draw] = useState(0)
  const state = useRef(null)
  if (state.current?.key !== key) {
    state.current?.waiting.forEach((one) => one.abort())
    state.current = { key, pages: new Map(), waiting: new Map(), problem: null, total: null, old: new Set(), tries: 0,
      again: 0 }
  }
  const s = state.current
  const want = async (number) => {
    if (s.waiting.has(number) || Date.now() < s.again) return
    const control = new AbortController()
    s.waiting.set(number, control)
    try {
      const found = await load(number * PAGE, PAGE, control.signal)
      s.pages.delete(number)
      s.pages.set(number, found.items)
      s.old.delete(number)
      if (s.pages.size > KEPT) s.pages.delete(s.pages.keys().next().value)
      if (found.total !== null && found.total !== undefined) s.total = found.total
      else if (found.next === null) s.total = Math.max(s.total ?? 0, number * PAGE + found.items.length)
      s.problem = null
      s.tries = 0
      s.told = found
      if (found.loaded < 1) { // an order or a search is being made: the rows come when it is whole
        s.old.add(number)
        setTimeout(() => draw((n) => n + 1), 400)
      }
    } catch (error) {
      if (error.name !== 'AbortError') { // a page that cannot be read is asked for again, but not at once
        s.problem = error
        s.tries += 1
        const pause = Math.min(20_000, 500 * 2 ** s.tries) * (0.6 + Math.random() * 0.6)
        s.again = Date.now() + pause
        setTimeout(() => draw((n) => n + 1), pause + 1)
      }
    }
    s.waiting.delete(number)
    if (state.current === s) draw((n) => n + 1)
  }
  return {
    row: (index) => s.pages.get(Math.floor(index / PAGE))?.[index % PAGE],
    total: Math.max(total ?? 0, s.total ?? 0, 0),
    known: s.total !== null || s.pages.size > 0,
    problem: s.problem,
    told: s.told,
    /** See that the rows from..to are there; ask for nothing that has moved out of sight meanwhile. */
    show(from, to) {
      const first = Math.floor(Math.max(0, from) / PAGE)
      const last = Math.floor(Math.max(0, to) / PAGE)
      for (const [number, control] of s.waiting) if (number < first - 1 || number > last + 1) control.abort()
      for (let number = first; number <= last; number += 1) if (!s.pages.has(number) || s.old.has(number)) want(number)
    },
    /** Ask again for what is seen: rows have changed. */
    refresh() {
      s.again = 0
      s.pages.forEach((_, number) => s.old.add(number))
      draw((n) => n + 1)
    },
    find: (test) => { for (const [number,
      rows] of s.pages) { const at = rows.findIndex(test); if (at >= 0) return number * PAGE + at } return -1 },
  }
}

export function VirtualGrid({ label, columns, pages, height = 28, at, onAt, cursor, onCursor, idOf, onOpen, onPeek, onPick, picked, empty,
  above = 300, head }) {
  const port = useRef(null)
  const anchor = useRef(-1)
  const box = useRef({ top: at * height, set: 0 })
  const [view, setView] = useState({ top: at * height, tall: 600 })
  const [moving, setMoving] = useState(false)
  const total = pages.total
  const real = total * height
  const drawn = Math.min(real, TALLEST)
  const room = Math.max(0, real - view.tall)
  const scale = drawn - view.tall > 0 ? room / (drawn - view.tall) : 1
  const first = Math.max(0, Math.min(Math.floor(view.top / height), total - 1))
  const shown = Math.ceil(view.tall / height) + 1
  const from = Math.max(0, first - 4)
  const to = Math.min(total, first + shown + 4)

  const place = (top, fromScroll = false) => {
    const next = Math.max(0, Math.min(top, Math.max(0, total * height - view.tall)))
    box.current.top = next
    if (!fromScroll && port.current) {
      box.current.set = Math.round(next / scale)
      port.current.scrollTop = box.current.set
    }
    setView((old) => (old.top === next ? old : { ...old, top: next }))
  }
  const reveal = (index) => {
    const top = index * height
    if (top < box.current.top) place(top)
    else if (top + height > box.current.top + view.tall) place(top + height - view.tall)
  }
  useLayoutEffect(() => {
    const measure = () => {
      const node = port.current
      if (!node) return
      const bar = `${node.offsetWidth - node.clientWidth}px` // all is read before anything is written: one layout
      const tall = node.clientHeight
      const grid = node.parentElement.style
      if (grid.getPropertyValue('--bar') !== bar) grid.setProperty('--bar', bar)
      setView((old) => (tall && tall !== old.tall ? { ...old, tall } : old))
    }
    const observer = new ResizeObserver(measure)
    observer.observe(port.current)
    measure()
    return () => observer.disconnect()
  }, [])
  useLayoutEffect(() => { // rows that arrive above do not move what is seen; a pasted place is gone to once it exists
    if (total && Math.abs(box.current.top / scale - port.current.scrollTop) > 1) {
      box.current.set = Math.round(box.current.top / scale)
      port.current.scrollTop = box.current.set
    }
  }, [drawn, scale])
  useLayoutEffect(() => { // what is still scrolled over is not asked for; all else at once
    if (!moving) {
      pages.show(from, to - 1)
      return undefined
    }
    const timer = setTimeout(() => pages.show(from, to - 1), 70)
    return () => clearTimeout(timer)
  })
  useEffect(() => {
    if (!moving) return undefined
    const timer = setTimeout(() => { setMoving(false); onAt?.(Math.floor(box.current.top / height)) }, 260)
    return () => clearTimeout(timer)
  }, [view.top, moving])
  const scrolled = () => {
    const top = port.current.scrollTop
    if (Math.abs(top - box.current.set) < 1) return
    box.current.set = top
    setMoving(true)
    place(top * scale, true)
  }
  useEffect(() => {
    const wheel = (event) => {
      if (scale <= 1.01 || event.ctrlKey) return
      event.preventDefault()
      setMoving(true)
      place(box.current.top + (event.deltaMode ? event.deltaY * height : event.deltaY))
    }
    const node = port.current
    node.addEventListener('wheel', wheel, { passive: false })
    return () => node.removeEventListener('wheel', wheel)
  })
  const jump = (to) => {
    if (!total) return false
    const next = Math.max(0, Math.min(total - 1, to))
    onCursor(next)
    reveal(next)
    return true
  }
  const move = (by) => jump(cursor < 0 ? (by > 0 ? first : first + shown - 2) : cursor + by)
  /** Choose one row, or, with `far`, all from the one that was chosen last: of those that were read. */
  const take = (index, far = false) => {
    const [from, to] = far && anchor.current >= 0 ? [Math.min(anchor.current, index), Math.max(anchor.current, index)] : [index, index]
    const found = []
    for (let n = from; n <= to && found.length < MOST_CHOSEN; n += 1) if (pages.row(n)) found.push(pages.row(n))
    anchor.current = index
    onPick(found, far)
  }
  const current = () => (cursor >= 0 ? pages.row(cursor) : undefined)
  const pageful = Math.max(1, Math.floor(view.tall / height) - 1)
  useKeys({
    j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1), PageDown: () => move(pageful), PageUp: () =>
      move(-pageful),
    Home: () => jump(0), End: () => jump(total - 1),
    Enter: () => (current() ? onOpen(current(), cursor) : false),
    ' ': () => (current() && onPeek ? onPeek(current(), cursor) : false),
    x: () => (current() && onPick ? take(cursor) : false),
    X: () => (current() && onPick ? take(cursor, true) : false),
  })
  const all = onPick && picked ? [{ id: 'pick', label: '', head: html`<span class="hidden">Chosen</span>`, width: '16px', className:
    'wide', cell: (row, index) => html`<input type="checkbox" tabindex="-1" aria-label="Choose this row"
      checked=${picked.has(idOf(row))} onClick=${(event) => take(index, event.shiftKey)} />` }, ...columns] : columns
  const template = all.map((column) => column.width ?? 'minmax(0, 1fr)').join(' ')
  const rows = []
  for (let index = from; index < to; index += 1) {
    const row = pages.row(index)
    rows.push(html`<div key=${index} id=${`row-${index}`} role="row" aria-rowindex=${index + 2} data-row=${row && idOf(row)}
      aria-selected=${row && picked ? picked.has(idOf(row)) : undefined}
      class=${cls('row', index === cursor && 'on')} style=${{ transform: `translateY(${index * height - view.top}px)` }}
        data-to=${row ? '' : undefined}
      onClick=${(event) => { if (row && !event.target.closest('a, button, input')) { onCursor(index); onOpen(row, index, event) } }}>
      ${row ? all.map((column) => html`<div key=${column.id} role="gridcell" class=${cls(column.num && 'num', column.className)}>
        ${column.cell(row, index)}</div>`)
        : html`<div role="gridcell" class="faint num">${count(index)}</div><div role="gridcell">
          <span class="bone" style=${{ width: `${40 + ((index * 31) % 50)}%` }} /></div>`}</div>`)
  }
  return html`<div class="grid vgrid" role="grid" aria-label=${label} aria-rowcount=${total + 1} aria-colcount=${all.length}
    style=${{ '--cols': template, '--above': `${above}px` }}>
    ${head}
    <div class="head" role="row" aria-rowindex="1">
      ${all.map((column) => html`<div key=${column.id} role="columnheader" class=${cls(column.num && 'num')}
        aria-sort=${column.sorted}>${column.head ?? column.label}</div>`)}</div>
    <div class="port" role="rowgroup" ref=${port} tabindex="0" aria-label=${`${label}, ${count(total)} rows`}
      aria-activedescendant=${cursor >= from && cursor < to ? `row-${cursor}` : undefined} onScroll=${scrolled}>
      ${total ? html`<div role="presentation" style=${{ height: `${drawn}px` }}>
        <div class="stage" role="presentation" style=${{ height: `${Math.min(view.tall, drawn)}px` }}>${rows}</div></div>` :
          html`<div class="void" role="presentation">${empty}</div>`}
    </div>
    ${total > shown && html`<div class=${cls('place', moving && 'seen')} aria-hidden="true">
      ${count(first + 1)}–${count(Math.min(total, first + shown - 1))} of ${count(total)}</div>`}
  </div>`
}
