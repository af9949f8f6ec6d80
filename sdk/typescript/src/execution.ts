/** One execution of one step: what it has spawned, what it waits for, and the record that it leaves behind. */

import { cancelSome } from "./cancelling.js";
import { StepOver } from "./errors.js";
import { hashed, idSum, packIds } from "./identity.js";
import { decodeOutcome, NULL, outcome, type JoinRecord, type Outcome } from "./records.js";
import { lastToken } from "./looks.js";
import * as policies from "./policies.js";
import type { Policy } from "./policies.js";
import { readable } from "./values.js";
import type { Rules } from "./rules.js";
import { Spawner } from "./spawning.js";
import type { Graph } from "./graph.js";
import type { Task } from "./wire.js";
import type { Step } from "./workflow.js";

/** What an execution needs of its worker. */
export interface Host {
  readonly rules: Rules;
  readonly name: string;
  readonly parkAfterMs: number;
  readonly maxWaiting: number;
  readonly maxDepth: number;
  readonly maxDescendants: number;
  readonly full: Set<string>;
  /** Steps that wait outside their slots. */
  waiting: number;
  giveSlot(): void;
  takeSlot(): Promise<void>;
}

/** What has been waited for: `left` more children have to end before it is worth going on. */
interface Wait {
  readonly children: ReadonlySet<string>;
  readonly policy: Policy | undefined;
  /** Seconds since the epoch. */
  readonly until: number | undefined;
  readonly began: number;
  left: number;
  readonly wake: () => void;
}

interface Need {
  readonly children: ReadonlySet<string>;
  readonly atLeast: number;
  readonly policy: Policy | undefined;
  readonly until: number | null;
}

const LOOK_EVERY = 1000;
const NEAR = 1000;

/** One attempt of one step. */
export class Execution {
  readonly spawner: Spawner;
  /** Rejects when the step is told to stop. */
  readonly over: Promise<never>;
  readonly started = Date.now() / 1000;
  readonly abort = new AbortController();
  readonly onceWaits = new Map<string, number>();
  need: Need | undefined;
  isOver = false;
  private readonly ended = new Map<string, Outcome>();
  private readonly order: string[] = [];
  private readonly waits = new Set<Wait>();
  private readonly joined = new Set<string>();
  private readonly excused = new Set<string>();
  private readonly endings: (() => void)[] = [];
  private stop_!: (error: Error) => void;
  private listening = false;
  private reading: Promise<void> | undefined;
  private counted = -1;
  private timer: NodeJS.Timeout | undefined;
  private clock: NodeJS.Timeout | undefined;
  private timeLeft: number;
  private clockBegan = 0;

  constructor(
    readonly host: Host, readonly task: Task, readonly step: Step, readonly graph: Graph, readonly attempt: number,
    /** Whether nothing of the step can have been stored before. */
    readonly clean: boolean,
    private readonly timedOut: () => Error,
  ) {
    this.over = new Promise((_, reject) => (this.stop_ = reject));
    this.over.catch(() => undefined);
    this.spawner = new Spawner(this);
    this.timeLeft = step.options.timeoutMs ?? Infinity;
    this.startClock();
  }

  // --- the end

  /** Tell the step to stop: its signal is aborted, and what it comes to does not count any more. */
  stop(error: Error): void {
    if (this.isOver) return;
    this.stop_(error);
    this.close(error);
  }

  /** End all that goes on for the step. */
  close(reason: Error = new StepOver("the step has ended")): void {
    if (this.isOver) return;
    this.isOver = true;
    this.abort.abort(reason);
    clearTimeout(this.clock);
    clearTimeout(this.timer);
    for (const end of this.endings) end();
    for (const wait of this.waits) wait.wake();
  }

  /** Throw if the step must not go on. */
  check(): void {
    if (this.isOver || this.need !== undefined) throw new StepOver(this.need ? "the step is parked: let this error pass" : "the step is over");
  }

  private startClock(): void {
    if (this.timeLeft === Infinity) return;
    this.clockBegan = performance.now();
    this.clock = setTimeout(() => this.stop(this.timedOut()), Math.min(this.timeLeft, 2 ** 31 - 1));
  }

  private stopClock(): void {
    clearTimeout(this.clock);
    this.timeLeft -= performance.now() - this.clockBegan;
  }

