/** Subjects, and tasks as messages, both ways. Subjects are told without their namespace, which the broker puts before them. */

import { isName, isRunId } from "./identity.js";
import { parse } from "./json.js";

export const START = "_start";
export const ADMIT = "_admit";
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
  readonly notBefore: number | null;
  readonly eager: boolean;
  /** Several steps of the parent run may spawn it. */
  readonly shared: boolean;
  readonly value: string | null;
  readonly tried: number;
  readonly body: Uint8Array;
  /** Those of the run, as they came: every task of the run repeats them. */
  readonly headers: Readonly<Record<string, string>>;
}

/** In which stream a subject is kept, by its first token. */
const STREAMS = {
  task: "tasks", cancel: "tasks", run: "records", step: "records", join: "records", mark: "records", try: "records", once: "records",
  value: "values", timer: "timers", due: "timers", in: "inbox", entry: "gates", gone: "gates", counters: "counters", workflows: "workflows",
};
const isBucket = (name: string): boolean => name === "counters" || name === "workflows";
const kindOf = (subject: string): string => subject.slice(0, subject.indexOf("."));

/** Where one namespace keeps what. */
export class Namespace {
  private readonly prefixes: readonly [jf: string, kv: string];
  private readonly streams: ReadonlyMap<string, string>;

  constructor(name: string) {
    this.prefixes = [`jf.${name}.`, `$KV.jf_${name}_`];
    this.called = (stream) => `${isBucket(stream) ? "KV_jf" : "JF"}_${name}_${stream}`;
    this.streams = new Map(Object.entries(STREAMS).map(([kind, stream]) => [kind, this.called(stream)]));
  }

  /** Return the name of a stream or a bucket. */
  readonly called: (stream: string) => string;

  /** Return the stream that a subject is of. */
  stream = (subject: string): string => this.streams.get(kindOf(subject)) ?? "";

  /** Return a subject as it stands on the wire. */
  absolute = (subject: string): string => this.prefixes[isBucket(kindOf(subject)) ? 1 : 0] + subject;

  /** Return a subject of the wire without its namespace. */
  relative = (subject: string): string => {
    const prefix = this.prefixes.find((one) => subject.startsWith(one)) ?? "";
    return subject.slice(prefix.length);
  };
}

type Turned = "task" | "timer.wake" | "due.wake";
type Turn = Pick<Task, "workflow" | "step" | "root" | "parent" | "run" | "turn">;
const turned = (kind: Turned) => ({ workflow, root, parent, run, ...of }: Turn, step = of.step, turn = of.turn) =>
  `${kind}.${workflow}.${step}.${root}.${parent}.${run}.${turn}`;
const stepped = (kind: string) => ({ root, run, ...of }: Join, step = of.step) => `${kind}.${root}.${run}.${step}`;
const ended = ({ root, parent, parentStep, run }: Task) => `run.${root}.${parent}.${parentStep}.${run}`;

/** Subjects and filters of subjects. */
export const subjects = {
  task: turned("task"),
  timer: turned("timer.wake"),
  due: turned("due.wake"),
  cancel: (root: string, run: string) => `cancel.${root}.${run}`,
  outcome: ended,
  live: (task: Task) => `live.${ended(task)}`,
  step: stepped("step"),
  join: (join: Join, turn: number | string) => `${stepped("join")(join)}.${turn}`,
  mark: ({ root, parent, parentStep, workflow, run }: Task, status: string) => `mark.${root}.${parent}.${parentStep}.${status}.${workflow}.${run}`,
  attempt: (task: Task, delivery: number | string) => `${stepped("try")(task)}.${task.turn}.${delivery}`,
  once: (join: Join, token: string) => `${stepped("once")(join)}.${token}`,
  value: (root: string, value: string, chunk: number) => `value.${root}.${value}.${chunk}`,
  counter: (kind: "join" | "gate" | "tree", join: Join) => stepped(`counters.${kind}`)(join),
  workflow: (workflow: string, version?: string) => `workflows.${workflow}${version === undefined ? "" : `.${version}`}`,
  outcomeOfAnyStep: ({ root, parent, run }: Task) => `run.${root}.${parent}.*.${run}`,
  outcomeById: (run: string) => `run.*.*.*.${run}`,
  outcomeOf: (join: Join, child: string, step = join.step) => `run.${join.root}.${join.run}.${step}.${child}`,
  // Tasks and timers: of a tree, of the children of a run, of a run.
  tree: (kind: Turned, root: string) => `${kind}.*.*.${root}.>`,
  children: (kind: Turned, root: string, run: string) => `${kind}.*.*.${root}.${run}.>`,
  turns: (kind: Turned, root: string, run: string) => `${kind}.*.*.${root}.*.${run}.*`,
};

