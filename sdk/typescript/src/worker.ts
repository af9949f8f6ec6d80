/** A worker: pulls the tasks of its workflows, keeps what it holds alive, and runs it on its slots. */

import { hostname } from "node:os";

import type { Msg } from "@nats-io/nats-core";

import { headersFrom, sleep } from "./reading.js";
import { answerQuestions, type Asked } from "./asking.js";
import { Marks } from "./cancelling.js";
import type { Client } from "./client.js";
import { BrokerTimeout, InvalidDeclaration, StepOver } from "./errors.js";
import type { Execution } from "./execution.js";
import { Holders } from "./holders.js";
import { Puller } from "./puller.js";
import { Rules } from "./rules.js";
import { current, Runner, Stopped, type Delivery, type End, type Running } from "./runner.js";
import { consumersOf, ensureConsumer, type Consumer } from "./topology.js";
import { NotATask, readTask, START, type Task } from "./wire.js";
import { Graph } from "./graph.js";
import type { Workflow } from "./workflow.js";

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

const RECORDING_AHEAD = 1000;
const HAND_BACK_AFTER = 5000;
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
export class Worker implements Running, Asked, AsyncDisposable {
  readonly rules: Rules;
  readonly marks: Marks;
  readonly workflows: ReadonlyMap<string, Workflow>;
  readonly name: string;
  readonly slots: number;
  readonly parkAfterMs: number;
  readonly maxWaiting: number;
  readonly maxDepth: number;
  readonly maxDescendants: number;
  readonly unknownGraceMs: number;
  readonly full = new Set<string>();
  waiting = 0;
  isStopping = false;
  isCareful = false;
  private doubtUntil = Infinity;
  private readonly runner = new Runner(this);
  private readonly holders: Holders;
  private readonly held = new Map<string, Delivery>();
  private readonly retries = new Map<Task, (arm: boolean) => void>();
  private readonly slotWaiters: (() => void)[] = [];
  private readonly endings: (() => void | Promise<void>)[] = [];
  private ready: Delivery[] = [];
  private pullers: Puller[] = [];
  private free: number;
  private recording = 0;
  private busyMs = 0;
  private beaten = 0;
  private staleUntil = 0;
  private asking = false;
  private idle: (() => void) | undefined;

  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- workflows of any types
  constructor(client: Client, workflows: Iterable<Workflow<any, any>>, private readonly options: WorkerOptions = {}) {
    this.rules = new Rules(client.rules.broker, client.rules.registry);
    const all = [...workflows];
    this.workflows = new Map(all.map((one) => [one.name, one as Workflow]));
    if (this.workflows.size < all.length) throw new InvalidDeclaration("two workflows of one worker have the same name");
    const none = all.find((one) => one.steps.length === 0);
    if (none !== undefined) throw new InvalidDeclaration(`workflow '${none.name}' has no step`);
    this.free = this.slots = options.slots ?? 100;
    if (!Number.isInteger(this.slots) || this.slots < 1) throw new RangeError(`slots is ${options.slots}: a whole number from 1`);
    this.parkAfterMs = options.parkAfterMs ?? 60_000;
    this.maxWaiting = options.maxWaiting ?? 1000;
    this.maxDepth = options.maxDepth ?? 1000;
    this.maxDescendants = options.maxDescendants ?? 1_000_000;
    this.unknownGraceMs = options.unknownStepGraceMs ?? 10_000;
    this.name = options.name ?? `${hostname()}:${process.pid}`;
    this.marks = new Marks(this.rules.broker);
    this.holders = new Holders(this.rules.broker);
  }

  // --- starting and stopping

  /** Declare the workflows, and begin to pull. Throws InvalidConnection, PermissionDenied. */
  async start(): Promise<void> {
    const { broker, registry } = this.rules;
    for (const workflow of this.workflows.values()) await registry.declare(workflow.declaration());
    this.endings.push(await this.marks.listen());
    this.marks.onMark = () => this.stopCancelled();
    this.endings.push(this.holders.answer(this.workflows, (subject, asker) => this.holds(subject, asker), () => this.isStopping));
    this.endings.push(answerQuestions(broker, this));
    this.rules.hold = (task, ms) => this.holdForRetry(task, ms);
    const consumers = await this.consumers();
    const patience = Math.min(...consumers.map((one) => one.ackWait));
    this.beaten = performance.now();
    const beat = setInterval(() => this.beat(patience / 6), patience / 6);
    const tick = setInterval(() => this.handBackLate(), 500);
    process.on("unhandledRejection", this.onRejection);
    this.endings.push(() => clearInterval(tick), () => void process.off("unhandledRejection", this.onRejection));
    this.endings.push(() => clearInterval(beat));
    this.pullers = consumers.map((consumer) => new Puller(broker, consumer, (message, of) => this.receive(message, of), () => this.remake(consumer)));
    this.endings.push(broker.onReconnect(() => {
      this.doubt();
      this.pullers.forEach((one) => one.beginAgain());
      this.dispatch();
    }));
    this.ask();
  }

  private async consumers(): Promise<Consumer[]> {
    const { broker } = this.rules;
    const own = [...this.workflows.values()].flatMap((workflow) => {
      const graph = new Graph(workflow.declaration().graph);
      const steps = [...workflow.steps, ...(workflow.failureStep ? [workflow.failureStep] : [])].map((one) => [workflow.name, one.name, one.options.maxRunning] as const);
      return graph.first === START ? [...steps, [workflow.name, START, undefined] as const] : steps;
    });
    const known = new Set(own.map(([workflow, step]) => `${workflow}=${step}`));
    const made: Consumer[] = [];
    for (const [workflow, step, most] of own) made.push(await ensureConsumer(broker, workflow, step, this.options.ackWaitMs ?? 5000, most));
    for (const [workflow, step] of await consumersOf(broker, new Set(this.workflows.keys()))) {
      if (!known.has(`${workflow}=${step}`)) made.push(await ensureConsumer(broker, workflow, step, 0));
    }
    return made;
  }

