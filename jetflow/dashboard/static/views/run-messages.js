// What the broker holds of a run, message by message, with the command that shows each.
import { html } from '../parts/html.js'
import { useAsk } from '../parts/api.js'
import { bytes, clock, count } from '../parts/format.js'
import { Grid } from '../parts/grid.js'
import { Bones, Copy, Note, Trouble } from '../parts/said.js'

const COLUMNS = [
  { id: 'time', label: 'Stored', width: '120px', className: 'dim', cell: (row) => clock(row.time, { ms: true }) },
  { id: 'kind', label: 'Kind', width: '72px', className: 'first', cell: (row) => html`<span class="tag">${row.kind}</span>` },
  { id: 'sequence', label: 'Sequence', width: '92px', num: true, cell: (row) => count(row.sequence) },
  { id: 'subject', label: 'Subject', width: 'minmax(200px, 3fr)', className: 'cut whole mono', cell: (row) =>
    html`<span title=${row.subject}>${row.subject}</span>` },
  { id: 'stream', label: 'Stream', width: 'minmax(100px, 0.9fr)', className: 'cut dim', cell: (row) => row.stream },
  { id: 'size', label: 'Size', width: '76px', num: true, cell: (row) => bytes(row.size) },
  { id: 'copy', label: '', hidden: 'Command', width: '30px', cell: (row) =>
    html`<${Copy} text=${row.command} label=${`Copy: ${row.command}`} />` },
]

export function Messages({ id }) {
  const { data, problem, at, loading, again } = useAsk(`runs/${id}/messages`, {}, { topic: `run:${id}`, every: 2000 })
  return html`<div class="stack tight"><${Trouble} problem=${problem} at=${at} again=${again} />
    ${data && !data.complete && html`<${Note}>The first thousand of each stream are listed: there are more.</${Note}>`}
    ${loading ? html`<${Bones} />` : data && html`<${Grid} label="Messages" columns=${COLUMNS} rows=${data.items}
      idOf=${(row) => `${row.stream}:${row.sequence}`}
        foot=${html`<span>The copy button has the <code>nats</code> command that shows a message.</span>`} />`}</div>`
}
