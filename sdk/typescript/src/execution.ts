/** One execution of one step: what it has spawned, what it waits for, and the record that it leaves behind. */

import { StepOver, StepTimeout } from "./errors.js";
import type { Graph } from "./graph.js";
import { idSum, packIds } from "./identity.js";
import { threshold } from "./policies.js";
import { NO_JOIN, outcome, type JoinRecord, type Outcome } from "./records.js";
import type { Delivery } from "./runner.js";
import { Spawner } from "./spawning.js";
import { Waiting, type Need } from "./waiting.js";
import { subjects, type Task } from "./wire.js";
import type { Worker } from "./worker.js";
import type { Step } from "./workflow.js";

const LONGEST_TIMER = 2 ** 31 - 1;

/** One attempt of one step. */
export class Execution {
  readonly started = Date.now() / 1000;
  need: Need | undefined;
  isOver = false;
  readonly task: Task;
  /** Whether nothing of the step can have been stored before. */
  readonly clean: boolean;
  private stopped: Error | undefined;
  private onStop: ((error: Error) => void) | undefined;
  private spawner_: Spawner | undefined;
  private waiting_: Waiting | undefined;
  private controller: AbortController | undefined;
  private clock: NodeJS.Timeout | undefined;
  private deadline: NodeJS.Timeout | undefined;
  private timeLeft: number;
  private clockBegan = 0;

  constructor(
    readonly worker: Worker, readonly delivery: Delivery, readonly step: Step, readonly graph: Graph, readonly attempt: number,
  ) {
    this.task = delivery.task;
    this.clean = !delivery.again && this.task.turn === 0;
    this.timeLeft = step.options.timeoutMs ?? Infinity;
  }

  /** The children of the step; a step that has none makes none of this. */
  get spawner(): Spawner {
    return (this.spawner_ ??= new Spawner(this));
  }
  get waiting(): Waiting {
    return (this.waiting_ ??= new Waiting(this));
  }
  get hasSpawned(): boolean {
    return this.spawner_ !== undefined && this.spawner_.owned.size + this.spawner_.borrowed.size > 0;
  }
  /** Aborted when it is in vain to go on. */
  get signal(): AbortSignal {
    this.controller ??= new AbortController();
    if (this.isOver || this.need !== undefined) this.controller.abort(new StepOver("the step is over"));
    return this.controller.signal;
  }

  // --- the end

  /** Tell the step to stop: its signal is aborted, and what it comes to does not count any more. */
  stop(error: Error): void {
    if (this.isOver) return;
    this.stopped = error;
    this.close(error);
    this.onStop?.(error);
  }

  /** Wait for what the body comes to, or until the step is told to stop. */
  settled(body: PromiseLike<unknown>): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.onStop = reject;
      if (this.stopped !== undefined) reject(this.stopped);
      body.then(resolve, reject);
    });
  }

  /** Stop the step at a time, in ms since the epoch. */
  stopAt(time: number, error: Error): void {
    this.deadline = setTimeout(() => this.stop(error), Math.min(LONGEST_TIMER, time - Date.now()));
  }

  /** End all that goes on for the step. */
  close(reason?: Error): void {
    if (this.isOver) return;
    this.isOver = true;
    clearTimeout(this.clock);
    clearTimeout(this.deadline);
    this.waiting_?.close();
    this.abort(reason);
  }

  abort(reason?: Error): void {
    this.controller?.abort(reason ?? new StepOver("the step has ended")); // most steps have none
  }

  /** Throw if the step must not go on. */
  check(): void {
    if (this.isOver || this.need !== undefined) throw new StepOver(this.need ? "the step is parked: let this error pass" : "the step is over");
  }

  /** Unwind the step where it waits. */
  park(): void {
    this.waiting_?.park();
  }

  // --- its slot and its time, which do not run while it waits

  leaveSlot(): void {
    this.worker.giveSlot(this.delivery);
    clearTimeout(this.clock);
    this.timeLeft -= performance.now() - this.clockBegan;
  }

  async takeSlot(): Promise<void> {
    await this.worker.takeSlot(this.delivery);
    if (this.isOver) this.worker.giveSlot(this.delivery);
    else this.startClock();
  }

  startClock(): void {
    if (this.timeLeft === Infinity) return;
    const { name, options } = this.step;
    const late = () => new StepTimeout(`attempt ${this.attempt} of step '${name}' took longer than ${options.timeoutMs} ms`);
    this.clockBegan = performance.now();
    this.clock = setTimeout(() => this.stop(late()), Math.min(this.timeLeft, LONGEST_TIMER));
  }

  // --- what is left behind

  /** Return the record that seals the step's children; undefined if there is nothing to wait for or to remember. */
  sealing(ended: Partial<JoinRecord>): JoinRecord | undefined {
    const alone = this.graph.nodes.length === 1;
    if (!this.hasSpawned && (alone || this.clean)) return undefined;
    const { owned, borrowed } = this.spawner;
    const waited = [...owned, ...borrowed.keys()].every((one) => this.waiting.joined.has(one));
    if (waited && (alone || (this.clean && borrowed.size === 0))) return undefined;
    const policy = waited ? {} : (this.step.options.join ?? {});
    const total = owned.size + borrowed.size;
    return this.record("sealed", {
      needed: threshold(policy, total), total, policy, borrowed: [...borrowed], excused: [...this.waiting.excused].sort(),
      ...membersOf(owned, this.clean && policy.early !== true), ...ended,
    });
  }

  /** Return the record that seals a step that has failed. */
  failing({ status, error, attempt, started, ended, worker }: Outcome): JoinRecord {
    return this.record("sealed", { members: "", status, error, attempt, started, ended, worker });
  }

  /** Return the record that parks a step whose attempt failed until it is tried again. */
  postponed(until: number, of: Partial<JoinRecord>): JoinRecord {
    return this.record("parked", { until, tried: this.attempt, ...of });
  }

  /** Return the record that parks the step at its waits. */
  parking({ children, atLeast, policy, until }: Need): JoinRecord {
    const owned = [...this.spawner.owned].filter((one) => children.has(one));
    const borrowed = [...this.spawner.borrowed].filter(([one]) => children.has(one));
    const isWhole = this.clean && policy === undefined && owned.length === this.spawner.owned.size && atLeast === children.size;
    const bounds = policy === undefined ? { needed: atLeast } : { needed: threshold(policy, children.size), total: children.size, policy };
    return this.record("parked", { ...bounds, borrowed, until, ...membersOf(owned, isWhole) });
  }

  private record(kind: JoinRecord["kind"], of: Partial<JoinRecord>): JoinRecord {
    const { task, worker } = this;
    return { ...NO_JOIN, kind, turn: task.turn, task: worker.rules.broker.namespace.absolute(subjects.task(task)), needed: 0, ...of };
  }

  /** Return what is said of an attempt that has ended. */
  told = () => ({ attempt: this.attempt, started: this.started, ended: Date.now() / 1000, worker: this.worker.name });

  /** Return what an outcome of this step says, however it ended. */
  ending(status: Outcome["status"], of: Partial<Outcome>): Outcome {
    const { workflow, step, key } = this.task;
    return outcome(status, { workflow, step, key, ...this.told(), ...of });
  }
}

/** Return which children a record counts: by their sum, if all that are stored count, else by name. */
const membersOf = (owned: Iterable<string>, isWhole: boolean) => (isWhole ? { id_sum: idSum(owned) } : { members: packIds(owned) });
