/** Names of streams and subjects, and tasks as messages: both ways. */

import { isName, isRunId } from "./identity.js";
import { parse } from "./json.js";

export const START = "_start";
export const END = "_end";
export const NONE = "-";
/** Larger than any fan-out: a counter reaches it only after the join record is stored. */
export const SEAL = 2 ** 40;

/** The step of a run whose children a join is over. */
export interface Join {
  readonly root: string;
  readonly run: string;
  readonly step: string;
}

/** One turn of one step of one run, as its message says. */
export interface Task extends Join {
  readonly workflow: string;
  readonly parent: string;
  readonly turn: number;
  readonly parentStep: string;
  readonly version: string;
  readonly depth: number;
  readonly digest: string;
  readonly key: string | null;
  readonly metadata: string | null;
  readonly trace: string | null;
  readonly deadline: number | null;
  readonly eager: boolean;
  readonly value: string | null;
  readonly tried: number;
  readonly body: Uint8Array;
  /** Those of the run, as they came: every task of the run repeats them. */
  readonly headers: Readonly<Record<string, string>>;
}

const REPEATED = new Set([
  "Jf-Parent-Step", "Jf-Version", "Jf-Depth", "Jf-Digest", "Jf-Key", "Jf-Metadata", "Jf-Deadline", "Jf-Eager",
  "Jf-Value", "traceparent",
]);
const NUMBER = /^(?:0|[1-9]\d{0,8})$/;

/** The names of one namespace. */
export class Names {
  readonly tasks: string;
  readonly records: string;
  readonly values: string;
  readonly timers: string;
  readonly inbox: string;
  readonly counters: string;
  readonly workflows: string;
  readonly jf: string;

  constructor(readonly namespace: string) {
    this.jf = `jf.${namespace}`;
    [this.tasks, this.records, this.values] = [`JF_${namespace}_tasks`, `JF_${namespace}_records`, `JF_${namespace}_values`];
    [this.timers, this.inbox] = [`JF_${namespace}_timers`, `JF_${namespace}_inbox`];
    [this.counters, this.workflows] = [`KV_jf_${namespace}_counters`, `KV_jf_${namespace}_workflows`];
  }

  /** The tokens of a task's subject, which are also those of its timer. */
  private turn(task: Task, step: string, turn: number | string): string {
    return `${task.workflow}.${step}.${task.root}.${task.parent}.${task.run}.${turn}`;
  }
  task = (task: Task, step = task.step, turn: number | string = task.turn) => `${this.jf}.task.${this.turn(task, step, turn)}`;
  timer = (task: Task, turn: number | string = task.turn, step = task.step) => `${this.jf}.timer.wake.${this.turn(task, step, turn)}`;
  due = (task: Task) => `${this.jf}.due.wake.${this.turn(task, task.step, task.turn)}`;
  childTask = (workflow: string, first: string, root: string, parent: string, run: string) =>
    `${this.jf}.task.${workflow}.${first}.${root}.${parent}.${run}.0`;
  tasksOfParent = (root: string, parent: string) => `${this.jf}.task.*.*.${root}.${parent}.>`;
  tasksOfRun = (root: string, run: string) => `${this.jf}.task.*.*.${root}.*.${run}.*`;
  cancel = (root: string, run: string) => `${this.jf}.cancel.${root}.${run}`;
  outcome = (task: Task) => `${this.jf}.run.${task.root}.${task.parent}.${task.parentStep}.${task.run}`;
  live = (task: Task) => `${this.jf}.live.run.${task.root}.${task.parent}.${task.parentStep}.${task.run}`;
  outcomeOf = (join: Join, child: string, step = join.step) => `${this.jf}.run.${join.root}.${join.run}.${step}.${child}`;
  outcomeById = (run: string) => `${this.jf}.run.*.*.*.${run}`;
  step = (join: Join, step = join.step) => `${this.jf}.step.${join.root}.${join.run}.${step}`;
  join = (join: Join, turn: number | string) => `${this.jf}.join.${join.root}.${join.run}.${join.step}.${turn}`;
  mark = (task: Task, status: string) =>
    `${this.jf}.mark.${task.root}.${task.parent}.${task.parentStep}.${status}.${task.workflow}.${task.run}`;
  attempt = (task: Task, delivery: number | string) =>
    `${this.jf}.try.${task.root}.${task.run}.${task.step}.${task.turn}.${delivery}`;
  once = (join: Join, token: string) => `${this.jf}.once.${join.root}.${join.run}.${join.step}.${token}`;
  value = (root: string, value: string, chunk: number) => `${this.jf}.value.${root}.${value}.${chunk}`;
  counter = (kind: "join" | "gate" | "tree", join: Join) =>
    `$KV.jf_${this.namespace}_counters.${kind}.${join.root}.${join.run}.${join.step}`;
  workflow = (workflow: string, version?: string) =>
    `$KV.jf_${this.namespace}_workflows.${workflow}${version === undefined ? "" : `.${version}`}`;
}

