/**
 * What follows what: every rule by which a run moves on.
 *
 * The order of the writes is the proof (docs/wire.md, Join): an outcome is stored before it is counted, and counted
 * before its task is acknowledged, so whoever counts last sees everything. All is write-once: repeating a rule, or two
 * workers that follow it at once, end in the same state.
 */

import { bytesOf, type Broker } from "./broker.js";
import { cancelLeft, cancelRest } from "./cancelling.js";
import { decide, ending, hasFailed, leftOut, type Graph } from "./graph.js";
import { canonical, type Raw } from "./json.js";
import { Looks, type View } from "./looks.js";
import { decodeOutcome, encode, failure, NULL, outcome, type JoinRecord, type Outcome } from "./records.js";
import type { Registry } from "./registry.js";
import { chunkSize, putLarge, withOutput } from "./values.js";
import { END, parentJoin, SEAL, START, taskHeaders, type Join, type Task } from "./wire.js";

const HELD = 1000;
const COUNTERS_KEPT = 10_000;

/** How much the record of a step adds to its counter. */
const increment = (record: JoinRecord) => SEAL - Math.max(0, record.needed - record.borrowed.length);

/** Moves the runs of one namespace on. */
export class Rules {
  readonly looks: Looks;
  /** Keeps a task whose next attempt is due within a second; undefined arms a timer for every one. */
  hold: ((task: Task, ms: number) => Promise<boolean>) | undefined;
  private readonly counters = new Map<string, number>();

  constructor(readonly broker: Broker, readonly registry: Registry) {
    this.looks = new Looks(broker, registry);
  }

  // --- the ends of runs and steps

  /** End a run. `graph` tells what follows a failure. */
  async conclude(task: Task, ended: Outcome, graph?: Graph): Promise<void> {
    const { broker } = this;
    const { names } = broker;
    if (ended.status !== "succeeded") await broker.store(names.records, names.mark(task, ended.status), markOf(ended));
    const fitted = this.isLarge(ended) ? await this.fitted(task, ended) : ended;
    const body = encode(fitted);
    const there = await broker.store(names.records, names.outcome(task), body);
    const stored = there === null ? fitted : decodeOutcome(there.body);
    if (parentJoin(task) !== undefined && this.isHeard(task)) broker.send(names.live(task), there?.body ?? body);
    await this.countUp(task, stored.status === "succeeded");
    if (graph !== undefined && hasFailed(stored)) await this.afterFailure(task, graph);
  }

  /** Repeat what follows the end of a run that is stored, for whoever ended it may have died before it was done. */
  async repeatEnd(task: Task, graph: Graph | undefined, ended: Outcome): Promise<void> {
    await this.countUp(task, false);
    if (graph !== undefined && hasFailed(ended)) await this.afterFailure(task, graph);
  }

  private async afterFailure(task: Task, graph: Graph): Promise<void> {
    if (graph.failFast && graph.nodes.length > 1) await cancelLeft(this, task, graph);
    if (graph.onFailure !== null) await this.start(task, graph.onFailure, 0, 0, false);
  }

  /** Tell whether anybody may listen to how a child ends: not where its parent has returned, and many are open. */
  private isHeard(task: Task): boolean {
    const value = this.counters.get(this.broker.names.counter("join", parentJoin(task)!)) ?? 0;
    return !(value > SEAL / 2 && value < SEAL - 1000);
  }

  private async countUp(task: Task, well: boolean): Promise<void> {
    const join = parentJoin(task);
    if (join === undefined) return;
    const value = await this.count(join, 1);
    if (task.eager && !well) await this.settle(join);
    else if (value !== undefined && value >= SEAL) await this.settle(join, value);
    else if (!well && (value ?? SEAL) > SEAL / 2) await this.settle(join, undefined, undefined, true);
  }

  private count(join: Join, by: number): Promise<number | undefined> {
    const counter = this.broker.names.counter("join", join);
    return this.broker.count(counter, by).then((value) => {
      if (this.counters.size > COUNTERS_KEPT) this.counters.clear();
      if (value !== undefined) this.counters.set(counter, value);
      return value;
    });
  }

  /** End a step that waits for nothing more, however it ended. The end of the only last one is the run's. */
  finish(task: Task, graph: Graph, ended: Outcome, spawned = false, woken?: Set<string>): Promise<void> {
    if (graph.lasts.length === 1 && graph.lasts[0] === task.step) return this.conclude(task, ended, graph);
    return this.goOn(task, graph, ended, spawned, woken);
  }

  private async goOn(task: Task, graph: Graph, ended: Outcome, spawned: boolean, woken?: Set<string>): Promise<void> {
    if (task.step === graph.onFailure) await this.storeStep(task, task.step, ended);
    else {
      await this.advance(task, graph, task.step, await this.storeStep(task, task.step, ended));
      if (spawned) await this.wakeBeside(task, graph, woken);
    }
  }

