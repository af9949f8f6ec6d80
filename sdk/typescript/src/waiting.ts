/**
 * Waiting for children inside a step: in memory first, by the live copies of their outcomes, and then parked.
 *
 * What was stored before anybody listened is read, and a live copy that was lost is noticed by the join's counter.
 * Parking unwinds every wait of the step: a later turn begins it again from its top.
 */

import { deferred } from "@nats-io/nats-core";

import { cancelOpen } from "./cancelling.js";
import { StepOver } from "./errors.js";
import type { Execution } from "./execution.js";
import { hashed } from "./identity.js";
import * as policies from "./policies.js";
import type { Policy } from "./policies.js";
import { decodeOutcome, type Outcome } from "./records.js";
import { readable } from "./values.js";
import { lastToken, subjects, type Task } from "./wire.js";
import type { Worker } from "./worker.js";

/** What is waited for: `left` more of the children have to end before it is worth going on. */
interface Wait {
  readonly children: ReadonlySet<string>;
  readonly policy: Policy | undefined;
  /** Seconds since the epoch. */
  readonly until: number | undefined;
  readonly began: number;
  readonly wake: () => void;
  left: number;
}

/** What a parked step needs before it goes on. */
export interface Need {
  readonly children: ReadonlySet<string>;
  readonly atLeast: number;
  readonly policy: Policy | undefined;
  readonly until: number | null;
}

interface Bounds {
  readonly policy?: Policy;
  /** Seconds since the epoch. */
  readonly until?: number | undefined;
  /** So many of the children are known to have ended. */
  readonly known?: number;
  /** Counts the children that have ended, quicker than by looking at each. */
  readonly count?: () => number;
}

const LOOK_EVERY = 1000;
const NEAR = 1000;
const SOON = 20;
const now = () => Date.now() / 1000;

/** The waits of one execution of one step. */
export class Waiting {
  readonly joined = new Set<string>();
  readonly excused = new Set<string>();
  private readonly ended = new Map<string, Outcome>();
  private readonly waits = new Set<Wait>();
  /** Waits for one child each: a step may wait in thousands of places at once. */
  private readonly single = new Map<string, Wait[]>();
  private readonly endings: (() => void)[] = [];
  /** Children that were looked for. */
  private readonly looked = new Set<string>();
  private listening: Promise<void> | undefined;
  private reading: Promise<void> = Promise.resolve();
  private nextReading: Promise<void> | undefined;
  /** The sequence of the step's counter when outcomes were read. */
  private counted = -1;
  private lastArrival = 0;
  private timer: NodeJS.Timeout | undefined;
  private readonly worker: Worker;
  private readonly task: Task;

  constructor(private readonly execution: Execution) {
    [this.worker, this.task] = [execution.worker, execution.task];
  }

  /** Wait no more. */
  close(): void {
    clearTimeout(this.timer);
    for (const end of this.endings) end();
    for (const wait of this.waits) wait.wake();
  }

  /** Wait until all children have ended, and return how. */
  async all(children: readonly string[]): Promise<Outcome[]> {
    const distinct = new Set(children);
    await this.wait(distinct, distinct.size);
    for (const child of distinct) this.joined.add(child);
    return Promise.all(children.map((child) => this.outcomeOf(child)));
  }

