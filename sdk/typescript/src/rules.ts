/**
 * What follows what: every rule by which a run moves on.
 *
 * The order of the writes is the proof (docs/wire.md, Join): an outcome is stored before it is counted, and counted
 * before its task is acknowledged, so whoever counts last sees everything. All is write-once: repeating a rule, or two
 * workers that follow it at once, end in the same state.
 */

import { bytesOf, type Broker } from "./broker.js";
import { cancelLeft, cancelOpen } from "./cancelling.js";
import { decide, ending, hasFailed, leftOut, type Graph } from "./graph.js";
import { unpackIds } from "./identity.js";
import { canonical, type Raw } from "./json.js";
import { Looks, type View } from "./looks.js";
import { decode, decodeOutcome, encode, failure, NO_JOIN, NULL, outcome, type JoinRecord, type Outcome } from "./records.js";
import type { Registry } from "./registry.js";
import { chunkSize, putLarge, readable } from "./values.js";
import { ADMIT, END, parentJoin, SEAL, START, subjects, taskHeaders, type Join, type Task } from "./wire.js";

const HELD = 1000;
const COUNTERS_KEPT = 10_000;
const PLACE = /^[\w-]+\.[\w-]+$/;

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
    if (ended.status !== "succeeded") await broker.store(subjects.mark(task, ended.status), markOf(ended));
    const fitted = this.isLarge(ended) ? await this.fitted(task, ended) : ended;
    const body = encode(fitted);
    const filter = task.shared ? subjects.outcomeOfAnyStep(task) : undefined;
    const there = await broker.store(subjects.outcome(task), body, undefined, filter);
    const stored = there === null ? fitted : decodeOutcome(there.body);
    const join = parentJoin(task);
    if (join !== undefined && this.isHeard(join)) broker.send(broker.namespace.absolute(subjects.live(task)), there?.body ?? body);
    await this.repeatEnd(task, graph, stored, stored.status === "succeeded");
  }

  /** Do what follows the end of a run that is stored, again if whoever ended it may have died before it was done. */
  async repeatEnd(task: Task, graph: Graph | undefined, ended: Outcome, well = false): Promise<void> {
    const join = parentJoin(task);
    if (join !== undefined) {
      const value = await this.count(join, 1);
      if (task.eager && !well) await this.settle(join);
      else if (value !== undefined && value >= SEAL) await this.settle(join, { value });
      else if (!well && (value ?? SEAL) > SEAL / 2) await this.settle(join, { atFailure: true });
    }
    await this.leave(task);
    if (graph === undefined) return;
    for (const step of graph.limited) await this.leave(task, step);
    const failed = hasFailed(ended);
    if (failed && graph.failFast && graph.nodes.length > 1) await cancelLeft(this, task, graph);
    const sequel = failed ? graph.onFailure : ended.status === "succeeded" ? graph.onSuccess : null;
    const { "Jf-Deadline": _, ...headers } = task.headers;
    if (sequel !== null) await this.start({ ...task, headers }, sequel, 0);
  }

  /** Give the places of limits back that a run, or a step of it, has, and ask workers of level full to look who is next. */
  private async leave(task: Task, step?: string): Promise<void> {
    const { "Jf-Places": own } = task.headers;
    if (step === undefined && own === undefined && task.step !== ADMIT) return;
    const { broker } = this;
    let places = own?.split(" ") ?? [];
    if (step !== undefined || own === undefined) {
      const stored = await broker.last(subjects.once({ ...task, step: step ?? ADMIT }, step === undefined ? "places" : "_places"));
      places = (stored && decode("needed", stored.body))?.places.map((one) => one.slice(0, 2).join(".")) ?? [];
    }
    places = places.filter((one) => PLACE.test(one));
    if (places.length === 0) return;
    const who = step === undefined ? task.run : `${task.run}=${step}`;
    await broker.store(`gone.${task.root}.${who}`);
    await broker.purge(places.map((one) => `entry.${one}.${task.root}.${task.parent}.${who}`));
    await Promise.all(places.map((one) => broker.publish(`in.limit.${one}`)));
  }

  /** Tell whether anybody may listen to how a child ends: not where its parent has returned, and many are open. */
  private isHeard(join: Join): boolean {
    const value = this.counters.get(subjects.counter("join", join)) ?? 0;
    return !(value > SEAL / 2 && value < SEAL - 1000);
  }

  private async count(join: Join, by: number): Promise<number | undefined> {
    const counter = subjects.counter("join", join);
    const value = await this.broker.count(counter, by);
    if (this.counters.size > COUNTERS_KEPT) this.counters.clear();
    if (value !== undefined) this.counters.set(counter, value);
    return value;
  }

  /** End a step that waits for nothing more, however it ended. The end of the only last one is the run's. */
  async finish(task: Task, graph: Graph, ended: Outcome, spawned = false, woken?: Set<string>): Promise<void> {
    if (graph.lasts.length === 1 && graph.lasts[0] === task.step) return this.conclude(task, ended, graph);
    const stored = await this.storeStep(task, task.step, ended);
    if (graph.isSequel(task.step)) return;
    await this.advance(task, graph, task.step, stored);
    if (graph.limited.has(task.step)) await this.leave(task, task.step);
    if (spawned) await this.wakeBeside(task, graph, woken);
  }

  private async storeStep(task: Task, step: string, ended: Outcome): Promise<Outcome> {
    const fitted = await this.fitted(task, ended);
    const there = await this.broker.store(subjects.step(task, step), encode(fitted));
    return there === null ? fitted : decodeOutcome(there.body);
  }

  private isLarge = ({ output }: { readonly output: Raw }): boolean => output.text.length * 3 > chunkSize(this.broker.maxPayload);

  /** Return an outcome or a record whose output is kept by reference, if it is large. */
  private async fitted<T extends Outcome | JoinRecord>(task: Task, record: T): Promise<T> {
    const value = record.value === null ? await putLarge(this.broker, task.root, record.output.text, "an output") : null;
    return value === null ? record : { ...record, output: NULL, value };
  }

  /** Go on behind a step whose outcome is stored: run, or leave out, what comes after it. */
  async advance(task: Task, graph: Graph, step: string, ended: Outcome): Promise<void> {
    if (graph.failFast && hasFailed(ended)) return this.conclude(task, ending(task, graph, new Map([[step, ended]])), graph);
    for (const following of graph.behind(step)) {
      const upstream = graph.after(following);
      const before = upstream.length === 1 ? new Map([[step, ended]]) : await this.gathered(task, following, upstream);
      if (before === undefined) continue;
      const verdict = decide([...before.values()].map((one) => one.status), graph.conditional.has(following));
      if (verdict === "run") await this.start(task, following, 0);
      else await this.advance(task, graph, following, await this.storeStep(task, following, leftOut(task, following, verdict, before)));
    }
    if (!graph.lasts.includes(step)) return;
    const steps = await this.gathered(task, END, graph.lasts, graph.nodes.map((node) => node.name));
    if (steps === undefined) return;
    for (const name of graph.lasts) steps.set(name, await readable(this.broker, task.root, steps.get(name)!, name));
    await this.conclude(task, ending(task, graph, steps), graph);
  }

  /** Come to a gate behind steps, or after the last one; return how they, or `all`, have ended, as the leader has it. */
  private async gathered(task: Task, gate: string, upstream: readonly string[], all = upstream): Promise<Map<string, Outcome> | undefined> {
    if (upstream.length > 1) {
      const value = await this.broker.count(subjects.counter("gate", { ...task, step: gate }), 1, true);
      if (value !== undefined && value < upstream.length) return undefined;
    }
    const stored = await Promise.all(all.map((step) => this.broker.last(subjects.step(task, step))));
    const steps = new Map(all.flatMap((step, at) => (stored[at] ? [[step, decodeOutcome(stored[at].body)]] : [])));
    return upstream.every((step) => steps.has(step)) ? steps : undefined;
  }

  /** Look at the joins of steps that may have waited for children of this one: each once in a chain of wakings. */
  private async wakeBeside(task: Task, graph: Graph, woken = new Set<string>()): Promise<void> {
    woken.add(task.step);
    for (const step of graph.beside(task.step)) {
      if (woken.has(step)) continue;
      woken.add(step);
      await this.settle({ root: task.root, run: task.run, step }, { woken });
    }
  }

  // --- tasks and turns

  /** Publish the task of a step's turn. */
  private async start(task: Task, step: string, turn: number, tried = 0): Promise<void> {
    await this.broker.store(subjects.task(task, step, turn), task.body, taskHeaders(task, step, turn, tried));
  }

  async begin(task: Task, graph: Graph): Promise<void> {
    await Promise.all(graph.behind(START).map((step) => this.start(task, step, 0)));
  }

  private wake = (task: Task, tried: number): Promise<void> => this.start(task, task.step, task.turn + 1, tried);

  /** Park the first turn of a run until it is to begin. */
  async defer(task: Task, until: number): Promise<void> {
    const stored = this.broker.namespace.absolute(subjects.task(task));
    await this.seal(task, { ...NO_JOIN, kind: "parked", turn: task.turn, task: stored, needed: 0, until });
  }

  /** Seal or park a step: store what it waits for, then see to it that somebody goes on with it. */
  async seal(task: Task, record: JoinRecord): Promise<void> {
    const fitted = await this.fitted(task, record);
    let body = encode(fitted);
    if (bytesOf(body).length > this.broker.maxPayload / 2) {
      const { kind, turn, needed, total, policy, until, tried } = fitted;
      const whole = await putLarge(this.broker, task.root, body, "a join record");
      body = encode({ kind, turn, task: fitted.task, needed, total, policy, until, tried, whole });
    }
    const there = await this.broker.store(subjects.join(task, task.turn), body);
    await this.awaitWakers(task, there === null ? fitted : await this.looks.unpacked(task, there.body));
  }

  /** Arm the timer of a step whose join record is stored, and count its children. */
  private async awaitWakers(task: Task, record: JoinRecord): Promise<void> {
    if (record.until !== null && (await this.arm(task, record, record.until * 1000))) return this.wake(task, record.tried);
    if (record.kind === "parked" && record.needed === 0) return;
    const value = await this.count(task, increment(record));
    if (record.borrowed.length > 0 || record.policy.early === true) await this.settle(task);
    else if (value !== undefined && value >= SEAL) await this.settle(task, { value });
  }

  /** Arm the timer of a parked turn. Returns true if its time has come. */
  private async arm(task: Task, { tried, needed }: JoinRecord, until: number): Promise<boolean> {
    const left = until - Date.now();
    if (left <= 0 || (needed === 0 && left < HELD && (await this.hold?.(task, left)) === true)) return true;
    await this.broker.publish(subjects.timer(task), undefined, {
      "Nats-Schedule": `@at ${new Date(Math.ceil(until)).toISOString()}`,
      "Nats-Schedule-Target": this.broker.namespace.absolute(subjects.due(task)), ...(tried > 0 && { "Jf-Attempt": String(tried) }),
    });
    return false;
  }

  // --- joins

  /** Look whether a join is decided, and move its step on if it is. `value` is its counter's, if that is why. */
  async settle(join: Join, why: { value?: number; woken?: Set<string>; atFailure?: boolean } = {}): Promise<void> {
    const view = await this.looks.look(join, why.value, why.atFailure ?? false);
    if (view === undefined) return;
    if ("broken" in view) return this.conclude(view.task, view.broken, view.graph);
    const { record, task } = view;
    if (record.kind === "parked") {
      await this.wake(task, record.tried);
      if (record.until !== null) await this.broker.purge([subjects.timer(task)]);
    } else await this.unseal(join, view, why.woken);
    this.looks.decide(join, record.turn);
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
    if (!view.rest || record.policy.cancel_rest !== true) return;
    this.looks.decide(join, record.turn); // each of the rest would look
    await cancelOpen(this, join, record.members === null ? undefined : unpackIds(record.members));
  }

  /** Go on from what an earlier delivery of a task has stored. Returns false if it must run (again). */
  async resume(task: Task, graph: Graph): Promise<boolean> {
    const found = [subjects.outcome(task), subjects.step(task), subjects.join(task, task.turn)].map((one) => this.broker.last(one));
    const [run, step, join] = await Promise.all(found);
    const isSequel = graph.isSequel(task.step);
    if (run && !isSequel) await this.repeatEnd(task, graph, decodeOutcome(run.body));
    else if (step && isSequel) return true;
    else if (step) {
      // A look of another may have ended a step that is not counted.
      if (join) await this.count(task, SEAL);
      await this.advance(task, graph, task.step, decodeOutcome(step.body));
      await this.wakeBeside(task, graph);
    } else if (join) await this.awaitWakers(task, await this.looks.unpacked(task, join.body));
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
