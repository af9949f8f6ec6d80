/** A worker: pulls the tasks of its workflows, keeps what it holds alive, and runs it on its slots. */

import { hostname } from "node:os";
import { setTimeout as later } from "node:timers/promises";

import type { Msg } from "@nats-io/nats-core";

import { answerQuestions, Holders } from "./answering.js";
import type { Client } from "./client.js";
import { BrokerTimeout, InvalidDeclaration, StepOver } from "./errors.js";
import type { Execution } from "./execution.js";
import { Graph } from "./graph.js";
import { Marks } from "./marks.js";
import { Puller } from "./puller.js";
import { headersFrom, sleep } from "./reading.js";
import { Rules } from "./rules.js";
import { current, Runner, Stopped, type Delivery, type End } from "./runner.js";
import { consumersOf, ensureConsumer, type Consumer } from "./topology.js";
import { readTask, subjects, type Task } from "./wire.js";
import type { Step, Workflow } from "./workflow.js";

/** What can be set of a worker. Times are milliseconds. */
export interface WorkerOptions {
  /** Step bodies that run at once: 100. */
  readonly slots?: number;
  /** Silence after which a task is delivered to another worker: 5000. */
  readonly ackWaitMs?: number;
  /** How long a step waits in memory for its children before it is parked: 60,000. */
  readonly parkAfterMs?: number;
  /** Steps that wait in memory at once; more are parked: 1000. */
  readonly maxWaiting?: number;
  /** How long running steps may go on when the worker is told to stop: 30,000. */
  readonly graceMs?: number;
  /** How long a task of an unknown step is left to other workers: 10,000. */
  readonly unknownStepGraceMs?: number;
  /** How deep runs may be nested: 1000. */
  readonly maxDepth?: number;
  /** How many descendants a root run may have: 1,000,000. */
  readonly maxDescendants?: number;
  readonly name?: string;
}

const DEFAULTS = {
  slots: 100, ackWaitMs: 5000, parkAfterMs: 60_000, maxWaiting: 1000, graceMs: 30_000, unknownStepGraceMs: 10_000, maxDepth: 1000,
  maxDescendants: 1_000_000,
};
const RECORDING_AHEAD = 1000;
const HAND_BACK_AFTER = 5000;
const GIVE_UP_AFTER = 5000;
const AGAIN_AFTER = 500;
const ACTIVE_FOR = 5000;
const DOUBT = 60_000;
const STALE = 1000;

/**
 * Runs workflows, from `start` to `stop`.
 *
 * @example
 * ```ts
 * const nightly = workflow("nightly", async (_: null, ctx) => ctx.attempt, { timeoutMs: 60_000 });
 * const stop = new AbortController();
 * process.once("SIGTERM", () => stop.abort());
 * setTimeout(() => stop.abort(), 500); // so that this example ends
 * await new Worker(jf, [nightly], { slots: 50, graceMs: 10_000 }).run({ signal: stop.signal });
 * ```
 */
export class Worker implements AsyncDisposable {
  readonly rules: Rules;
  readonly marks: Marks;
  readonly workflows: ReadonlyMap<string, Workflow>;
  readonly name: string;
  /** @internal */
  readonly settings: Required<WorkerOptions>;
  /** @internal */
  readonly holders: Holders;
  /** Root runs that have as many descendants as they may. @internal */
  readonly full = new Set<string>();
  /** Slots that no step has. @internal */
  free: number;
  /** Steps that wait outside their slots. @internal */
  waiting = 0;
  isStopping = false;
  /** Whether each attempt is followed through all that it begins: a rejection that nobody handles is then known to be its. @internal */
  isCareful = false;
  private doubtUntil = Infinity;
  private readonly runner: Runner;
  /** What this worker has been given, by the subjects of the tasks. */
  private readonly held = new Map<string, Delivery>();
  private readonly leaving = new AbortController();
  private readonly slotWaiters: (() => void)[] = [];
  private readonly endings: (() => void | Promise<void>)[] = [];
  private ready: Delivery[] = [];
  private pullers: Puller[] = [];
  private recording = 0;
  private busyMs = 0;
  private beaten = 0;
  private staleUntil = 0;
  private asking = false;
  private idle: (() => void) | undefined;

  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- workflows of any types
  constructor(client: Client, workflows: Iterable<Workflow<any, any>>, options: WorkerOptions = {}) {
    const { broker, registry } = client.rules;
    this.rules = new Rules(broker, registry);
    const given = Object.entries(options).filter(([, value]) => value !== undefined);
    this.settings = { ...DEFAULTS, name: `${hostname()}:${process.pid}`, ...Object.fromEntries(given) };
    this.name = this.settings.name;
    const all = [...workflows];
    this.workflows = new Map(all.map((one) => [one.name, one as Workflow]));
    if (this.workflows.size < all.length) throw new InvalidDeclaration("two workflows of one worker have the same name");
    const none = all.find((one) => one.steps.length === 0);
    if (none !== undefined) throw new InvalidDeclaration(`workflow '${none.name}' has no step`);
    this.free = this.settings.slots;
    if (!Number.isInteger(this.free) || this.free < 1) throw new RangeError(`slots is ${this.free}: a whole number from 1`);
    this.marks = new Marks(broker);
    this.holders = new Holders(broker);
    this.runner = new Runner(this);
  }