  /** Wait until a policy is decided, and return how those ended that have. */
  async decided(children: readonly string[], policy: Policy): Promise<{ ended: Map<string, Outcome>; open: string[]; met: boolean }> {
    const distinct = new Set(children);
    const until = policy.seconds == null ? undefined : await this.deadlineOf(distinct, policy.seconds);
    const ended = new Map<string, Outcome>();
    let how: ReturnType<typeof policies.verdict>;
    for (;;) {
      for (const child of distinct) if (this.ended.has(child) && !ended.has(child)) ended.set(child, await this.outcomeOf(child));
      const succeeded = [...ended.values()].filter((one) => one.status === "succeeded").length;
      how = policies.verdict(policy, distinct.size, succeeded, ended.size);
      if (how === "open" && until !== undefined && now() >= until) how = policies.verdict(policy, ended.size, succeeded, ended.size);
      if (how !== "open") break;
      const enough = policy.quorum == null ? distinct.size : ended.size + policy.quorum - succeeded;
      await this.wait(distinct, enough, { policy, until, known: ended.size });
    }
    const open = [...distinct].filter((child) => !ended.has(child));
    for (const child of distinct) this.joined.add(child);
    for (const child of open) this.excused.add(child);
    if (open.length > 0 && policy.cancel_rest === true) await cancelOpen(this.worker.rules, this.task, open);
    return { ended, open, met: how === "met" };
  }

  private async deadlineOf(children: ReadonlySet<string>, seconds: number): Promise<number> {
    const name = `_join-${hashed([...children].sort().join("")).slice(0, 16)}`;
    return Number(await this.execution.spawner.once(name, () => now() + seconds));
  }

  /** Yield children as they end. */
  async *each(children: readonly string[]): AsyncGenerator<string, void> {
    const left = new Set(children);
    const order = this.ended.keys(); // a Map tells of its keys in their order, also of those that come meanwhile
    for (let at = 0; left.size > 0; at++) {
      if (at >= this.ended.size) await this.wait(left, 1, { count: () => this.ended.size - at });
      const child = order.next().value!;
      if (!left.delete(child)) continue;
      yield child;
      this.execution.check();
    }
  }

  private async outcomeOf(child: string): Promise<Outcome> {
    const ended = await readable(this.worker.rules.broker, this.task.root, this.ended.get(child)!);
    if (ended.status !== "succeeded") this.excused.add(child);
    return ended;
  }

  /** Wait until so many of the children have ended, or until a time. Of an early policy, one more that failed is enough. */
  private async wait(children: ReadonlySet<string>, enough: number, bounds: Bounds = {}): Promise<void> {
    const { policy, until, known = 0, count = () => [...children].filter((one) => this.ended.has(one)).length } = bounds;
    this.execution.check();
    if (enough <= count()) return;
    await this.look(children);
    const ended = count();
    const isNews = policy?.early === true && ended > known;
    if (ended >= enough || isNews || (until !== undefined && now() >= until)) return;
    this.execution.check();
    const moved = deferred<undefined>();
    const wake = () => moved.resolve(undefined);
    const wait: Wait = { children, policy, until, began: performance.now(), wake, left: enough - ended };
    const only = children.size === 1 ? [...children][0] : undefined;
    if (only !== undefined) this.single.set(only, [...(this.single.get(only) ?? []), wait]);
    this.waits.add(wait);
    this.leaveSlot();
    const timer = until === undefined ? undefined : setTimeout(wake, Math.max(0, until * 1000 - Date.now()));
    const { parkAfterMs, maxWaiting } = this.worker.settings;
    if (parkAfterMs === 0 || this.worker.waiting > maxWaiting) setImmediate(() => this.park()); // with all waits of this moment
    await moved;
    clearTimeout(timer);
    this.waits.delete(wait);
    if (only !== undefined) this.single.delete(only);
    await this.comeBack();
    this.execution.check();
  }

  private leaveSlot(): void {
    if (this.waits.size > 1) return;
    this.worker.waiting++;
    this.execution.leaveSlot();
    this.lookLater();
  }

  private async comeBack(): Promise<void> {
    if (this.waits.size > 0) return;
    this.worker.waiting--;
    clearTimeout(this.timer);
    if (!this.execution.isOver && this.execution.need === undefined) await this.execution.takeSlot();
  }