  private async storeStep(task: Task, step: string, ended: Outcome): Promise<Outcome> {
    const { names } = this.broker;
    const fitted = await this.fitted(task, ended);
    const there = await this.broker.store(names.records, names.step(task, step), encode(fitted));
    return there === null ? fitted : decodeOutcome(there.body);
  }

  private isLarge = ({ output }: { readonly output: Raw }): boolean => output.text.length * 3 > chunkSize(this.broker.maxPayload);

  /** Return an outcome or a record whose output is kept by reference, if it is large. */
  async fitted<T extends Outcome | JoinRecord>(task: Task, record: T): Promise<T> {
    const value = record.value === null ? await putLarge(this.broker, task.root, record.output.text, "an output") : null;
    return value === null ? record : { ...record, output: NULL, value };
  }

  /** Go on behind a step whose outcome is stored: run, or leave out, what comes after it. */
  async advance(task: Task, graph: Graph, step: string, ended: Outcome): Promise<void> {
    if (graph.failFast && hasFailed(ended)) return this.conclude(task, ending(task, graph, new Map([[step, ended]])), graph);
    for (const following of graph.behind(step)) {
      const upstream = graph.after(following);
      const before = upstream.length === 1 ? new Map([[step, ended]]) : await this.gathered(task, upstream, following);
      if (before === undefined) continue;
      const verdict = decide([...before.values()].map((one) => one.status));
      if (verdict === "run") await this.start(task, following, 0);
      else await this.advance(task, graph, following, await this.storeStep(task, following, leftOut(task, following, verdict, before)));
    }
    if (!graph.lasts.includes(step)) return;
    if (graph.lasts.length > 1 && !(await this.mayPass(task, graph.lasts.length, END))) return;
    const steps = await this.readSteps(task, graph.nodes.map((node) => node.name));
    if (!graph.lasts.every((name) => steps.has(name))) return;
    for (const name of graph.lasts) {
      const last = steps.get(name)!;
      if (last.value !== null) steps.set(name, await this.loaded(task, name, last));
    }
    await this.conclude(task, ending(task, graph, steps), graph);
  }

  private async loaded(task: Task, step: string, ended: Outcome): Promise<Outcome> {
    return withOutput(this.broker, task.root, ended).catch((error: unknown) => {
      if (!(error instanceof Error) || error.name !== "LostValue") throw error;
      return { ...ended, status: "failed" as const, output: NULL, value: null, error: failure("LostValue", error.message, step) };
    });
  }

  /** Come to a gate behind several steps; return how they have ended, if all have. */
  private async gathered(task: Task, upstream: readonly string[], gate: string): Promise<Map<string, Outcome> | undefined> {
    if (!(await this.mayPass(task, upstream.length, gate))) return undefined;
    const steps = await this.readSteps(task, upstream);
    return steps.size === upstream.length ? steps : undefined;
  }

  private async mayPass(task: Task, most: number, step: string): Promise<boolean> {
    const value = await this.broker.count(this.broker.names.counter("gate", { root: task.root, run: task.run, step }), 1, true);
    return value === undefined || value >= most;
  }

  /** Return how steps of a run have ended, as the leader has it, in the order of their names. */
  async readSteps(task: Task, steps: readonly string[]): Promise<Map<string, Outcome>> {
    const { names } = this.broker;
    const read = await Promise.all(steps.map(async (step) => [step, await this.broker.last(names.records, names.step(task, step))] as const));
    return new Map(read.flatMap(([step, stored]) => (stored === null ? [] : [[step, decodeOutcome(stored.body)]])));
  }

  /** Look at the joins of steps that may have waited for children of this one: each once in a chain of wakings. */
  async wakeBeside(task: Task, graph: Graph, woken = new Set<string>()): Promise<void> {
    woken.add(task.step);
    for (const step of graph.beside(task.step)) {
      if (woken.has(step)) continue;
      woken.add(step);
      await this.settle({ root: task.root, run: task.run, step }, undefined, woken);
    }
  }

  // --- tasks and turns

  /** Publish the task of a step's turn. */
  async start(task: Task, step: string, turn: number, tried = 0, deadline = true): Promise<void> {
    const { names } = this.broker;
    await this.broker.store(names.tasks, names.task(task, step, turn), task.body, taskHeaders(task, step, turn, tried, deadline));
  }

  async begin(task: Task, graph: Graph): Promise<void> {
    await Promise.all(graph.behind(START).map((step) => this.start(task, step, 0)));
  }

  private wake = (task: Task, tried: number): Promise<void> => this.start(task, task.step, task.turn + 1, tried);

  /** Seal or park a step: store what it waits for, then see to it that somebody goes on with it. */
  async seal(task: Task, record: JoinRecord): Promise<void> {
    const { names } = this.broker;
    const fitted = await this.fitted(task, record);
    let body = bytesOf(encode(fitted));
    if (body.length > this.broker.maxPayload / 2) body = bytesOf(encode({ ...(await this.apart(task, fitted)) }));
    const there = await this.broker.store(names.records, names.join(task, task.turn), body);
    await this.awaitWakers(task, there === null ? fitted : await this.looks.unpacked(task, there.body));
  }

