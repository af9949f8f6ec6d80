/** One execution of one step: what it has spawned, what it waits for, and the record that it leaves behind. */

import { StepOver, StepTimeout } from "./errors.js";
import type { Graph } from "./graph.js";
import { idSum, packIds } from "./identity.js";
import { threshold } from "./policies.js";
import { NULL, outcome, type JoinRecord, type Outcome } from "./records.js";
import type { Rules } from "./rules.js";
import { Spawner } from "./spawning.js";
import { Waiting, type Need } from "./waiting.js";
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

/** One attempt of one step. */
export class Execution {
  readonly started = Date.now() / 1000;
  need: Need | undefined;
  isOver = false;
  holdsSlot = true;
  private stopped: Error | undefined;
  private onStop: ((error: Error) => void) | undefined;
  private spawner_: Spawner | undefined;
  private waiting_: Waiting | undefined;
  private controller: AbortController | undefined;
  private clock: NodeJS.Timeout | undefined;
  private timeLeft: number;
  private clockBegan = 0;

  constructor(
    readonly host: Host, readonly task: Task, readonly step: Step, readonly graph: Graph, readonly attempt: number,
    /** Whether nothing of the step can have been stored before. */
    readonly clean: boolean,
  ) {
    this.timeLeft = step.options.timeoutMs ?? Infinity;
    this.startClock();
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

  /** End all that goes on for the step. */
  close(reason?: Error): void {
    if (this.isOver) return;
    this.isOver = true;
    clearTimeout(this.clock);
    this.waiting_?.close();
    this.abort(reason);
  }

  abort(reason?: Error): void {
    this.controller?.abort(reason ?? new StepOver("the step has ended"));
  }

  leaveSlot(): void {
    this.holdsSlot = false;
    this.host.giveSlot();
  }

  async takeSlot(): Promise<void> {
    await this.host.takeSlot();
    if (this.isOver) this.host.giveSlot();
    else {
      this.holdsSlot = true;
      this.startClock();
    }
  }

  /** Unwind the step where it waits. */
  park(): void {
    this.waiting_?.park();
  }

  /** Throw if the step must not go on. */
  check(): void {
    if (this.isOver || this.need !== undefined) throw new StepOver(this.need ? "the step is parked: let this error pass" : "the step is over");
  }

  startClock(): void {
    if (this.timeLeft === Infinity) return;
    this.clockBegan = performance.now();
    this.clock = setTimeout(() => this.stop(this.tooLong()), Math.min(this.timeLeft, 2 ** 31 - 1));
  }

  private tooLong(): StepTimeout {
    return new StepTimeout(`attempt ${this.attempt} of step '${this.step.name}' took longer than ${this.step.options.timeoutMs} ms`);
  }

  stopClock(): void {
    clearTimeout(this.clock);
    this.timeLeft -= performance.now() - this.clockBegan;
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
    const isWhole = this.clean && policy.early !== true;
    return this.record("sealed", {
      needed: threshold(policy, total), total, policy, borrowed: [...borrowed], excused: [...this.waiting.excused].sort(),
      ...(isWhole ? { id_sum: idSum(owned) } : { members: packIds(owned) }), ...ended,
    });
  }

  /** Return the record that seals a step that has failed. */
  failing({ status, error, attempt, started, ended, worker }: Outcome): JoinRecord {
    return this.record("sealed", { needed: 0, members: "", status, error, attempt, started, ended, worker });
  }

  /** Return the record that parks a step whose attempt failed until it is tried again. */
  postponed(until: number, { attempt, started, ended, worker }: Pick<JoinRecord, "attempt" | "started" | "ended" | "worker">): JoinRecord {
    return this.record("parked", { until, tried: attempt, attempt, started, ended, worker });
  }

  /** Return the record that parks the step at its waits. */
  parking({ children, atLeast, policy, until }: Need): JoinRecord {
    const owned = [...this.spawner.owned].filter((one) => children.has(one));
    const borrowed = [...this.spawner.borrowed].filter(([one]) => children.has(one));
    const isWhole = this.clean && policy === undefined && owned.length === this.spawner.owned.size && atLeast === children.size;
    return this.record("parked", {
      needed: policy === undefined ? atLeast : threshold(policy, children.size), total: policy === undefined ? 0 : children.size,
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
