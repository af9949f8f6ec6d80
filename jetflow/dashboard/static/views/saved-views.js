// Ways to look at the list of runs that have a name: some are there for all, others are kept by this browser.
// A view is a query, and nothing else: what is saved is a link.
import { html, useState } from '../parts/html.js'
import { go, href, useRoute } from '../parts/router.js'
import { Icon } from '../parts/icons.js'
import { Dialog, Menu } from '../parts/dialog.js'
import { preferences } from '../parts/format.js'
import { tell } from '../parts/said.js'

const FOR_ALL = [
  ['In flight', 'status=open'],
  ['Retrying', 'status=retrying'],
  ['Failed today', 'status=failed,timed_out&since=24h'],
  ['Slowest of today', 'sort=-took&since=24h'],
  ['Oldest in flight', 'status=open&sort=triggered'],
]
const MOST = 30

function read() {
  try {
    const kept = JSON.parse(preferences.get('views', '[]'))
    return Array.isArray(kept) ? kept.filter((one) => one?.name && typeof one.query === 'string').slice(0, MOST) : []
  } catch {
    return []
  }
}

/** A query as it is compared and kept: sorted, and without what only says where one is. */
function tidy(query) {
  const kept = new URLSearchParams(query)
  kept.delete('after')
  kept.sort()
  return kept.toString()
}

export function SavedViews() {
  const { query } = useRoute()
  const [own, setOwn] = useState(read)
  const [naming, setNaming] = useState(false)
  const here = tidy(query)
  const keep = (views) => { setOwn(views); preferences.set('views', JSON.stringify(views)) }
  const items = [...FOR_ALL.map(([name, text]) => ({ name, query: text })), ...own].map((one) => ({
    label: one.name, icon: tidy(one.query) === here ? 'done' : 'runs', run: () => go(href('runs', new URLSearchParams(one.query))),
  }))
  const mine = own.find((one) => tidy(one.query) === here)
  const save = (event) => {
    event.preventDefault()
    const name = event.currentTarget.elements.namedItem('name').value.trim()
    if (!name) return
    keep([...own.filter((one) => one.name !== name), { name, query: here }].slice(-MOST))
    setNaming(false)
    tell(`Saved as ${name}`)
  }
  return html`<${Menu} label="Views" text="Views" icon="down" items=${[...items,
    here && !mine && { label: 'Save this view…', icon: 'copy', run: () => setNaming(true) },
    mine && { label: `Forget ${mine.name}`, icon: 'close', run: () => keep(own.filter((one) => one !== mine)) }]} />
    ${naming && html`<${Dialog} title="Save this view" close=${() => setNaming(false)}><form class="body" onSubmit=${save}>
      <div class="field"><label for="view-name">Name</label>
        <input id="view-name" name="name" class="input" maxlength="60" autocomplete="off" required />
        <div class="hint">This browser keeps it. To share it, send the link: it says all of it.</div></div>
      <div class="actions"><button type="button" class="btn" onClick=${() => setNaming(false)}>Leave it</button>
        <button class="btn main"><${Icon} name="done" size=${14} />Save</button></div></form></${Dialog}>`}`
}
