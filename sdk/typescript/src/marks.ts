/** Marks of runs that are cancelled or deleted: what a worker remembers of them, and how they are stored. */

import { textOf, type Broker } from "./broker.js";
import type { Graph } from "./graph.js";
import { lastToken, subjects, type Task } from "./wire.js";

/** What a mark says: cancelled with all that the run has spawned, without, or deleted. Those of what failed fast begin with `REST`. */
export const [TREE, ALONE, DELETED] = ["", '"alone"', '"deleted"'];
const REST = '"rest';
/** Seconds for which a mark counts. */
export const REMEMBERED = 3600;

export const restBut = (step: string | null): string => (step === null ? `${REST}"` : `${REST} but ${step}"`);

/** Which runs are cancelled, as far as a worker has to know. */
export class Marks {
  /** Called when a mark is new. */
  onMark: () => void = () => undefined;
  private readonly marks = new Map<string, { at: number; body: string }>();

  constructor(private readonly broker: Broker) {}

  /** Begin to listen, and read the marks of the last hour. Returns how to stop. */
  async listen(): Promise<() => void> {
    const { broker } = this;
    const stop = broker.listen("live.cancel.*.*", (subject, message) => this.add(subject, textOf(message.data), Date.now() / 1000));
    const read = async () => {
      for await (const page of broker.pages(subjects.cancel("*", "*"), REMEMBERED)) {
        for (const { subject, body, time } of page) this.add(subject, textOf(body), time);
      }
    };
    const forget = broker.onReconnect(() => broker.inBackground("the marks of cancelled runs", read()));
    await read();
    return () => {
      stop();
      forget();
    };
  }

  private add(subject: string, body: string, at: number): void {
    const isOfMany = body.startsWith("[");
    for (const run of isOfMany ? runsOf(body) : [lastToken(subject)]) {
      this.marks.delete(run);
      this.marks.set(run, { at, body: isOfMany ? DELETED : body });
    }
    for (const [run, mark] of this.marks) {
      if (Date.now() / 1000 - mark.at <= REMEMBERED) break;
      this.marks.delete(run);
    }
    this.onMark();
  }

  private of(run: string): string | undefined {
    const mark = this.marks.get(run);
    return mark === undefined || Date.now() / 1000 - mark.at > REMEMBERED ? undefined : mark.body;
  }

  isDeleted = (root: string): boolean => this.of(root) === DELETED;

  /** Tell whether a run's descendants know already that it is cancelled. */
  knows = (task: Task): boolean => this.of(task.run) !== undefined || this.coversTree(task.root);

  private coversTree(root: string): boolean {
    const body = this.of(root);
    return body !== undefined && body !== ALONE && !body.startsWith(REST);
  }

  /** Tell whether a task is not to be run any more. */
  covers(task: Task, graph?: Graph): boolean {
    if (this.marks.size === 0) return false;
    const isSequel = graph?.failFast === true && task.step === graph.onFailure;
    if (!isSequel && this.of(task.run) !== undefined) return true;
    const parent = this.of(task.parent);
    if (parent !== undefined && parent !== ALONE && parent !== restBut(task.parentStep)) return true;
    return isSequel && task.root === task.run ? this.isDeleted(task.root) : this.coversTree(task.root);
  }
}

function runsOf(body: string): string[] {
  try {
    return (JSON.parse(body) as unknown[]).filter((one) => typeof one === "string");
  } catch {
    return [];
  }
}

/** Store the marks that runs are cancelled: by default with all that they have spawned. */
export async function mark(broker: Broker, root: string, runs: Iterable<string>, body = TREE): Promise<void> {
  await Promise.all([...runs].map(async (run) => {
    const subject = subjects.cancel(root, run);
    const there = await broker.store(subject, body);
    const said = there === null ? TREE : textOf(there.body);
    if (body !== TREE || !(said === ALONE || said.startsWith(REST))) return;
    await broker.purge([subject]);
    await broker.store(subject, body);
  }));
}
