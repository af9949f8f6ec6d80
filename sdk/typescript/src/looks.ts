/** Looks at joins: how many of a step's children have ended, as the leader has it. Counters only tell when to look. */

import type { Broker } from "./broker.js";
import { JetflowError, LostValue, MalformedRecord, UnknownVersion } from "./errors.js";
import type { Graph } from "./graph.js";
import { idSum, isRunId, unpackIds } from "./identity.js";
import * as policies from "./policies.js";
import { decode, decodeOutcome, failure, outcome, type JoinRecord, type Outcome } from "./records.js";
import type { Registry } from "./registry.js";
import { getLarge } from "./values.js";
import { lastToken, SEAL, subjects, taskOf, type Join, type Task } from "./wire.js";

/** A join that is complete: what its step was, and the children that failed it. `rest`: some have not ended. */
export interface View {
  readonly record: JoinRecord;
  readonly task: Task;
  readonly graph: Graph;
  readonly failed: readonly Outcome[];
  readonly met: boolean;
  readonly rest: boolean;
}

/** A join that nobody can decide, and how its run ends, or has ended, therefore. */
export interface Broken {
  readonly broken: Outcome;
  readonly task: Task;
  readonly graph: Graph | undefined;
}

const KEPT = 10_000;
const keyOf = ({ root, run, step }: Join) => `${root}.${run}.${step}`;

/** Remembers what spares a look: forgetting it costs one. */
export class Looks {
  /** From which value of its counter a join is worth another look. */
  private readonly worthAt = new Map<string, number>();
  private readonly decided = new Set<string>();

  constructor(private readonly broker: Broker, private readonly registry: Registry) {
    broker.onReconnect(() => this.decided.clear());
  }

  /** Look no more at a join: all was done that follows it. */
  decide(join: Join, turn: number): void {
    if (this.decided.size > KEPT) this.decided.clear();
    this.decided.add(`${keyOf(join)}.${turn}`);
    this.worthAt.delete(keyOf(join));
  }

  /** Look at a join. `failed`: at the failure of a child, which decides an early policy alone. */
  async look(join: Join, value: number | undefined, failed: boolean): Promise<View | Broken | undefined> {
    if (value !== undefined && (value < SEAL || value < (this.worthAt.get(keyOf(join)) ?? 0))) return undefined;
    try {
      return await this.view(join, value, failed);
    } catch (error) {
      if (error instanceof MalformedRecord || error instanceof UnknownVersion || error instanceof LostValue) return this.brokenBy(join, error);
      throw error;
    }
  }

  private async view(join: Join, value: number | undefined, atFailure: boolean): Promise<View | Broken | undefined> {
    const record = await this.newest(join);
    if (record === undefined) return undefined;
    const { policy, total, needed, borrowed } = record;
    if (this.decided.has(`${keyOf(join)}.${record.turn}`) || (atFailure && policy.early !== true)) return undefined;
    if (record.kind === "parked" && needed === 0) return undefined; // it waits for a time, or for what others know of
    const { ended, members } = await this.ended(join, record);
    let missing = needed - ended;
    let failed: Outcome[] = [];
    if (total > 0 && (missing <= 0 || policy.early === true)) {
      failed = await this.failed(join, record, members);
      missing = policies.missing(policy, total, ended - failed.length, ended);
    }
    if (missing > 0) {
      if (value === undefined || borrowed.length > 0) return undefined;
      if (this.worthAt.size > KEPT) this.worthAt.clear();
      this.worthAt.set(keyOf(join), value + missing);
      return undefined;
    }
    const task = taskOf(await this.broker.last(this.broker.namespace.relative(record.task)));
    if (task === undefined) return undefined;
    const graph = await this.registry.graph(task.workflow, task.version);
    const met = total === 0 || policies.verdict(policy, total, ended - failed.length, ended) === "met";
    if (!met && failed.some((one) => one.status === "cancelled") && (await this.isCancelled(join))) {
      return { broken: cancelled(task), task, graph }; // its children were cancelled with it, and were faster
    }
    return { record, task, graph, failed, met, rest: ended < total };
  }

