// A list of a page: role=grid, j and k, Enter, x; the row that is chosen is known by its id, so nothing moves it.
import { html, cls, useRef } from './html.js'
import { Icon } from './icons.js'
import { go } from './router.js'
import { useKeys } from './keys.js'

/**
 * `columns`: {id, label, width, num, sort, cell(row), className}. `rows` have ids by `idOf`; `to(row)` is where Enter goes.
 * `picked` is a set of ids, and `onPick(ids)` takes the next one: `x` chooses, Shift+x from the one before on.
 * `sort` is the one in force ("-took"), `onSort(id)` is called by the head.
 */
export function Grid({ label, columns, rows, idOf = (row) => row.id, to, onSpace, sort, onSort, foot, total, keys = true, picked, onPick,
  fresh }) {
  const ref = useRef(null)
  const anchor = useRef(null)
  const all = () => [...(ref.current?.querySelectorAll('[data-row]') ?? [])]
  const move = (by) => {
    const found = all()
    const at = found.indexOf(document.activeElement)
    const next = found[at < 0 ? (by > 0 ? 0 : found.length - 1) : Math.max(0, Math.min(found.length - 1, at + by))]
    next?.focus()
    next?.scrollIntoView({ block: 'nearest' })
    return Boolean(next)
  }
  /** Choose one row, or, with `far`, all from the one that was chosen last. */
  const take = (id, far = false) => {
    const ids = rows.map(idOf)
    const [from, to] = [ids.indexOf(anchor.current), ids.indexOf(id)]
    const next = new Set(picked)
    if (far && from >= 0) for (let n = Math.min(from, to); n <= Math.max(from, to); n += 1) next.add(ids[n])
    else if (!next.delete(id)) next.add(id)
    anchor.current = id
    onPick(next)
  }
  const current = () => rows.find((row) => idOf(row) === document.activeElement?.getAttribute('data-row'))
  useKeys({
    j: () => move(1), k: () => move(-1), ArrowDown: () => current() && move(1), ArrowUp: () => current() && move(-1),
    Enter: () => { const row = current(); return row && to ? go(to(row)) : false },
    ' ': () => { const row = current(); return row && onSpace ? onSpace(row) : false },
    x: () => { const row = current(); return row && onPick ? take(idOf(row)) : false },
    X: () => { const row = current(); return row && onPick ? take(idOf(row), true) : false },
  }, keys)
  const shown = onPick ? [{ id: 'pick', label: '', hidden: 'Chosen', width: '16px', className: 'wide', cell: (row) => html`<input
    type="checkbox" tabindex="-1" aria-label="Choose this row" checked=${Boolean(picked?.has(idOf(row)))}
    onClick=${(event) => { event.stopPropagation(); take(idOf(row), event.shiftKey) }} />` }, ...columns] : columns
  const template = shown.map((column) => column.width ?? 'minmax(0, 1fr)').join(' ')
  const first = rows[0] && idOf(rows[0])
  return html`<div class="grid" ref=${ref} style=${{ '--cols': template }}>
    <div role="grid" aria-label=${label} aria-rowcount=${total ?? rows.length}>
    <div class="head" role="row">${shown.map((column) => html`<div key=${column.id} role="columnheader" class=${cls(column.num && 'num')}
      aria-sort=${!column.sort ? undefined : sort === column.sort ? 'ascending' : sort === `-${column.sort}` ? 'descending' : undefined}>
      ${column.sort && onSort ? html`<button onClick=${() => onSort(sort === `-${column.sort}` ? column.sort : `-${column.sort}`)}>
        ${column.label}
        ${sort?.endsWith(column.sort) && html`<${Icon} name=${sort.startsWith('-') ? 'down' : 'up'} size=${12} />`}</button>` :
          column.label || html`<span class="hidden">${column.hidden}</span>`}</div>`)}</div>
    <div class="rows" role="rowgroup">${rows.map((row) => {
      const id = idOf(row)
      const target = to?.(row)
      return html`<div key=${id} role="row" class=${cls('row', fresh?.has(id) && 'fresh')} data-row=${id} data-to=${target || undefined}
        tabindex=${id === first ? 0 : -1}
        aria-selected=${onPick ? Boolean(picked?.has(id)) : undefined} onClick=${(event) => open(event, target)}
          onAuxClick=${(event) => event.button === 1 && target && window.open(target)}>
        ${shown.map((column) => html`<div key=${column.id} role="gridcell" data-label=${column.small || undefined}
          class=${cls(column.num && 'num', column.className)}>${column.cell(row)}</div>`)}</div>`
    })}</div></div>
    ${foot && html`<div class="foot">${foot}</div>`}</div>`
}

function open(event, target) {
  if (!target || event.target.closest('a, button, input') || String(getSelection())) return
  if (event.metaKey || event.ctrlKey) window.open(target)
  else go(target)
}