  private async remake({ name }: Consumer): Promise<Consumer> {
    const [workflow = "", step = ""] = name.split("=");
    const most = this.workflows.get(workflow)?.steps.find((one) => one.name === step)?.options.maxRunning;
    return ensureConsumer(this.rules.broker, workflow, step, this.options.ackWaitMs ?? 5000, most);
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
    for (const end of [...this.retries.values()]) end(true);
    const until = performance.now() + (this.options.graceMs ?? 30_000);
    for (let told = false; this.held.size > 0; ) {
      for (const { execution } of this.held.values()) execution?.park();
      if (performance.now() > until && !told) {
        told = true;
        for (const { execution } of this.held.values()) execution?.stop(new Stopped("shutdown"));
      }
      if (performance.now() > until + 5000) break;
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
    const { log } = this.rules.broker;
    if (error instanceof StepOver) return; // a wait of a step that has ended
    const execution = current.getStore();
    const why = error instanceof Error ? error : new Error(`a rejection that nobody handles: ${String(error)}`);
    const isDoubtful = performance.now() < this.doubtUntil;
    const place = execution === undefined ? "" : ` in step '${execution.step.name}'`;
    if (execution !== undefined || !this.isCareful || isDoubtful) log.error(`jetflow: a rejection that nobody handles${place}: ${why.stack ?? why.message}`);
    if (execution !== undefined) execution.stop(why);
    else if (!this.isCareful) {
      this.isCareful = true;
      this.doubtUntil = performance.now() + DOUBT;
      const running = this.executions();
      for (const one of running) one.stop(running.length === 1 ? why : new Stopped("doubt"));
    } else if (!isDoubtful && process.listenerCount("unhandledRejection") === 1) {
      setImmediate(() => {
        throw why;
      });
    }
  };

  // --- deliveries

  private receive(message: Msg, consumer: Consumer): void {
    const tokens = message.reply!.split(".");
    const at = tokens.length > 9 ? 6 : 4;
    const count = Number(tokens[at]);
    const stored = Number(tokens[at + 3]) / 1e9;
    const held = this.held.get(message.subject);
    if (held !== undefined) {
      [held.reply, held.count, held.heard] = [message.reply!, count, performance.now()];
      return; // it goes on under the new reply subject
    }
    let task: Task;
    try {
      task = readTask(message.subject, headersFrom(message), message.data);
    } catch (error) {
      if (!(error instanceof NotATask)) throw error;
      this.rules.broker.log.warn(`jetflow: terminated: ${error.message}`);
      this.rules.broker.send(message.reply!, "+TERM");
      return;
    }
    const now = performance.now();
    const again = count > 1 || stored < consumer.created || now < this.staleUntil;
    const delivery: Delivery = { task, reply: message.reply!, count, again, stored, received: now, heard: now, ackWait: consumer.ackWait, holdsSlot: false };
    this.held.set(message.subject, delivery);
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
      this.free--;
      delivery.holdsSlot = true;
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
    const { slots } = this;
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
      end = error instanceof BrokerTimeout ? { nak: AGAIN_AFTER } : await this.runner.leave(delivery, error);
    }
    this.giveBack(delivery);
    this.recording--;
    this.busyMs = this.busyMs * 0.9 + (performance.now() - began) * 0.1;
    const { task } = delivery;
    this.held.delete(broker.names.task(task));
    broker.send(delivery.reply, "ack" in end ? "+ACK" : end.nak > 0 ? `-NAK {"delay":${Math.round(end.nak * 1e6)}}` : "-NAK");
    if (this.held.size === 0) this.idle?.();
    this.dispatch();
  }

  /** @internal */
  bodyEnded(delivery: Delivery): void {
    this.giveBack(delivery);
  }

  private giveBack(delivery: Delivery): void {
    if (delivery.holdsSlot && delivery.execution?.holdsSlot !== false) this.giveSlot();
    delivery.holdsSlot = false;
  }

  /** @internal */
  giveSlot(): void {
    const next = this.slotWaiters.shift();
    if (next !== undefined) next();
    else {
      this.free++;
      this.dispatch();
    }
  }

  /** @internal */
  async takeSlot(): Promise<void> {
    if (this.free > 0) this.free--;
    else await new Promise<void>((next) => this.slotWaiters.push(next));
  }

  // --- what is held

  /** @internal */
  get used(): number {
    return this.slots - this.free;
  }

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

  private holds(subject: string, asker: string): boolean {
    const delivery = this.held.get(subject);
    const isGuard = asker.startsWith("guard "); // of a worker that has died: it is asked what others were given at all
    return delivery !== undefined && (isGuard || delivery.execution !== undefined || !delivery.again || this.holders.name < asker);
  }

  /** @internal */
  isHeldElsewhere(task: Task): Promise<boolean> {
    return this.holders.isHeld(task.workflow, this.rules.broker.names.task(task));
  }

  /** Keep a task until its next attempt is due. A worker that stops arms its timer instead. */
  private holdForRetry(task: Task, ms: number): Promise<boolean> {
    const step = this.workflows.get(task.workflow)?.steps.find((one) => one.name === task.step);
    if (this.isStopping || step === undefined || step.options.maxRunning !== undefined) return Promise.resolve(false);
    return new Promise((done) => {
      const end = (arm: boolean) => {
        clearTimeout(timer);
        this.retries.delete(task);
        done(!arm);
      };
      const timer = setTimeout(() => end(false), ms);
      this.retries.set(task, end);
    });
  }
}