  /** Return how many of a record's children have ended, and the ids of those that count; undefined if all do. */
  private async ended(join: Join, record: JoinRecord): Promise<{ ended: number; members: ReadonlySet<string> | undefined }> {
    const members = record.members === null ? undefined : new Set(unpackIds(record.members));
    if (record.needed === 0 && record.total === 0) return { ended: 0, members };
    const stored = new Set((await this.broker.subjects(subjects.outcomeOf(join, "*"))).map(lastToken).filter(isRunId));
    const read = await Promise.all(record.borrowed.map(([run, step]) => this.broker.last(subjects.outcomeOf(join, run, step))));
    const borrowed = read.filter((one) => one !== null).length;
    if (members !== undefined) return { ended: [...members].filter((one) => stored.has(one)).length + borrowed, members };
    const all = stored.size + borrowed;
    const own = (record.total || record.needed) - record.borrowed.length;
    if (all < record.needed) return { ended: all, members: undefined };
    if (stored.size === own && (record.id_sum === "" || idSum(stored) === record.id_sum)) return { ended: all, members: stored };
    // It is disputed: which of the stored tasks the record counts cannot be told, so all of them have to be done.
    const tasks = await this.spawnedBy(join);
    const done = [...tasks].filter((one) => stored.has(one)).length;
    const open = tasks.size - done + record.borrowed.length - borrowed;
    return { ended: Math.min(record.needed - open, done + borrowed), members: tasks };
  }

  /** Return which of the children count whose outcomes are stored under a step; undefined if all do. */
  async counted(join: Join, record: JoinRecord | undefined): Promise<ReadonlySet<string> | undefined> {
    if (record?.kind !== "sealed") return this.spawnedBy(join); // it waited for all of them
    return record.members === null ? (await this.ended(join, record)).members : new Set(unpackIds(record.members));
  }

  /** Return the children whose stored tasks name the step. */
  async spawnedBy(join: Join): Promise<Set<string>> {
    const found = new Set<string>();
    for await (const page of this.broker.pages(subjects.children("task", join.root, join.run))) {
      for (const { subject, headers } of page) if (headers.get("Jf-Parent-Step") === join.step) found.add(subject.split(".")[5]!);
    }
    return found;
  }

  /** Return how the children ended that fail a join: not those that its step has seen. */
  private async failed(join: Join, record: JoinRecord, members: ReadonlySet<string> | undefined): Promise<Outcome[]> {
    const marks = await this.broker.subjects(`mark.${keyOf(join)}.*.*.*`);
    const own = [...new Set(marks.map(lastToken))].filter((one) => members?.has(one) ?? true);
    const excused = new Set(record.excused);
    const all = [...own.map((one) => [one, join.step] as const), ...record.borrowed].filter(([run]) => !excused.has(run));
    const stored = await this.broker.many(all.map(([run, step]) => subjects.outcomeOf(join, run, step)));
    return stored.map((one) => decodeOutcome(one.body)).filter((one) => one.status !== "succeeded");
  }

  private async isCancelled({ root, run }: Join): Promise<boolean> {
    const marks = await Promise.all([run, root].map((one) => this.broker.last(subjects.cancel(root, one))));
    return marks.some((mark) => mark?.body.length === 0);
  }

  private async brokenBy(join: Join, error: JetflowError): Promise<Broken | undefined> {
    const task = taskOf(await this.broker.last(subjects.turns("task", join.root, join.run)));
    if (task === undefined) return undefined;
    const stored = await this.broker.last(subjects.outcome(task));
    const of = { error: failure(error.type, error.message, join.step), workflow: task.workflow, step: join.step, key: task.key, ended: Date.now() / 1000 };
    const graph = await this.registry.graph(task.workflow, task.version).catch(() => undefined);
    return { broken: stored === null ? outcome("failed", of) : decodeOutcome(stored.body), task, graph };
  }

  /** Return the newest join record of a step. Throws MalformedRecord, LostValue. */
  async newest(join: Join): Promise<JoinRecord | undefined> {
    const stored = await this.broker.last(subjects.join(join, "*"));
    return stored === null ? undefined : this.unpacked(join, stored.body);
  }

  /** Return a join record, also one that is kept apart. Throws MalformedRecord, LostValue. */
  async unpacked(join: Join, body: Uint8Array): Promise<JoinRecord> {
    const record = decode("join", body);
    const whole = record?.whole == null ? record : decode("join", await getLarge(this.broker, join.root, record.whole));
    if (whole === undefined) throw new MalformedRecord(`the join record of step '${join.step}' of run ${join.run} cannot be read`);
    return whole;
  }
}

/** Return the outcome of a cancelled run. */
export function cancelled(task: Task): Outcome {
  const [now, { workflow, step, key }] = [Date.now() / 1000, task];
  return outcome("cancelled", { error: failure("Cancelled", "the run was cancelled"), workflow, step, key, started: now, ended: now });
}
