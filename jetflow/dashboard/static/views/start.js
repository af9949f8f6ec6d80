// What a page shows while nothing has run yet: how to begin. The first run takes its place by itself.
import { html } from '../parts/html.js'
import { Command, Copy, Empty } from '../parts/said.js'

const CODE = `import jetflow

async with jetflow.connect() as client:
    run = await client.trigger("hello", "world")`

export const Start = () => html`<div class="panel"><${Empty} art="start" title="Nothing has run here yet" actions=${html`<ol class="start">
  <li><span class="dim">Start a server and a worker from a file of workflows</span><${Command} text="jetflow dev flows.py" /></li>
  <li><span class="dim">Begin a run from the shell</span><${Command} text=${'jetflow trigger hello \'"world"\''} /></li>
  <li><span class="line dim"><span class="grow">Or from Python</span><${Copy} text=${CODE} label="Copy the code" /></span><pre>${CODE}
    </pre></li></ol>`}>
  The first run takes this place the moment it arrives.</${Empty}></div>`