export const lastToken = (subject: string): string => subject.slice(subject.lastIndexOf(".") + 1);

/** The join of the parent in which a task's run is counted; undefined for a root run. */
export const parentJoin = (task: Task): Join | undefined =>
  task.parent === NONE ? undefined : { root: task.root, run: task.parent, step: task.parentStep };

const REPEATED = new Set([
  "Jf-Parent-Step", "Jf-Version", "Jf-Depth", "Jf-Digest", "Jf-Key", "Jf-Metadata", "Jf-Deadline", "Jf-Not-Before",
  "Jf-Eager", "Jf-Shared", "Jf-Value", "Jf-Elder", "Jf-Rerun", "Jf-Level", "Jf-Places", "Jf-Held", "traceparent",
]);
const NUMBER = /^(?:0|[1-9]\d{0,8})$/;

/** Read a task; undefined for what is none: it is terminated, and never leads to anything. */
export function readTask(subject: string, given: Iterable<readonly [string, string]>, body: Uint8Array): Task | undefined {
  const [kind, workflow = "", step = "", root = "", parent = "", run = "", turn = "", ...more] = subject.split(".");
  const headers: Record<string, string> = {};
  let tried = "0";
  for (const [name, value] of given) {
    if (REPEATED.has(name)) headers[name] = value;
    else if (name === "Jf-Attempt") tried = value;
  }
  const { "Jf-Parent-Step": parentStep = NONE, "Jf-Depth": depth = "0", "Jf-Deadline": deadline, "Jf-Not-Before": notBefore } = headers;
  const fits =
    kind === "task" && more.length === 0 && NUMBER.test(turn) && isRunId(root) && isRunId(run) &&
    (parent === NONE ? parentStep === NONE && root === run : isRunId(parent) && isName(parentStep)) &&
    NUMBER.test(depth) && NUMBER.test(tried) && [deadline, notBefore].every((text) => text === undefined || Number.isFinite(Number(text)));
  if (!fits) return undefined;
  return {
    workflow, step, root, parent, run, turn: Number(turn), parentStep,
    version: headers["Jf-Version"] ?? "", depth: Number(depth), digest: headers["Jf-Digest"] ?? "", key: keyOf(headers["Jf-Key"]),
    metadata: headers["Jf-Metadata"] ?? null, trace: headers["traceparent"] ?? null,
    deadline: deadline === undefined ? null : Number(deadline), notBefore: notBefore === undefined ? null : Number(notBefore), eager: headers["Jf-Eager"] === "1",
    shared: headers["Jf-Shared"] === "1", value: headers["Jf-Value"] ?? null, tried: Number(tried), body, headers,
  };
}

/** Return the task that is stored, if it is one. */
export const taskOf = (stored: { subject: string; headers: Iterable<readonly [string, string]>; body: Uint8Array } | null): Task | undefined =>
  stored === null ? undefined : readTask(stored.subject, stored.headers, stored.body);

function keyOf(shown: string | undefined): string | null {
  if (shown === undefined) return null;
  try {
    const key = parse(shown);
    return typeof key === "string" ? key : shown;
  } catch {
    return shown; // it is for showing only
  }
}

/** Return the headers of another task of a task's run. */
export function taskHeaders(task: Task, step: string, turn: number, tried = 0): Record<string, string> {
  return {
    "Nats-Msg-Id": `${task.run}.${step}.${turn}`, "Jf-Parent-Step": task.parentStep, "Jf-Version": task.version,
    "Jf-Depth": String(task.depth), ...task.headers, ...(tried > 0 && { "Jf-Attempt": String(tried) }),
  };
}