  // --- waiting

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
      const isLate = until !== undefined && Date.now() / 1000 >= until;
      how = policies.verdict(policy, distinct.size, succeeded, ended.size);
      if (how === "open" && isLate) how = policies.verdict(policy, ended.size, succeeded, ended.size) === "met" ? "met" : "missed";
      if (how !== "open") break;
      const enough = policy.quorum == null ? distinct.size : ended.size + policy.quorum - succeeded;
      await this.wait(distinct, enough, policy, until);
    }
    const open = [...distinct].filter((child) => !ended.has(child));
    for (const child of distinct) this.joined.add(child);
    for (const child of open) this.excused.add(child);
    if (open.length > 0 && policy.cancel_rest === true) await cancelSome(this.host.rules, this.task, new Set(open));
    return { ended, open, met: how === "met" };
  }

  private async deadlineOf(children: ReadonlySet<string>, seconds: number): Promise<number> {
    const name = `_join-${hashed([...children].sort().join("")).slice(0, 16)}`;
    return Number(await this.spawner.once(name, () => Date.now() / 1000 + seconds));
  }

  /** Yield children as they end. */
  async *each(children: readonly string[]): AsyncGenerator<string, void> {
    const left = new Set(children);
    for (let at = 0; left.size > 0; at++) {
      while (at >= this.order.length) await this.wait(left, left.size - [...left].filter((one) => !this.ended.has(one)).length + 1);
      const child = this.order[at]!;
      if (left.delete(child)) {
        yield child;
        this.check();
      }
    }
  }

  private async outcomeOf(child: string): Promise<Outcome> {
    const ended = await readable(this.host.rules.broker, this.task.root, this.ended.get(child)!);
    if (ended.status !== "succeeded") this.excused.add(child);
    return ended;
  }

  /** Wait until so many of the children have ended, or until a time. */
  private async wait(children: ReadonlySet<string>, enough: number, policy?: Policy, until?: number): Promise<void> {
    this.check();
    const countLeft = () => enough - [...children].filter((one) => this.ended.has(one)).length;
    if (countLeft() <= 0) return;
    await this.listen();
    await this.readStored(true);
    const left = countLeft();
    const early = policy?.early === true && [...children].some((one) => (this.ended.get(one)?.status ?? "succeeded") !== "succeeded");
    if (left <= 0 || early || (until !== undefined && Date.now() / 1000 >= until)) return;
    this.check();
    let wait: Wait | undefined;
    const moved = new Promise<void>((wake) => this.waits.add((wait = { children, policy, until, began: performance.now(), left, wake })));
    this.leaveSlot();
    const timer = until === undefined ? undefined : setTimeout(wait!.wake, Math.max(0, until * 1000 - Date.now()));
    try {
      if (this.host.parkAfterMs === 0 || this.host.waiting > this.host.maxWaiting) this.park();
      await moved;
    } finally {
      clearTimeout(timer);
      this.waits.delete(wait!);
      await this.comeBack();
    }
    this.check();
  }

  private leaveSlot(): void {
    if (this.waits.size > 1) return;
    this.host.waiting++;
    this.host.giveSlot();
    this.stopClock();
    this.lookLater();
  }

  private async comeBack(): Promise<void> {
    if (this.waits.size > 0) return;
    this.host.waiting--;
    clearTimeout(this.timer);
    await this.host.takeSlot();
    if (!this.isOver) this.startClock();
  }

  private lookLater(): void {
    const oldest = Math.min(...[...this.waits].map((one) => one.began));
    const parkIn = oldest + this.host.parkAfterMs - performance.now();
    const lookIn = LOOK_EVERY * Math.max(1, this.host.waiting / 100);
    this.timer = setTimeout(() => {
      if (performance.now() >= oldest + this.host.parkAfterMs) this.park();
      if (this.need !== undefined || this.isOver || this.waits.size === 0) return;
      this.readStored().catch((error: unknown) => this.host.rules.broker.log.warn(`jetflow: a look at children: ${String(error)}`));
      this.lookLater();
    }, Math.max(0, Math.min(parkIn, lookIn)));
  }

  /** Unwind the step where it waits: another turn begins it again when what it waits for has ended. */
  park(): void {
    const waits = [...this.waits];
    if (waits.length === 0 || this.need !== undefined || this.isOver || waits.some((one) => one.left <= 0)) return;
    const times = waits.flatMap((one) => one.until ?? []);
    const until = times.length > 0 ? Math.min(...times) : null;
    if (until !== null && until * 1000 - Date.now() < NEAR) return;
    const children = new Set(waits.flatMap((one) => [...one.children]));
    const ended = [...children].filter((one) => this.ended.has(one)).length;
    const nearest = Math.min(...waits.map((one) => (one.policy?.early === true ? 1 : one.left)));
    this.need = { children, atLeast: ended + nearest, policy: waits.length === 1 ? waits[0]!.policy : undefined, until };
    this.abort.abort(new StepOver("the step is parked"));
    for (const wait of waits) wait.wake();
  }

  // --- outcomes

  private async listen(): Promise<void> {
    if (this.listening) return;
    this.listening = true;
    const { broker } = this.host.rules;
    const live = broker.nc.subscribe(`${broker.names.jf}.live.run.${this.task.root}.${this.task.run}.*.*`, {
      callback: (_, message) => this.take(lastToken(message.subject), message.data),
    });
    this.endings.push(() => live.unsubscribe(), broker.onReconnect(() => ((this.counted = -1), void this.readStored().catch(() => undefined))));
    await broker.nc.flush();
  }

  private take(child: string, body: Uint8Array): void {
    if (this.ended.has(child) || this.isOver || !this.spawner.has(child)) return;
    const ended = decodeOutcome(body);
    this.ended.set(child, ended);
    this.order.push(child);
    for (const wait of this.waits) {
      if (wait.left <= 0 || !wait.children.has(child)) continue;
      wait.left = wait.policy?.early === true && ended.status !== "succeeded" ? 0 : wait.left - 1;
      if (wait.left <= 0) wait.wake();
    }
  }

  /** Read what is stored of children that are open: of one's own if the counter has moved, or `all`. */
  private readStored(all = false): Promise<void> {
    const before = this.reading ?? Promise.resolve();
    const reading = before.then(() => this.read(all)).finally(() => this.reading === reading && (this.reading = undefined));
    return (this.reading = reading);
  }

  private async read(all: boolean): Promise<void> {
    const { broker } = this.host.rules;
    const { names } = broker;
    const value = all ? -1 : ((await broker.last(names.counters, names.counter("join", this.task)))?.seq ?? 0);
    const subjects = [...this.spawner.borrowed].filter(([child]) => !this.ended.has(child)).map(([child, step]) => names.outcomeOf(this.task, child, step));
    if (all || value !== this.counted) {
      for (const subject of new Set(await broker.subjects(names.records, names.outcomeOf(this.task, "*")))) {
        const child = lastToken(subject);
        if (!this.ended.has(child) && this.spawner.has(child)) subjects.push(subject);
      }
      this.counted = value;
    }
    const stored = await broker.many(names.records, subjects);
    for (const { subject, body } of stored.sort((one, other) => one.seq - other.seq)) this.take(lastToken(subject), body);
  }

  // --- what is left behind

  /** Return the record that seals the step's children; undefined if there is nothing to wait for or to remember. */
  sealing(ended: Partial<JoinRecord>): JoinRecord | undefined {
    const alone = this.graph.nodes.length === 1;
    const { owned, borrowed } = this.spawner;
    if (owned.size + borrowed.size === 0 && (alone || this.clean)) return undefined;
    const waited = [...owned, ...borrowed.keys()].every((one) => this.joined.has(one));
    if (waited && (alone || (this.clean && borrowed.size === 0))) return undefined;
    const policy = waited ? {} : (this.step.options.join ?? {});
    const total = owned.size + borrowed.size;
    const isWhole = this.clean && policy.early !== true;
    return this.record("sealed", {
      needed: policies.threshold(policy, total), total, policy, borrowed: [...borrowed], excused: [...this.excused].sort(),
      ...(isWhole ? { id_sum: idSum(owned) } : { members: packIds(owned) }), ...ended,
    });
  }

  /** Return the record that seals a step that has failed. */
  failing({ status, error, attempt, started, ended, worker }: Outcome): JoinRecord {
    return this.record("sealed", { needed: 0, members: "", status, error, attempt, started, ended, worker });
  }

  /** Return the record that parks the step at its waits. */
  parking({ children, atLeast, policy, until }: Need): JoinRecord {
    const owned = [...this.spawner.owned].filter((one) => children.has(one));
    const borrowed = [...this.spawner.borrowed].filter(([one]) => children.has(one));
    const isWhole = this.clean && policy === undefined && owned.length === this.spawner.owned.size && atLeast === children.size;
    return this.record("parked", {
      needed: policy === undefined ? atLeast : policies.threshold(policy, children.size), total: policy === undefined ? 0 : children.size,
      policy: policy ?? {}, borrowed, until, ...(isWhole ? { id_sum: idSum(owned) } : { members: packIds(owned) }),
    });
  }

  private record(kind: JoinRecord["kind"], of: Partial<JoinRecord>): JoinRecord {
    const { task } = this;
    return {
      kind, turn: task.turn, task: this.host.rules.broker.names.task(task), needed: 0, total: 0, policy: {}, members: null, id_sum: "", borrowed: [],
      excused: [], whole: null, until: null, tried: 0, status: "succeeded", error: null, output: NULL, value: null, attempt: 1, started: 0, ended: 0,
      worker: "", ...of,
    };
  }

  /** Return what an outcome of this step says, however it ended. */
  ending(status: Outcome["status"], of: Partial<Outcome>): Outcome {
    const { task, attempt, started, host } = this;
    return outcome(status, { workflow: task.workflow, step: task.step, key: task.key, attempt, started, ended: Date.now() / 1000, worker: host.name, ...of });
  }
}
