/** Cancelling: marks that every worker hears of, outcomes without which parents would wait, and what is removed. */

import { randomBytes } from "node:crypto";

import { textOf, type Broker } from "./broker.js";
import { UnknownRun } from "./errors.js";
import type { Graph } from "./graph.js";
import { unpackIds } from "./identity.js";
import { cancelled, lastToken } from "./looks.js";
import { decodeOutcome, type JoinRecord } from "./records.js";
import type { Rules } from "./rules.js";
import { NONE, taskOf, type Join, type Task } from "./wire.js";

const [TREE, ALONE, DELETED] = ["", '"alone"', '"deleted"'];
const REST = '"rest';
const REMEMBERED = 3600;

/** Which runs are cancelled, as far as a worker has to know. */
export class Marks {
  /** Called when a mark is new. */
  onMark: () => void = () => undefined;
  private readonly marks = new Map<string, { at: number; body: string }>();

  constructor(private readonly broker: Broker) {}

  /** Begin to listen, and read the marks of the last hour. Returns how to stop. */
  async listen(): Promise<() => void> {
    const { broker } = this;
    const { names } = broker;
    const live = broker.nc.subscribe(`${names.jf}.live.cancel.*.*`, {
      callback: (_, message) => this.add(message.subject, textOf(message.data), Date.now() / 1000),
    });
    const read = async () => {
      for await (const page of broker.pages(names.tasks, `${names.jf}.cancel.*.*`, REMEMBERED)) {
        for (const { subject, body, time } of page) this.add(subject, textOf(body), time);
      }
    };
    const forget = broker.onReconnect(() => void read().catch((error: unknown) => broker.log.warn(`jetflow: the marks of cancelled runs: ${String(error)}`)));
    await read();
    return () => {
      live.unsubscribe();
      forget();
    };
  }

