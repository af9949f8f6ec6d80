// Groups of errors as lines: type, message with what differs as …, where, how often, when.
import { html } from '../parts/html.js'
import { count } from '../parts/format.js'
import { Spark } from '../parts/chart.js'
import { When } from '../parts/time.js'

/** `to(group)` is where a line leads. */
export const Groups = ({ groups, to }) => html`<div role="list">${groups.map((group) =>
  html`<a role="listitem" class="errgroup" key=${group.fingerprint} data-row=${group.fingerprint} href=${to(group)}>
  <span class="what"><span class="cut"><b>${group.type}</b> <span>${/^[…\s]*$/.test(group.message) ? group.sample : group.message}
    </span></span>
    <span class="faint cut">${group.workflow}${group.step ? ` / ${group.step}` : ''}
      ${group.place ? html` · <code>${group.place}</code>` : ''} · last <${When} at=${group.last} /></span></span>
  ${group.trend?.length ?
    html`<${Spark} values=${group.trend} label=${`from ${count(group.trend[0])} to ${count(group.trend.at(-1))} over time`} />` :
      html`<span />`}
  <span class="count">${count(group.count)}</span></a>`)}</div>`