  private lookLater(): void {
    const [oldest] = this.waits;
    const parkAt = (oldest?.began ?? 0) + this.worker.settings.parkAfterMs;
    const silence = LOOK_EVERY * Math.max(1, this.worker.waiting / 100);
    this.timer = setTimeout(() => {
      if (performance.now() >= parkAt) this.park();
      if (this.execution.need !== undefined || this.execution.isOver || this.waits.size === 0) return;
      if (performance.now() - this.lastArrival >= silence) this.worker.rules.broker.inBackground("a look at children", this.readAgain(false));
      this.lookLater();
    }, Math.max(SOON, Math.min(parkAt - performance.now(), silence)));
  }

  /** Unwind the step where it waits: another turn begins it again when what it waits for has ended. */
  park(): void {
    const waits = [...this.waits];
    if (waits.length === 0 || this.execution.need !== undefined || this.execution.isOver || waits.some((one) => one.left <= 0)) return;
    const until = Math.min(...waits.map((one) => one.until ?? Infinity));
    if (until * 1000 - Date.now() < NEAR) return;
    const children = new Set(waits.flatMap((one) => [...one.children]));
    const ended = [...children].filter((one) => this.ended.has(one)).length;
    const nearest = Math.min(...waits.map((one) => (one.policy?.early === true ? 1 : one.left)));
    const policy = waits.length === 1 ? waits[0]!.policy : undefined;
    this.execution.need = { children, atLeast: ended + nearest, policy, until: until === Infinity ? null : until };
    this.execution.abort(new StepOver("the step is parked"));
    for (const wait of waits) wait.wake();
  }

  // --- outcomes

  /** Listen to how children end, and read how those have that did before. Those that were looked for are heard of. */
  private async look(children: ReadonlySet<string>): Promise<void> {
    await (this.listening ??= this.listen());
    const known = this.looked.size;
    for (const child of children) this.looked.add(child);
    if (this.looked.size > known) this.nextReading ??= this.readAgain(true);
    await this.nextReading;
  }

  private async listen(): Promise<void> {
    const { broker } = this.worker.rules;
    const again = () => broker.inBackground("a look at children", this.readAgain(true));
    const live = `live.run.${this.task.root}.${this.task.run}.*.*`;
    this.endings.push(broker.listen(live, (subject, { data }) => this.take(lastToken(subject), data)), broker.onReconnect(again));
    await broker.nc.flush();
  }

  private take(child: string, body: Uint8Array): void {
    if (this.ended.has(child) || this.execution.isOver || !this.execution.spawner.has(child)) return;
    const ended = decodeOutcome(body);
    this.ended.set(child, ended);
    this.lastArrival = performance.now();
    const waits = this.waits.size > this.single.size ? this.waits : (this.single.get(child) ?? []);
    for (const wait of waits) {
      if (wait.left <= 0 || !wait.children.has(child)) continue;
      wait.left = wait.policy?.early === true && ended.status !== "succeeded" ? 0 : wait.left - 1;
      if (wait.left <= 0) wait.wake();
    }
  }

  /** Read what is stored of children that are open: of one's own if the counter has moved, or `all`. One read at a time. */
  private readAgain(all: boolean): Promise<void> {
    return (this.reading = this.reading.catch(() => undefined).then(() => {
      if (all) this.nextReading = undefined;
      return this.read(all);
    }));
  }

  private async read(all: boolean): Promise<void> {
    const { broker } = this.worker.rules;
    const { spawner } = this.execution;
    const value = all ? -1 : ((await broker.last(subjects.counter("join", this.task)))?.seq ?? 0);
    const found = new Set([...spawner.borrowed].map(([child, step]) => subjects.outcomeOf(this.task, child, step)));
    if (all || value !== this.counted) {
      for (const subject of await broker.subjects(subjects.outcomeOf(this.task, "*"))) found.add(subject);
      this.counted = value;
    }
    const open = (child: string) => !this.ended.has(child) && spawner.has(child);
    const stored = await broker.many([...found].filter((subject) => open(lastToken(subject))));
    for (const { subject, body } of stored.sort((one, other) => one.seq - other.seq)) this.take(lastToken(subject), body);
  }
}
