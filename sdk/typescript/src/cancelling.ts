/** Cancelling: marks that every worker hears of, outcomes without which parents would wait, and what is removed. */

import { randomBytes } from "node:crypto";

import { textOf, type Broker } from "./broker.js";
import { UnknownRun } from "./errors.js";
import type { Graph } from "./graph.js";
import { cancelled } from "./looks.js";
import { ALONE, DELETED, mark, restBut, TREE, type Marks } from "./marks.js";
import { decodeOutcome } from "./records.js";
import type { Rules } from "./rules.js";
import { lastToken, NONE, subjects, taskOf, type Join, type Task } from "./wire.js";

/** Return the children of each run of a tree that has some, by the tasks that are stored. */
async function families(broker: Broker, root: string): Promise<Map<string, Set<string>>> {
  const found = new Map<string, Set<string>>();
  for (const subject of await broker.subjects(subjects.tree("task", root))) {
    const [, , , , parent = "", run = ""] = subject.split(".");
    found.set(parent, (found.get(parent) ?? new Set()).add(run));
  }
  return found;
}

/** Return those of some runs and their descendants that have children: parked, they are in no worker's memory. */
function parentsIn(known: ReadonlyMap<string, ReadonlySet<string>>, runs: Iterable<string>): string[] {
  const parents = new Set([...runs].filter((run) => known.has(run)));
  for (const run of parents) {
    for (const child of known.get(run)!) if (known.has(child)) parents.add(child);
  }
  return [...parents];
}

/** Store how many children a cancelled run had, if any: afterwards nobody could tell. */
async function noteRemoved(broker: Broker, task: Task, children: number): Promise<void> {
  if (children > 0) await broker.store(subjects.once({ ...task, step: "_cancel" }, "removed"), String(children));
}

/** Return the first task of a run: the one that is stored of its lowest turn, at its first step. */
export async function firstTask(broker: Broker, run: string): Promise<{ task: Task; at: number } | undefined> {
  const stored = await broker.many(await broker.subjects(subjects.turns("task", "*", run)));
  const [first] = stored.sort((one, other) => one.seq - other.seq).filter((one) => taskOf(one) !== undefined);
  return first && { task: taskOf(first)!, at: Number(first.headers.get("Jf-Triggered") ?? first.time) };
}

/** Cancel a run, with its descendants unless `tree` is false. Returns false if it had ended already. */
export async function cancelRun(rules: Rules, run: string, tree: boolean): Promise<boolean> {
  const { broker } = rules;
  const found = await firstTask(broker, run);
  if (found === undefined) {
    if ((await broker.last(subjects.outcomeById(run))) === null) throw new UnknownRun(`no run ${run} is stored`);
    return false;
  }
  const { task, at } = found;
  const stored = await broker.last(subjects.outcome(task));
  if (stored !== null && decodeOutcome(stored.body).status !== "cancelled") return false;
  const isWhole = tree && task.parent === NONE;
  const known = tree ? await families(broker, task.root) : new Map<string, Set<string>>();
  const parents = isWhole ? [] : parentsIn(known, [run]);
  await mark(broker, task.root, new Set([run, ...parents]), tree ? TREE : ALONE);
  await noteRemoved(broker, task, known.get(run)?.size ?? 0);
  await rules.conclude(task, cancelled(task), await rules.registry.graphIfAny(task));
  if (isWhole) await clear(broker, task, at);
  else {
    const below = (kind: "task" | "timer.wake") => parents.map((one) => subjects.children(kind, task.root, one));
    await broker.purge([...below("task"), ...below("timer.wake"), subjects.turns("timer.wake", task.root, run)]);
  }
  return stored === null;
}

/** Remove the tasks of a tree, and put the first back: its id stays taken. A copy is there for whoever sees this die. */
async function clear(broker: Broker, task: Task, at: number): Promise<void> {
  const { run } = task;
  const chance = randomBytes(8).toString("hex");
  const copy = subjects.cancel(run, `kept.${chance}`);
  const headers = { ...task.headers, "Jf-Triggered": String(at) };
  const kept = { "Nats-Msg-Id": `${run}.copy.${chance}`, "Jf-Kept": broker.namespace.absolute(subjects.task(task)) };
  await broker.store(copy, task.body, { ...headers, ...kept });
  await broker.purge([subjects.tree("task", run), subjects.tree("timer.wake", run)]);
  await broker.store(subjects.task(task), task.body, { ...headers, "Nats-Msg-Id": `${run}.kept.${chance}` });
  const said = await broker.last(subjects.cancel(run, run));
  if (said === null || textOf(said.body) !== DELETED) await broker.purge([copy]);
}

/** Cancel children of one step that are open; `of`: of these only. Their queued tasks are dropped by who gets them. */
export async function cancelOpen(rules: Rules, join: Join, of?: Iterable<string>): Promise<void> {
  const { broker } = rules;
  const ended = new Set((await broker.subjects(subjects.outcomeOf(join, "*"))).map(lastToken));
  const open = new Set([...(of ?? (await rules.looks.spawnedBy(join)))].filter((one) => !ended.has(one)));
  const tasks = new Map<string, Task>();
  for await (const page of broker.pages(subjects.children("task", join.root, join.run))) {
    for (const task of page.map(taskOf)) if (task !== undefined && open.has(task.run) && !tasks.has(task.run)) tasks.set(task.run, task);
  }
  if (tasks.size === 0) return;
  await mark(broker, join.root, tasks.keys());
  await Promise.all([...tasks.values()].map(async (task) => rules.conclude(task, cancelled(task), await rules.registry.graphIfAny(task))));
  const timers = await broker.subjects(subjects.children("timer.wake", join.root, join.run));
  await broker.purge(timers.filter((one) => tasks.has(one.split(".").at(-2)!)));
  const parents = parentsIn(await families(broker, join.root), tasks.keys());
  await mark(broker, join.root, parents.filter((one) => !tasks.has(one)));
}

/** Cancel what is left of a run that has failed fast. */
export async function cancelLeft(rules: Rules, task: Task, graph: Graph): Promise<void> {
  await mark(rules.broker, task.root, [task.run], restBut(graph.onFailure));
  for (const { name: step } of graph.nodes) {
    await cancelOpen(rules, { root: task.root, run: task.run, step });
    await rules.broker.purge([`timer.wake.${task.workflow}.${step}.${task.root}.*.${task.run}.*`]);
  }
}

/** End the run of a task that is covered by a mark. */
export async function drop(rules: Rules, marks: Marks, task: Task, graph: Graph | undefined, spawned: number): Promise<void> {
  const { broker } = rules;
  if (marks.isDeleted(task.root)) return;
  const stored = await broker.last(subjects.outcomeById(task.run));
  if (stored !== null) {
    if (stored.subject === subjects.outcome(task)) await rules.repeatEnd(task, graph, decodeOutcome(stored.body));
    return;
  }
  if (!marks.knows(task)) await mark(broker, task.root, [task.run]);
  await noteRemoved(broker, task, spawned);
  await rules.conclude(task, cancelled(task), graph);
}