  private add(subject: string, body: string, at: number): void {
    const runs = body.startsWith("[") ? runsOf(body) : [lastToken(subject)];
    for (const run of runs) {
      this.marks.delete(run);
      this.marks.set(run, { at, body: body.startsWith("[") ? DELETED : body });
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

  isDeleted = (root: string): boolean => this.marks.size > 0 && this.of(root) === DELETED;

  /** Tell whether a run's descendants know already that it is cancelled. */
  knows = (task: Task): boolean => this.of(task.run) !== undefined || this.coversTree(task.root);

  private coversTree(root: string): boolean {
    const body = this.of(root);
    return body !== undefined && body !== ALONE && !body.startsWith(REST);
  }

  /** Tell whether a task is not to be run any more. */
  covers(task: Task, graph?: Graph): boolean {
    if (this.marks.size === 0) return false;
    const sequel = graph?.failFast === true && task.step === graph.onFailure;
    if (!sequel && this.of(task.run) !== undefined) return true;
    const parent = this.of(task.parent);
    if (parent !== undefined && parent !== ALONE && parent !== restBut(task.parentStep)) return true;
    return sequel && task.root === task.run ? this.isDeleted(task.root) : this.coversTree(task.root);
  }
}

function runsOf(body: string): string[] {
  try {
    const runs = JSON.parse(body) as unknown;
    return Array.isArray(runs) ? runs.filter((one) => typeof one === "string") : [];
  } catch {
    return [];
  }
}

const restBut = (step: string | null) => (step === null ? `${REST}"` : `${REST} but ${step}"`);

/** Store the marks that runs are cancelled with all that they have spawned. */
async function mark(broker: Broker, root: string, runs: Iterable<string>, body = TREE): Promise<void> {
  const { names } = broker;
  await Promise.all([...runs].map(async (run) => {
    const subject = names.cancel(root, run);
    const there = await broker.store(names.tasks, subject, body);
    const said = there === null ? undefined : textOf(there.body);
    if (body !== TREE || said === undefined || !(said === ALONE || said.startsWith(REST))) return;
    await broker.purge(names.tasks, [subject]);
    await broker.store(names.tasks, subject, body);
  }));
}

/** Return the children of each run of a tree that has some, by the tasks that are stored. */
async function families(broker: Broker, root: string): Promise<Map<string, Set<string>>> {
  const { names } = broker;
  const found = new Map<string, Set<string>>();
  for (const subject of await broker.subjects(names.tasks, `${names.jf}.task.*.*.${root}.>`)) {
    const [, , , , , , parent = "", run = ""] = subject.split(".");
    const children = found.get(parent) ?? new Set();
    found.set(parent, children.add(run));
  }
  return found;
}

/** Return those of some runs and their descendants that have children: parked, they are in no worker's memory. */
function parentsIn(known: ReadonlyMap<string, ReadonlySet<string>>, runs: Iterable<string>): string[] {
  const found: string[] = [];
  const left = [...runs];
  for (let run = left.pop(); run !== undefined; run = left.pop()) {
    const children = known.get(run);
    if (children === undefined) continue;
    found.push(run);
    for (const child of children) left.push(child);
  }
  return found;
}

/** Store how many children a cancelled run had, if any: afterwards nobody could tell. */
async function noteRemoved(broker: Broker, task: Task, children: number): Promise<void> {
  const { names } = broker;
  if (children > 0) await broker.store(names.records, names.once({ root: task.root, run: task.run, step: "_cancel" }, "removed"), String(children));
}

/** Return the first task of a run: the one that is stored of its lowest turn, at its first step. */
export async function firstTask(broker: Broker, run: string, root = "*"): Promise<{ task: Task; at: number } | undefined> {
  const { names } = broker;
  const subjects = await broker.subjects(names.tasks, names.tasksOfRun(root, run));
  const stored = (await broker.many(names.tasks, subjects)).sort((one, other) => one.seq - other.seq).find((one) => taskOf(one) !== undefined);
  if (stored === undefined) return undefined;
  return { task: taskOf(stored)!, at: Number(new Map(stored.headers).get("Jf-Triggered") ?? stored.time) };
}

/** Cancel a run, with its descendants unless `tree` is false. Returns false if it had ended already. */
export async function cancelRun(rules: Rules, run: string, tree: boolean): Promise<boolean> {
  const { broker } = rules;
  const { names } = broker;
  const found = await firstTask(broker, run);
  if (found === undefined) {
    if ((await broker.last(names.records, names.outcomeById(run))) === null) throw new UnknownRun(`no run ${run} is stored`);
    return false;
  }
  const { task, at } = found;
  const stored = await broker.last(names.records, names.outcome(task));
  if (stored !== null && decodeOutcome(stored.body).status !== "cancelled") return false;
  const isRoot = task.parent === NONE;
  const known = tree ? await families(broker, task.root) : new Map<string, Set<string>>();
  const parents = tree && !isRoot ? parentsIn(known, [run]) : [];
  await mark(broker, task.root, tree ? new Set([run, ...parents]) : [run], tree ? TREE : ALONE);
  await noteRemoved(broker, task, known.get(run)?.size ?? 0);
  await rules.conclude(task, cancelled(task));
  if (!tree || !isRoot) {
    await broker.purge(names.tasks, parents.map((one) => names.tasksOfParent(task.root, one)));
    const timers = parents.map((one) => `${names.jf}.timer.wake.*.*.${task.root}.${one}.>`);
    await broker.purge(names.timers, [...timers, `${names.jf}.timer.wake.*.*.${task.root}.*.${run}.*`]);
    return stored === null;
  }
  const chance = randomBytes(8).toString("hex");
  const copy = names.cancel(run, `kept.${chance}`);
  const headers = { ...task.headers, "Jf-Triggered": String(at) };
  await broker.store(names.tasks, copy, task.body, { ...headers, "Nats-Msg-Id": `${run}.copy.${chance}`, "Jf-Kept": names.task(task) });
  await broker.purge(names.tasks, [`${names.jf}.task.*.*.${run}.>`]);
  await broker.purge(names.timers, [`${names.jf}.timer.wake.*.*.${run}.>`]);
  await broker.store(names.tasks, names.task(task), task.body, { ...headers, "Nats-Msg-Id": `${run}.kept.${chance}` });
  const mark_ = await broker.last(names.tasks, names.cancel(run, run));
  if (mark_ === null || textOf(mark_.body) !== DELETED) await broker.purge(names.tasks, [copy]);
  return stored === null;
}

/** Cancel children of one step that are open. Their queued tasks are dropped by who gets them. */
async function cancelChildren(rules: Rules, join: Join, open: ReadonlySet<string>): Promise<void> {
  const { broker } = rules;
  const { names } = broker;
  const tasks = new Map<string, Task>();
  for await (const page of broker.pages(names.tasks, names.tasksOfParent(join.root, join.run))) {
    for (const task of page.map(taskOf)) {
      if (task !== undefined && open.has(task.run) && !tasks.has(task.run)) tasks.set(task.run, task);
    }
  }
  await mark(broker, join.root, tasks.keys());
  await Promise.all([...tasks.values()].map((task) => rules.conclude(task, cancelled(task))));
  const timers = await broker.subjects(names.timers, `${names.jf}.timer.wake.*.*.${join.root}.${join.run}.>`);
  await broker.purge(names.timers, timers.filter((one) => tasks.has(one.split(".").at(-2)!)));
  const known = tasks.size > 0 ? await families(broker, join.root) : new Map<string, Set<string>>();
  await mark(broker, join.root, parentsIn(known, tasks.keys()).filter((one) => !tasks.has(one)));
}

/** Return which of a step's children have no outcome yet; `of`: of these only. */
async function openOf(rules: Rules, join: Join, of?: ReadonlySet<string>): Promise<Set<string>> {
  const { names } = rules.broker;
  const ended = new Set((await rules.broker.subjects(names.records, names.outcomeOf(join, "*"))).map(lastToken));
  return new Set([...(of ?? (await rules.looks.spawnedBy(join)))].filter((one) => !ended.has(one)));
}

/** Cancel the rest of a join that is decided. */
export async function cancelRest(rules: Rules, join: Join, record: JoinRecord): Promise<void> {
  rules.looks.decide(join, record.turn);
  await cancelChildren(rules, join, await openOf(rules, join, record.members === null ? undefined : new Set(unpackIds(record.members))));
}

/** Cancel some children of a step that has decided without them. */
export async function cancelSome(rules: Rules, join: Join, children: ReadonlySet<string>): Promise<void> {
  await cancelChildren(rules, join, await openOf(rules, join, children));
}

/** Cancel what is left of a run that has failed fast. */
export async function cancelLeft(rules: Rules, task: Task, graph: Graph): Promise<void> {
  const { broker } = rules;
  const { names } = broker;
  await mark(broker, task.root, [task.run], restBut(graph.onFailure));
  for (const { name } of graph.nodes) {
    const join = { root: task.root, run: task.run, step: name };
    await cancelChildren(rules, join, await openOf(rules, join));
    await broker.purge(names.timers, [names.timer({ ...task, parent: "*" }, "*", name)]);
  }
}

/** End the run of a task that is covered by a mark. */
export async function drop(rules: Rules, marks: Marks, task: Task, graph: Graph | undefined, spawned: number): Promise<void> {
  const { broker } = rules;
  const { names } = broker;
  if (marks.isDeleted(task.root)) return;
  const stored = await broker.last(names.records, names.outcomeById(task.run));
  if (stored !== null) {
    if (stored.subject === names.outcome(task)) await rules.repeatEnd(task, graph, decodeOutcome(stored.body));
    return;
  }
  if (!marks.knows(task)) await mark(broker, task.root, [task.run]);
  await noteRemoved(broker, task, spawned);
  await rules.conclude(task, cancelled(task));
}

