// Charts in SVG: what ended, as stacked columns; and a small one for trends. A table beside it says the same in words.
import { html, useLayoutEffect, useRef, useState } from './html.js'
import { clock, count, short } from './format.js'

const KINDS = [['succeeded', 'green'], ['failed', 'red'], ['timed_out', 'orange'], ['cancelled', 'grey']]
const nice = (most) => {
  const step = 10 ** Math.floor(Math.log10(Math.max(1, most)))
  return [1, 2, 2.5, 5, 10].map((by) => by * step).find((limit) => limit >= most) ?? 1
}

/** `choose(since, until)` is called when a part of the time was drawn over. */
export function Ends({ series, choose }) {
  const [over, setOver] = useState(null)
  const [drag, setDrag] = useState(null)
  const ref = useRef(null)
  const most = nice(Math.max(1, ...series.map((bucket) => bucket.ended)))
  const [width, setWidth] = useState(1000)
  const [tall, left, bottom] = [150, 40, 20]
  useLayoutEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.max(240, Math.round(entry.contentRect.width))))
    observer.observe(ref.current)
    return () => observer.disconnect()
  }, [])
  const each = (width - left) / series.length
  const y = (value) => (tall * value) / most
  const at = (event) => {
    const box = ref.current.getBoundingClientRect()
    return Math.max(0, Math.min(series.length - 1, Math.floor((((event.clientX - box.left) / box.width) * width - left) / each)))
  }
  const end = () => {
    if (drag && choose && Math.abs(drag.to - drag.from) > 0) choose(series[Math.min(drag.from, drag.to)].since, series[Math.max(drag.from,
      drag.to)].until)
    setDrag(null)
  }
  const seen = over === null ? null : series[over]
  return html`<div class="chart"><svg ref=${ref} viewBox=${`0 -8 ${width} ${tall + bottom + 8}`} height=${tall + bottom + 8}
    preserveAspectRatio="none" role="img" aria-label=${`Runs that ended: ${count(series.reduce((sum, one) => sum + one.ended,
      0))} from ${clock(series[0].since)} to ${clock(series.at(-1).until)}`}
      onPointerMove=${(e) => { setOver(at(e)); if (drag) setDrag({ ...drag, to: at(e) }) }}
        onPointerLeave=${() => { setOver(null); setDrag(null) }} onPointerDown=${(e) => setDrag({ from: at(e), to: at(e) })}
          onPointerUp=${end}>
      ${[0, 0.5, 1].map((part) => html`<line key=${part} class="rule" x1=${left} x2=${width} y1=${tall * part} y2=${tall * part} />
        <text class="axis" x=${left - 8} y=${tall * part + 4} text-anchor="end">${short(most * (1 - part))}</text>`)}
      ${drag && drag.from !== drag.to && html`<rect x=${left + Math.min(drag.from, drag.to) * each}
        width=${(Math.abs(drag.to - drag.from) + 1) * each} y="0" height=${tall} fill="var(--blue-tint)" />`}
      ${series.map((bucket, n) => {
        let top = tall
        return html`<g key=${bucket.since} class="day"><rect class="hit" x=${left + n * each} width=${each} y="0" height=${tall} />
          ${KINDS.map(([kind, tone]) => {
          if (!bucket[kind]) return null
          const height = Math.max(1.5, y(bucket[kind]))
          top -= height
          return html`<rect key=${kind} class=${tone} x=${left + n * each + each * 0.14} width=${each * 0.72} y=${top} height=${height}
            rx=${Math.min(1.5, each / 5)} />`
        })}</g>`
      })}
      ${(width < 500 ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]).map((part) =>
        html`<text key=${part} class="axis" x=${left + (width - left) * part} y=${tall + 16}
          text-anchor=${part === 0 ? 'start' : part === 1 ? 'end' : 'middle'}>
            ${clock(series[0].since + part * (series.at(-1).until - series[0].since)).replace(/:\d\d$/, '')}</text>`)}
    </svg>
    <div class="legend" aria-hidden="true">${seen ? html`<span class="dim">${clock(seen.since)}–${clock(seen.until)}</span>` :
      html`<span class="dim">${choose ? 'Draw over a part to see its runs' : ''}</span>`}
      ${KINDS.map(([kind, tone]) => html`<span key=${kind}><i class=${`t-${tone}`} />
        ${seen ? html`<b>${count(seen[kind] ?? 0)}</b>` : null} ${kind === 'timed_out' ? 'timed out' : kind}</span>`)}</div></div>`
}

export function Spark({ values, label }) {
  const most = Math.max(1, ...values)
  return html`<svg class="spark" viewBox=${`0 0 ${values.length * 3.5} 22`} preserveAspectRatio="none" role="img" aria-label=${label}>
    ${values.map((value, n) => html`<rect key=${n} class=${value ? '' : 'zero'} x=${n * 3.5} width="2.5"
      y=${value ? 20 - (18 * value) / most : 19} height=${value ? 2 + (18 * value) / most : 2} rx="0.8" />`)}</svg>`
}
