/** What workers ask one another, and what others ask them (docs/wire.md, Asking workers). It costs nothing while nobody does. */

import { hostname } from "node:os";

import { textOf, type Broker } from "./broker.js";
import type { Execution } from "./execution.js";
import { sleep } from "./reading.js";
import { lastToken } from "./wire.js";
import type { Worker } from "./worker.js";

const ANSWER_WITHIN = 500;
const GATHERED_FOR = 10;
const LARGEST = 200;
const SHOWN = 200;

/** Begin to answer. Returns how to stop. */
export function answerQuestions(worker: Worker): () => void {
  const { broker } = worker.rules;
  const own = worker.holders.name;
  const started = Date.now() / 1000;
  const { name, settings: { slots } } = worker;
  const row = ({ task: { run, root, workflow, step, turn }, attempt, started, delivery }: Execution) =>
    ({ run, root, workflow, step, worker: name, attempt, turn, started, state: delivery.holdsSlot ? "running" : "waiting" });
  const self = () => ({
    name, host: hostname(), pid: process.pid, started, workflows: [...worker.workflows.keys()].sort(), slots,
    used: slots - worker.free, waiting: worker.waiting, leaving: worker.isStopping, running: worker.executions().slice(-SHOWN).map(row),
  });
  const stepsOf = (run: string) => {
    const rows = worker.executions().filter(({ task }) => task.run === run).slice(-SHOWN).map(row);
    return rows.length > 0 ? JSON.stringify(rows) : undefined; // who holds no step of the run keeps silent
  };
  const who = (workflow: string, body: string) => {
    const [asker = "", ...tasks] = body.split("\n");
    if (!worker.workflows.has(workflow) || asker === own || (asker === "" && worker.isStopping)) return undefined;
    const isGuard = asker.startsWith("guard "); // of a worker that has died: it is asked what others were given at all
    return [own, ...tasks.filter((one) => worker.holds(broker.namespace.relative(one), isGuard, own < asker))].join("\n");
  };
  const answer = (subject: string, make: (last: string, body: string) => string | undefined) => broker.listen(subject, (asked, { reply, data }) => {
    const said = reply ? make(lastToken(asked), textOf(data)) : undefined;
    if (said !== undefined) broker.send(reply!, said);
  });
  const stops = [answer("ask.workers", () => JSON.stringify(self())), answer("ask.run.*", stepsOf), answer("who.*", who)];
  return () => stops.forEach((stop) => stop());
}

/** Asks whether another worker runs a task that was delivered again, before it is begun beside that one. */
export class Holders {
  /** What the worker is called where tasks are asked for: no other has it. */
  readonly name = crypto.randomUUID().replaceAll("-", "").slice(0, 16);
  private readonly asking = new Map<string, { readonly tasks: string[]; readonly held: Promise<ReadonlySet<string>> }>();

  constructor(private readonly broker: Broker) {}

  /** Tell whether another worker runs the task on a subject. What is asked within a moment is one question. */
  async isHeld(workflow: string, subject: string): Promise<boolean> {
    let asking = this.asking.get(workflow);
    if (asking === undefined || asking.tasks.length >= LARGEST) {
      const tasks: string[] = [];
      asking = { tasks, held: sleep(GATHERED_FOR).then(() => this.ask(workflow, tasks)).catch(() => new Set<string>()) };
      this.asking.set(workflow, asking);
    }
    const absolute = this.broker.namespace.absolute(subject);
    asking.tasks.push(absolute);
    return (await asking.held).has(absolute);
  }

  private async ask(workflow: string, tasks: readonly string[]): Promise<Set<string>> {
    if (this.asking.get(workflow)?.tasks === tasks) this.asking.delete(workflow);
    const { nc, namespace } = this.broker;
    const question = [this.name, ...tasks].join("\n");
    const held = new Set<string>();
    for await (const answer of await nc.requestMany(namespace.absolute(`who.${workflow}`), question, { maxWait: ANSWER_WITHIN })) {
      for (const subject of textOf(answer.data).split("\n").slice(1)) held.add(subject);
    }
    return held;
  }
}