  private async apart(task: Task, record: JoinRecord): Promise<Partial<JoinRecord>> {
    const { kind, turn, needed, total, policy, until, tried } = record;
    const whole = await putLarge(this.broker, task.root, encode(record), "a join record");
    return { kind, turn, task: record.task, needed, total, policy, until, tried, whole };
  }

  /** Arm the timer of a step whose join record is stored, and count its children. */
  async awaitWakers(task: Task, record: JoinRecord): Promise<void> {
    if (record.until !== null && (await this.arm(task, record))) return this.wake(task, record.tried);
    if (record.until !== null && record.needed === 0) return;
    const value = await this.count(task, increment(record));
    if (record.borrowed.length > 0 || record.policy.early === true) await this.settle(task);
    else if (value !== undefined && value >= SEAL) await this.settle(task, value);
  }

  /** Arm the timer of a parked turn. Returns true if its time has come. */
  private async arm(task: Task, { until, tried, needed }: JoinRecord): Promise<boolean> {
    const { names } = this.broker;
    const left = until! * 1000 - Date.now();
    if (left <= 0) return true;
    if (needed === 0 && left < HELD && (await this.hold?.(task, left)) === true) return true;
    const headers: Record<string, string> = {
      "Nats-Schedule": `@at ${new Date(Math.ceil(until! * 1000)).toISOString()}`, "Nats-Schedule-Target": names.due(task),
    };
    if (tried > 0) headers["Jf-Attempt"] = String(tried);
    await this.broker.publish(names.timer(task), undefined, headers);
    return false;
  }

  // --- joins

  /** Look whether a join is decided, and move its step on if it is. */
  async settle(join: Join, value?: number, woken?: Set<string>, failed = false): Promise<void> {
    const view = await this.looks.look(join, value, failed);
    if (view === undefined) return;
    if ("broken" in view) await this.conclude(view.task, view.broken, view.graph);
    else if (view.record.kind === "parked") {
      await this.wake(view.task, view.record.tried);
      if (view.record.until !== null) await this.broker.purge(this.broker.names.timers, [this.broker.names.timer(view.task)]);
    } else await this.unseal(join, view, woken);
    this.looks.done(join, view);
  }

  private async unseal(join: Join, view: View, woken?: Set<string>): Promise<void> {
    const { record, task, graph, failed } = view;
    const { output, value, error, status, attempt, started, ended, worker } = record;
    const of = { workflow: task.workflow, step: join.step, key: task.key, attempt, started, ended, worker };
    let how = outcome(status, { ...of, output, value, error });
    if (!view.met) {
      const [first] = failed;
      const why = first && `${first.error?.type ?? "Cancelled"}: ${(first.error?.message ?? "cancelled").slice(0, 500)}`;
      const message = first
        ? `${failed.length} of ${record.total} children failed, the first of '${first.workflow}': ${why}`
        : `too few of ${record.total} children succeeded in time`;
      how = outcome("failed", { ...of, error: failure("ChildrenFailed", message, join.step) });
    }
    await this.finish(task, graph, how, true, woken);
    if (view.rest && record.policy.cancel_rest === true) await cancelRest(this, join, record);
  }

  /** Go on from what an earlier delivery of a task has stored. Returns false if it must run (again). */
  async resume(task: Task, graph: Graph): Promise<boolean> {
    const { names } = this.broker;
    const sequel = task.step === graph.onFailure;
    const read = (subject: string) => this.broker.last(names.records, subject);
    const [run, step, join] = await Promise.all([read(names.outcome(task)), read(names.step(task)), read(names.join(task, task.turn))]);
    if (run !== null && !sequel) await this.repeatEnd(task, graph, decodeOutcome(run.body));
    else if (step !== null) {
      if (sequel) return true;
      await this.advance(task, graph, task.step, decodeOutcome(step.body));
      await this.wakeBeside(task, graph);
    } else if (join !== null) await this.awaitWakers(task, await this.looks.unpacked(task, join.body));
    else return false;
    return true;
  }
}

/** Return the mark of an end that is no success: a kilobyte at most. */
function markOf(ended: Outcome): string {
  const cut = (text: string | null | undefined, most: number) => text?.slice(0, most).toWellFormed() ?? null;
  for (let most = 200; ; most = Math.floor(most / 2)) {
    const [type, message, place] = [ended.error?.type, ended.error?.message, ended.error?.place].map((one) => cut(one, most) ?? "");
    const text = canonical({ type, message, place, step: cut(ended.error?.step ?? ended.step, most), key: cut(ended.key, most) });
    if (Buffer.byteLength(text) <= 1000 || most === 0) return text;
  }
}