/** The join of the parent in which a task's run is counted; undefined for a root run. */
export const parentJoin = (task: Task): Join | undefined =>
  task.parent === NONE ? undefined : { root: task.root, run: task.parent, step: task.parentStep };

/** A message is no task: it is terminated. */
export class NotATask extends Error {}

/** Read a task. Throws NotATask. */
export function readTask(subject: string, headers: Iterable<[string, string]>, body: Uint8Array): Task {
  const tokens = subject.split(".");
  const [, , kind, workflow = "", step = "", root = "", parent = "", run = "", turn = ""] = tokens;
  const own: Record<string, string> = {};
  let tried = "0";
  for (const [name, value] of headers) {
    if (REPEATED.has(name)) own[name] = value;
    else if (name === "Jf-Attempt") tried = value;
  }
  const parentStep = own["Jf-Parent-Step"] ?? NONE;
  const depth = own["Jf-Depth"] ?? "0";
  const deadline = own["Jf-Deadline"];
  const isRoot = parent === NONE;
  const fits =
    tokens.length === 9 && kind === "task" && NUMBER.test(turn) && isRunId(root) && isRunId(run) &&
    (isRoot ? parentStep === NONE && root === run : isRunId(parent) && isName(parentStep)) &&
    NUMBER.test(depth) && NUMBER.test(tried) && (deadline === undefined || Number.isFinite(Number(deadline)));
  if (!fits) throw new NotATask(`no task: ${subject} with ${JSON.stringify(own)}`);
  return {
    workflow, step, root, parent, run, turn: Number(turn), parentStep,
    version: own["Jf-Version"] ?? "", depth: Number(depth), digest: own["Jf-Digest"] ?? "", key: keyOf(own["Jf-Key"]),
    metadata: own["Jf-Metadata"] ?? null, trace: own["traceparent"] ?? null,
    deadline: deadline === undefined ? null : Number(deadline), eager: own["Jf-Eager"] === "1",
    value: own["Jf-Value"] ?? null, tried: Number(tried), body, headers: own,
  };
}

/** Return the task that is stored; undefined for what is none: it was terminated, and never led to anything. */
export function taskOf(stored: { subject: string; headers: Iterable<[string, string]>; body: Uint8Array } | null): Task | undefined {
  try {
    return stored === null ? undefined : readTask(stored.subject, stored.headers, stored.body);
  } catch (error) {
    if (error instanceof NotATask) return undefined;
    throw error;
  }
}

function keyOf(shown: string | undefined): string | null {
  if (shown === undefined) return null;
  try {
    const key = parse(shown);
    return typeof key === "string" ? key : shown;
  } catch {
    return shown; // it is for showing only
  }
}

const encoder = new TextEncoder();

/** Return headers as they go over the wire. */
export function headerBlock(headers: Readonly<Record<string, string>>): Uint8Array {
  let text = "NATS/1.0\r\n";
  for (const name in headers) text += `${name}: ${headers[name]!.replaceAll(/[\r\n]/g, " ")}\r\n`;
  return encoder.encode(`${text}\r\n`);
}

/** Return the headers of another task of a task's run. */
export function taskHeaders(task: Task, step: string, turn: number, tried = 0, deadline = true): Record<string, string> {
  const headers: Record<string, string> = {
    "Nats-Msg-Id": `${task.run}.${step}.${turn}`, "Jf-Parent-Step": task.parentStep, "Jf-Version": task.version,
    "Jf-Depth": String(task.depth), ...task.headers,
  };
  if (tried > 0) headers["Jf-Attempt"] = String(tried);
  if (!deadline) delete headers["Jf-Deadline"];
  return headers;
}

/** Return metadata as a value; null if they are none. */
export function metadataOf(task: Task): Readonly<Record<string, unknown>> {
  const value = task.metadata === null ? {} : parse(task.metadata);
  return value !== null && typeof value === "object" ? (value as Record<string, unknown>) : {};
}
