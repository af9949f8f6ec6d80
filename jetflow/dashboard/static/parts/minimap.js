// A small picture of a large graph: all nodes, and what of them is seen. A press or a drag on it goes there.
import { html, useEffect, useState } from './html.js'
import { Icon } from './icons.js'

/** Nodes above which a graph has a map, and begins as a whole. */
export const LARGE = 60
const [WIDE, TALL] = [180, 120]
export const SMALLEST = 0.2

const COLOURS = { failed: 'bad', timed_out: 'bad', running: 'live', waiting: 'live', retrying: 'live', succeeded: 'good' }

/** `places` are {x, y, w, h} by name in a field of `width` by `height`; `port` is the element that scrolls it. */
export function Minimap({ places, statuses, width, height, scale, port }) {
  const [seen, setSeen] = useState(null)
  const by = Math.min(WIDE / width, TALL / height)
  useEffect(() => {
    const node = port.current
    const look = () => setSeen({ x: node.scrollLeft / scale, y: node.scrollTop / scale, w: node.clientWidth / scale, h: node.clientHeight /
      scale })
    look()
    node.addEventListener('scroll', look, { passive: true })
    const observer = new ResizeObserver(look)
    observer.observe(node)
    return () => { node.removeEventListener('scroll', look); observer.disconnect() }
  }, [scale, width, height])
  const go = (event) => {
    if (event.type === 'pointermove' && !event.buttons) return
    const box = event.currentTarget.getBoundingClientRect()
    const [x, y] = [(event.clientX - box.left) / by, (event.clientY - box.top) / by]
    port.current.scrollTo({ left: x * scale - port.current.clientWidth / 2, top: y * scale - port.current.clientHeight / 2 })
  }
  return html`<svg class="minimap" width=${width * by} height=${height * by} aria-hidden="true" onPointerDown=${go} onPointerMove=${go}>
    ${[...places].map(([name, { x, y, w, h }]) => html`<rect key=${name} class=${COLOURS[statuses.get(name)] ?? ''} x=${x * by} y=${y * by}
      width=${Math.max(2, w * by)} height=${Math.max(2, h * by)} rx="1" />`)}
    ${seen && html`<rect class="seen" x=${seen.x * by} y=${seen.y * by} width=${Math.min(width, seen.w) * by}
      height=${Math.min(height, seen.h) * by} />`}</svg>`
}

export const Zoom = ({ scale, fit, set }) => html`<div class="zoom" role="group" aria-label="Size of the graph">
  <button class="btn icon small" aria-label="Smaller" onClick=${() => set(Math.max(SMALLEST, scale / 1.25))}>−</button>
  <button class="btn small" title="All of it" onClick=${() => set(fit())}><${Icon} name="overview" size=${12} />Fit</button>
  <button class="btn icon small" aria-label="Larger" onClick=${() => set(Math.min(1, scale * 1.25))}>+</button></div>`