  // --- starting and stopping

  /** Declare the workflows, and begin to pull. Throws InvalidConnection, PermissionDenied. */
  async start(): Promise<void> {
    const { broker, registry } = this.rules;
    for (const workflow of this.workflows.values()) await registry.declare(workflow.declaration());
    this.marks.onMark = () => this.stopCancelled();
    this.endings.push(await this.marks.listen(), answerQuestions(this));
    this.rules.hold = (task, ms) => this.holdForRetry(task, ms);
    const consumers = await this.consumers();
    const patience = Math.min(...consumers.map((one) => one.ackWait));
    this.beaten = performance.now();
    const beat = setInterval(() => this.beat(patience / 6), patience / 6);
    const tick = setInterval(() => this.handBackLate(), 500);
    process.on("unhandledRejection", this.onRejection);
    this.endings.push(() => clearInterval(tick), () => void process.off("unhandledRejection", this.onRejection), () => clearInterval(beat));
    const receive = (message: Msg, consumer: Consumer) => this.receive(message, consumer);
    this.pullers = consumers.map((one) => new Puller(broker, one, receive, ({ workflow, step }) => this.consumer(workflow, step)));
    this.endings.push(broker.onReconnect(() => {
      this.doubt();
      this.pullers.forEach((one) => one.beginAgain());
      this.dispatch();
    }));
    this.ask();
  }

  /** Make the consumers of all steps, and take up those of steps that are there of older code. */
  private async consumers(): Promise<Consumer[]> {
    const own = [...this.workflows.values()].flatMap((workflow) => {
      const { first, onFailure } = new Graph(workflow.declaration().graph);
      return [...new Set([first, ...workflow.steps.map((one) => one.name), ...(onFailure === null ? [] : [onFailure])])].map((step) => `${workflow.name}=${step}`);
    });
    const made: Consumer[] = [];
    for (const name of new Set([...own, ...(await consumersOf(this.rules.broker))])) {
      const [workflow = "", step = ""] = name.split("=");
      if (step !== "" && this.workflows.has(workflow)) made.push(await this.consumer(workflow, step));
    }
    return made;
  }

  private consumer(workflow: string, step: string): Promise<Consumer> {
    const declared = this.declared(workflow, step);
    const maxRunning = declared === undefined ? undefined : (declared.options.maxRunning ?? -1);
    return ensureConsumer(this.rules.broker, workflow, step, this.settings.ackWaitMs, maxRunning);
  }

  private declared(workflow: string, step: string): Step | undefined {
    const { steps = [], failureStep } = this.workflows.get(workflow) ?? {};
    return [...steps, failureStep].find((one) => one?.name === step);
  }

