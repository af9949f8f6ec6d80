// The keyboard: one listener. A page adds its keys while it is shown; none acts in an input, in a dialog or with a modifier.
import { Value, useLayoutEffect, useRef } from './html.js'
import { go, href } from './router.js'

export const GO = { o: '', r: 'runs', e: 'errors', w: 'workflows', q: 'queues', k: 'workers', s: 'schedules', v: 'events', d:
  'doctor' }
export const layers = []
const pressed = { prefix: '', timer: 0 }
export const overlay = new Value(null)

const typing = (target) => target.closest?.('input:not([type="checkbox"], [type="radio"]), textarea, select, [contenteditable]')

/** Keys of whoever is shown: {'j': handler}. Later ones come first; a handler that returns false passes it on. */
export function useKeys(keys, active = true) {
  const current = useRef(keys)
  current.current = keys
  useLayoutEffect(() => {
    if (!active) return undefined
    const layer = (name, event) => {
      const handler = current.current[name]
      return handler ? handler(event) !== false : false
    }
    layers.unshift(layer)
    return () => layers.splice(layers.indexOf(layer), 1)
  }, [active])
}

export function startKeys() {
  document.addEventListener('keydown', (event) => {
    const target = /** @type {HTMLElement} */ (event.target)
    if ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === 'k') {
      event.preventDefault()
      overlay.set('palette')
      return
    }
    if (event.defaultPrevented || event.metaKey || event.ctrlKey || event.altKey || event.isComposing) return
    if (typing(target)) {
      if (event.key === 'Escape' && !target.closest('dialog')) target.blur()
      return
    }
    if (document.querySelector('dialog[open]')) return
    if (pressed.prefix === 'g') {
      pressed.prefix = ''
      if (event.key in GO) {
        event.preventDefault()
        go(href(GO[event.key]))
      }
      return
    }
    if (event.key === 'g') {
      pressed.prefix = 'g'
      clearTimeout(pressed.timer)
      pressed.timer = setTimeout(() => { pressed.prefix = '' }, 1200)
      return
    }
    const button = target.closest?.('button, a, summary, [role="tab"], input')
    if (button && (event.key === 'Enter' || event.key === ' ')) return
    for (const layer of layers) {
      if (layer(event.key, event)) {
        event.preventDefault()
        return
      }
    }
    if (event.key === '?') overlay.set('help')
    else if (event.key === '/') {
      const box = /** @type {HTMLInputElement | null} */ (document.querySelector('main input[type="search"]'))
      if (box) {
        event.preventDefault()
        box.focus()
        box.select()
      } else {
        event.preventDefault()
        overlay.set('palette')
      }
    }
  })
}
