// Icons: 16 px, drawn with one line. Each status has a shape of its own, so that none is told by colour alone.
import { html, cls } from './html.js'

const stroke = {
  overview: 'M2.5 8.5h3V14h-3zM6.5 2.5h3V14h-3zM10.5 6h3v8h-3z',
  runs: 'M5.5 4h8M5.5 8h8M5.5 12h8M2.6 4h.01M2.6 8h.01M2.6 12h.01',
  errors: 'M8 2.3 14.2 13H1.8zM8 6.5v3M8 11.2v.01',
  workflows: 'M2.5 6.2h4v3.6h-4zM10 2.5h3.5v3.2H10zM10 10.3h3.5v3.2H10zM6.5 8h1.7V4.1H10M8.2 8v3.9H10',
  queues: 'M2.5 3h11v2.6h-11zM2.5 7.4h11M2.5 10h8M2.5 12.6h5',
  workers: 'M4.5 4.5h7v7h-7zM6.5 2v2.5M9.5 2v2.5M6.5 11.5V14M9.5 11.5V14M2 6.5h2.5M2 9.5h2.5M11.5 6.5H14M11.5 9.5H14',
  schedules: 'M2.5 4h11v9.5h-11zM2.5 7h11M5.5 2.2v3M10.5 2.2v3M8 9v2l1.4.9',
  events: 'M8.8 1.8 3.8 9h3.7l-.6 5.2L12.2 7H8.3z',
  doctor: 'M1.8 8.5h2.7l1.6-4.6 3.2 8.6 1.7-4h3.2',
  search: 'M7.2 12a4.8 4.8 0 1 0 0-9.6 4.8 4.8 0 0 0 0 9.6zM10.7 10.7l3 3',
  menu: 'M2.5 4.5h11M2.5 8h11M2.5 11.5h11',
  close: 'M4 4l8 8M12 4l-8 8',
  right: 'M6 3.5 10.5 8 6 12.5',
  down: 'M3.5 6 8 10.5 12.5 6',
  up: 'M3.5 10 8 5.5 12.5 10',
  prev: 'M10 3.5 5.5 8l4.5 4.5',
  level: 'M4 13V5.5h8M9 2.5l3 3-3 3',
  copy: 'M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3',
  done: 'M3 8.5 6.5 12 13 4.5',
  more: 'M3.5 8h.01M8 8h.01M12.5 8h.01',
  sun: 'M8 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM8 1.5v1M8 13.5v1M1.5 8h1M13.5 8h1M3.4 3.4l.7.7M11.9 11.9l.7.7M3.4 12.6l.7-.7M11.9 4.1l.7-.7',
  moon: 'M13.5 9.6A5.8 5.8 0 0 1 6.4 2.5a5.8 5.8 0 1 0 7.1 7.1z',
  play: 'M5 3.2v9.6L13 8z',
  pause: 'M5.5 3.5v9M10.5 3.5v9',
  stop: 'M4 4h8v8H4z',
  download: 'M8 2.5v8M4.8 7.5 8 10.7l3.2-3.2M2.5 13.5h11',
  help: 'M6 6.2a2 2 0 1 1 2.9 1.8c-.6.3-.9.7-.9 1.3v.2M8 12v.01',
  children: 'M3.5 8h9M3.5 8c3.5 0 3-4 6.5-4h2.5M3.5 8c3.5 0 3 4 6.5 4h2.5',
  info: 'M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12zM8 7.3v3.4M8 5.2v.01',
  link: 'M6.8 9.2a2.6 2.6 0 0 0 3.7 0l2-2a2.6 2.6 0 0 0-3.7-3.7l-.8.8M9.2 6.8a2.6 2.6 0 0 0-3.7 0l-2 2a2.6 2.6 0 0 0 3.7 3.7l.8-.8',
  empty: 'M2.5 9.5 4.3 3.5h7.4l1.8 6v3h-11zM2.5 9.5h3.2l.8 1.5h3l.8-1.5h3.2',
}

const ring = 'M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12z'
const solid = {
  succeeded: html`<circle cx="8" cy="8" r="7" fill="currentColor" /><path d="M4.9 8.3 7.1 10.5 11.2 5.9" class="cutout" />`,
  failed: html`<path d="M5.1 1h5.8L15 5.1v5.8L10.9 15H5.1L1 10.9V5.1z" fill="currentColor" />
    <path d="M5.6 5.6l4.8 4.8M10.4 5.6l-4.8 4.8" class="cutout" />`,
  cancelled: html`<path d=${ring} class="stroke" /><path d="M3.9 12.1l8.2-8.2" class="stroke" />`,
  timed_out: html`<path d=${ring} class="stroke" /><path d="M8 4.6V8l2.3 1.7" class="stroke" />`,
  queued: html`<circle cx="8" cy="8" r="6" class="stroke" stroke-dasharray="2.1 2.6" />`,
  pending: html`<circle cx="8" cy="8" r="2" fill="currentColor" />`,
  open: html`<path d=${ring} class="stroke" /><path d="M8 4.5a3.5 3.5 0 0 1 0 7z" fill="currentColor" />`,
  running: html`<g class="spin"><path d=${ring} class="stroke" opacity="0.28" /><path d="M8 2a6 6 0 0 1 6 6" class="stroke" /></g>`,
  waiting: html`<path d="M4.2 2h7.6M4.2 14h7.6M5 2c0 3.5 3 4 3 6s-3 2.5-3 6M11 2c0 3.5-3 4-3 6s3 2.5 3 6" class="stroke" />`,
  retrying: html`<path d="M13.4 6A5.8 5.8 0 1 0 13.8 9.2M13.8 2.6V6h-3.4" class="stroke" />`,
  skipped: html`<path d="M2.5 4.5 6.5 8l-4 3.5M8 4.5 12 8l-4 3.5M13.5 4v8" class="stroke" />`,
}

export const Icon = ({ name, size = 16, className = '' }) =>
  solid[name]
    ? html`<svg class=${cls('mark', className)} width=${size} height=${size} viewBox="0 0 16 16" aria-hidden="true">${solid[name]}</svg>`
    : html`<svg class=${className} width=${size} height=${size} viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.5"
        stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d=${stroke[name]} /></svg>`

export const Logo = ({ size = 22 }) => html`<svg width=${size} height=${size} viewBox="0 0 24 24" aria-hidden="true">
  <rect width="24" height="24" rx="6.5" fill="var(--ink)" />
  <g fill="none" stroke="var(--ink-inverse)" stroke-width="1.9" stroke-linecap="round">
    <path d="M7 12h10.5" /><path d="M7 12c4.5 0 4-5 8.5-5h2" /><path d="M7 12c4.5 0 4 5 8.5 5h2" /></g>
  <circle cx="6.5" cy="12" r="2.3" fill="var(--green-fill)" /></svg>`