  /** Start, work until `signal` is aborted, and stop. */
  async run({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    await this.start();
    if (!signal.aborted) await new Promise((done) => signal.addEventListener("abort", done, { once: true }));
    await this.stop();
  }

  /**
   * Pull nothing more, hand back what has not begun, and let what runs end within `graceMs`; what waits for children is
   * parked at once. What is still running then is told to stop, and handed back.
   */
  async stop(): Promise<void> {
    if (this.isStopping) return;
    this.isStopping = true;
    await Promise.all(this.pullers.map((one) => one.stop()));
    const ready = this.ready;
    this.ready = [];
    await Promise.all(ready.map((delivery) => this.drive(delivery, () => this.runner.handBack(delivery))));
    this.leaving.abort();
    const until = performance.now() + this.settings.graceMs;
    while (this.held.size > 0 && performance.now() < until + GIVE_UP_AFTER) {
      const isLate = performance.now() > until;
      for (const { execution } of this.held.values()) {
        if (isLate) execution?.stop(new Stopped("shutdown"));
        else execution?.park();
      }
      await Promise.race([new Promise<void>((done) => (this.idle = done)), sleep(100)]);
    }
    for (const end of this.endings.reverse()) await end();
    this.rules.hold = undefined;
    await this.rules.broker.flushed();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  /**
   * A rejection that nobody handles fails the attempt in which it came about. To know which costs every promise
   * something, so the first of a process is only known to be of one of the attempts under way: these are handed back.
   * What comes about outside all steps ends the process, as ever, but for that first and what follows it within a minute.
   */
  private readonly onRejection = (error: unknown): void => {
    if (error instanceof StepOver) return; // a wait of a step that has ended
    const execution = current.getStore();
    const why = error instanceof Error ? error : new Error(`a rejection that nobody handles: ${String(error)}`);
    if (execution === undefined && this.isCareful && performance.now() > this.doubtUntil) {
      if (process.listenerCount("unhandledRejection") > 1) return;
      setImmediate(() => {
        throw why;
      });
      return;
    }
    const place = execution === undefined ? "" : ` in step '${execution.step.name}'`;
    this.rules.broker.log.error(`jetflow: a rejection that nobody handles${place}: ${why.stack ?? why.message}`);
    if (execution !== undefined) execution.stop(why);
    else if (!this.isCareful) {
      this.isCareful = true;
      this.doubtUntil = performance.now() + DOUBT;
      const running = this.executions();
      for (const one of running) one.stop(running.length === 1 ? why : new Stopped("doubt"));
    }
  };

  // --- deliveries

  private receive(message: Msg, consumer: Consumer): void {
    const tokens = message.reply!.split(".");
    const at = tokens.length > 9 ? 6 : 4;
    const count = Number(tokens[at]);
    const stored = Number(tokens[at + 3]) / 1e9;
    const subject = this.rules.broker.namespace.relative(message.subject);
    const held = this.held.get(subject);
    if (held !== undefined) {
      [held.reply, held.count, held.heard] = [message.reply!, count, performance.now()];
      return; // it goes on under the new reply subject
    }
    const task = readTask(subject, headersFrom(message), message.data);
    if (task === undefined) {
      this.rules.broker.log.warn(`jetflow: terminated, for it is no task: ${message.subject}`);
      this.rules.broker.send(message.reply!, "+TERM");
      return;
    }
    const now = performance.now();
    const again = count > 1 || stored < consumer.created || now < this.staleUntil;
    const delivery: Delivery = { task, reply: message.reply!, count, again, stored, received: now, heard: now, ackWait: consumer.ackWait, holdsSlot: false };
    this.held.set(subject, delivery);
    if (this.isStopping) void this.drive(delivery, () => this.runner.handBack(delivery));
    else {
      this.ready.push(delivery);
      this.dispatch();
    }
  }

  private dispatch(): void {
    while (this.free > 0 && this.recording < RECORDING_AHEAD && this.rules.broker.isConnected) {
      const delivery = this.ready.shift();
      if (delivery === undefined) break;
      void this.takeSlot(delivery);
      void this.drive(delivery, () => this.runner.run(delivery));
    }
    if (this.asking) return;
    this.asking = true;
    setImmediate(() => this.ask());
  }

  /** Ask for as many tasks as there are free slots, and for some ahead where steps are short. */
  private ask(): void {
    this.asking = false;
    if (this.isStopping) return;
    const { slots } = this.settings;
    const room = this.free - this.ready.length;
    const ahead = this.busyMs > 0 ? Math.min(4 * slots, Math.floor((50 * slots) / this.busyMs)) : 0;
    const wanted = this.recording < RECORDING_AHEAD ? room + ahead : 0;
    const share = Math.max(1, Math.floor(room / Math.max(1, this.pullers.length)));
    const now = performance.now();
    for (const one of this.pullers) one.want(now - one.lastDelivery < ACTIVE_FOR ? wanted : Math.min(wanted, share));
  }

  /** Do what a delivery leads to, again if the broker cannot do it now, and say so to the broker. */
  private async drive(delivery: Delivery, work: () => Promise<End>): Promise<void> {
    const { broker } = this.rules;
    this.recording++;
    const began = performance.now();
    let end: End;
    try {
      end = await work();
    } catch (error) {
      const why = error instanceof Error ? (error.stack ?? error.message) : String(error);
      broker.log.error(`jetflow: a task of '${delivery.task.workflow}' was not recorded, and is handed back: ${why}`);
      end = error instanceof BrokerTimeout ? { againAfter: AGAIN_AFTER } : await this.runner.leave(delivery, error);
    }
    this.giveSlot(delivery);
    this.recording--;
    this.busyMs = this.busyMs * 0.9 + (performance.now() - began) * 0.1;
    this.held.delete(subjects.task(delivery.task));
    const delay = end === "done" ? 0 : Math.round(end.againAfter * 1e6);
    broker.send(delivery.reply, end === "done" ? "+ACK" : delay > 0 ? `-NAK {"delay":${delay}}` : "-NAK");
    if (this.held.size === 0) this.idle?.();
    this.dispatch();
  }

  /** @internal */
  giveSlot(delivery: Delivery): void {
    if (!delivery.holdsSlot) return;
    delivery.holdsSlot = false;
    const next = this.slotWaiters.shift();
    if (next !== undefined) next();
    else {
      this.free++;
      this.dispatch();
    }
  }

  /** @internal */
  async takeSlot(delivery: Delivery): Promise<void> {
    if (this.free > 0) this.free--;
    else await new Promise<void>((next) => this.slotWaiters.push(next));
    delivery.holdsSlot = true;
  }

  // --- what is held

  /** @internal */
  executions(): Execution[] {
    return [...this.held.values()].flatMap(({ execution }) => (execution === undefined || execution.isOver ? [] : [execution]));
  }

  /** Keep alive what is held, also what waits for a slot. */
  private beat(every: number): void {
    const now = performance.now();
    if (now - this.beaten > 3 * every) this.doubt(); // a step has held up the event loop, or the process was paused
    this.beaten = now;
    for (const delivery of this.held.values()) {
      if (now - delivery.heard < every * 0.7) continue;
      delivery.heard = now;
      this.rules.broker.send(delivery.reply, "+WPI");
    }
  }

  /** Have tasks looked at before they begin: while this worker was held up, or cut off, others may have got them. */
  private doubt(): void {
    this.staleUntil = performance.now() + STALE;
    for (const delivery of this.ready) delivery.again = true;
  }

  private handBackLate(): void {
    const late = performance.now() - HAND_BACK_AFTER;
    while (this.ready.length > 0 && this.ready[0]!.received < late) {
      const delivery = this.ready.shift()!;
      void this.drive(delivery, () => this.runner.handBack(delivery));
    }
    this.ask();
  }

  private stopCancelled(): void {
    for (const { task, execution } of this.held.values()) {
      if (execution !== undefined && this.marks.covers(task, execution.graph)) execution.stop(new Stopped("cancelled"));
    }
  }

  /** Tell whether it runs the task on a subject: or, `atAll`, has it; or is about to ask for it itself, and `isFirst`. @internal */
  holds(subject: string, atAll: boolean, isFirst: boolean): boolean {
    const delivery = this.held.get(subject);
    return delivery !== undefined && (atAll || delivery.execution !== undefined || !delivery.again || isFirst);
  }

  /** Keep a task until its next attempt is due, and tell whether it is: a worker that stops arms its timer instead. */
  private holdForRetry({ workflow, step }: Task, ms: number): Promise<boolean> {
    const declared = this.declared(workflow, step);
    if (declared === undefined || declared.options.maxRunning !== undefined) return Promise.resolve(false);
    return later(ms, true, { signal: this.leaving.signal }).catch(() => false);
  }
}
