/** One delivery of a task, from what earlier deliveries have left to the write that lets it be acknowledged. */

import { AsyncLocalStorage } from "node:async_hooks";

import { textOf } from "./broker.js";
import { drop, type Marks } from "./cancelling.js";
import { Context } from "./context.js";
import {
  ChildFailed, ChildrenFailed, failureOf, InvalidInput, InvalidOutput, isFinal, LostValue, MalformedRecord, PayloadTooLarge, RetryAfter,
  RunTimeout, StepOver, StepTimeout, UnknownVersion,
} from "./errors.js";
import { Execution, type Host } from "./execution.js";
import type { Graph } from "./graph.js";
import { canonical, NotJson, parse, Raw } from "./json.js";
import { lastToken } from "./looks.js";
import { decodeAttempt, decodeOutcome, encode, failure, failuresOf, NULL, outcome, type Attempt, type Failure, type Outcome } from "./records.js";
import { getLarge, withOutput } from "./values.js";
import { START, type Task } from "./wire.js";
import { delayAfter, type Step, type Workflow } from "./workflow.js";

/** A task that this worker holds. */
export interface Delivery {
  readonly task: Task;
  reply: string;
  /** How often it was delivered. */
  count: number;
  /** Whether it may have been delivered before. */
  again: boolean;
  /** Seconds since the epoch: when the task was stored. */
  readonly stored: number;
  readonly received: number;
  heard: number;
  ackWait: number;
  holdsSlot: boolean;
  execution?: Execution;
}

/** How a delivery ends: what is said to its reply subject. */
export type End = { readonly ack: true } | { readonly nak: number };

/** What the runner needs of its worker. */
export interface Running extends Host {
  readonly marks: Marks;
  readonly unknownGraceMs: number;
  readonly workflows: ReadonlyMap<string, Workflow>;
  readonly isStopping: boolean;
  /** Whether each attempt is followed through all that it begins: a rejection that nobody handles is then known to be its. */
  readonly isCareful: boolean;
  isHeldElsewhere(task: Task): Promise<boolean>;
  bodyEnded(delivery: Delivery): void;
}

const ACK: End = { ack: true };
const NOTHING: ReadonlyMap<string, Outcome> = new Map();
const now = () => Date.now() / 1000;

/** The execution in whose step something runs: by it a rejection that nobody handles finds its attempt. */
export const current = new AsyncLocalStorage<Execution>();

/** An error that a step cannot have thrown: told to stop. */
export class Stopped extends StepOver {
  constructor(readonly why: "cancelled" | "shutdown" | "doubt") {
    super(`the step was told to stop: ${why}`);
  }
}

/** Runs deliveries. */
export class Runner {
  constructor(private readonly host: Running) {}

  /** Run one delivery. What it leads to is stored when the promise resolves. */
  async run(delivery: Delivery): Promise<End> {
    const { task } = delivery;
    const { rules, marks } = this.host;
    const graph = rules.registry.known(task.workflow, task.version) ?? (await this.graphOf(task));
    if (graph instanceof MalformedRecord) return this.endRun(task, undefined, graph);
    if (marks.covers(task, graph)) return this.drop(delivery, graph, 0);
    const step = this.stepOf(task, graph);
    if (graph === undefined || (step === undefined && task.step !== START)) return this.unknown(delivery, graph);
    try {
      if (delivery.again && (await rules.resume(task, graph))) return ACK;
      if (step === undefined) {
        await rules.begin(task, graph);
        return ACK;
      }
      return await (delivery.again ? this.tryAgain(delivery, graph, step) : this.attempt(delivery, graph, step, task.tried + 1, false));
    } catch (error) {
      if (!(error instanceof MalformedRecord || error instanceof LostValue)) throw error;
      return this.endRun(task, graph, error);
    }
  }

  private async graphOf(task: Task): Promise<Graph | MalformedRecord | undefined> {
    try {
      return await this.host.rules.registry.graph(task.workflow, task.version);
    } catch (error) {
      if (error instanceof UnknownVersion) return undefined;
      if (error instanceof MalformedRecord) return error;
      throw error;
    }
  }

  private stepOf(task: Task, graph: Graph | undefined): Step | undefined {
    const workflow = this.host.workflows.get(task.workflow);
    if (graph === undefined || workflow === undefined || !graph.has(task.step)) return undefined;
    return task.step === graph.onFailure ? workflow.failureStep : workflow.steps.find((one) => one.name === task.step);
  }

  private async drop(delivery: Delivery, graph: Graph | undefined, spawned: number): Promise<End> {
    await drop(this.host.rules, this.host.marks, delivery.task, graph, spawned);
    return ACK;
  }

  // --- attempts

  /** Count what earlier deliveries have begun, and see that no worker that lives is at it, before an attempt is made. */
  private async tryAgain(delivery: Delivery, graph: Graph, step: Step): Promise<End> {
    const { task } = delivery;
    const tried = await this.tried(task);
    const made = new Set([...tried].filter(([, one]) => !one.returned).map(([token]) => token.replace("begun-", "")));
    for (const [token, one] of tried) if (one.returned) made.delete(token);
    const begun = [...tried.keys()].filter((token) => token.startsWith("begun-")).map((token) => token.slice(6));
    const isOpen = (token: string) => !(tried.get(token)?.returned === true || (tried.get(token)?.ended ?? 0) > 0);
    if ((begun.some(isOpen) || isOpen("1")) && (await this.host.isHeldElsewhere(task))) return { nak: delivery.ackWait / 2 };
    return this.attempt(delivery, graph, step, task.tried + made.size + 1, made.size + begun.length > 0);
  }

  private attempt(delivery: Delivery, graph: Graph, step: Step, number: number, hasBegun: boolean): Promise<End> {
    const { task, again } = delivery;
    const { host } = this;
    const execution = new Execution(host, task, step, graph, number, !again && task.turn === 0);
    const late = this.tooLate(delivery, step, graph, hasBegun);
    const most = step.options.attempts ?? 3;
    if (late !== undefined || number > most) {
      execution.close();
      if (late !== undefined) return this.end(execution, "timed_out", failureOf(late, task.step));
      const message = `step '${task.step}' of '${task.workflow}' was begun and lost more often than its ${most} attempts allow`;
      return this.end(execution, "failed", failure("Poisoned", message, task.step));
    }
    delivery.execution = execution;
    if (!again) return this.execute(delivery, execution);
    const begins = this.store(task, `begun-${delivery.count}`, { attempt: number, worker: host.name, started: now() });
    return begins.then(() => this.execute(delivery, execution));
  }

  private tooLate(delivery: Delivery, step: Step, graph: Graph, hasBegun: boolean): RunTimeout | undefined {
    const { task } = delivery;
    const deadline = deadlineOf(task, graph);
    if (deadline !== undefined && Date.now() >= deadline) return new RunTimeout("the deadline of the run passed before this step could run");
    const { queueTimeoutMs } = step.options;
    if (queueTimeoutMs === undefined || hasBegun || now() - delivery.stored < queueTimeoutMs / 1000) return undefined;
    return new RunTimeout(`the task was in the queue for longer than ${queueTimeoutMs} ms`);
  }

  /** Return what is recorded of the deliveries of a turn, by their tokens. */
  private async tried(task: Task): Promise<Map<string, Attempt>> {
    const { broker } = this.host.rules;
    const { names } = broker;
    const subjects = await broker.subjects(names.records, names.attempt(task, "*"));
    const stored = await Promise.all(subjects.map((subject) => broker.last(names.records, subject)));
    return new Map(stored.flatMap((one) => (one === null ? [] : [[lastToken(one.subject), decodeAttempt(one.body)]])));
  }

  private async store(task: Task, token: string, attempt: Partial<Attempt>): Promise<void> {
    const { broker } = this.host.rules;
    await broker.store(broker.names.records, broker.names.attempt(task, token), encode(attempt));
  }

  // --- the body

  private async execute(delivery: Delivery, execution: Execution): Promise<End> {
    const { task, step } = execution;
    const at = deadlineOf(task, execution.graph);
    const left = Math.min(2 ** 31 - 1, Math.max(0, (at ?? 0) - Date.now()));
    const deadline = at === undefined ? undefined : setTimeout(() => execution.stop(new RunTimeout("the deadline of the run has passed")), left);
    let output = NULL;
    let thrown: { error: unknown } | undefined;
    try {
      const value = await execution.settled(this.call(execution));
      if (execution.need === undefined) output = new Raw(this.written(value, step));
    } catch (error) {
      thrown = { error };
    } finally {
      clearTimeout(deadline);
      execution.close();
      this.host.bodyEnded(delivery);
    }
    const { rules } = this.host;
    if (thrown?.error instanceof Stopped) return this.stopped(delivery, execution, thrown.error.why);
    if (execution.need !== undefined) {
      await rules.seal(task, execution.parking(execution.need));
      return ACK;
    }
    if (thrown !== undefined) return this.failed(delivery, execution, thrown.error);
    const of = { output, attempt: execution.attempt, started: execution.started, ended: now(), worker: this.host.name };
    const record = execution.sealing(of);
    try {
      if (record !== undefined) await rules.seal(task, record);
      else await rules.finish(task, execution.graph, execution.ending("succeeded", { output }), execution.hasSpawned);
    } catch (error) {
      if (!(error instanceof PayloadTooLarge)) throw error;
      return this.end(execution, "failed", failureOf(error, task.step));
    }
    return ACK;
  }

  private async call(execution: Execution): Promise<unknown> {
    const { task, step } = execution;
    const workflow = this.host.workflows.get(task.workflow)!;
    const text = task.value === null ? textOf(task.body) : await getLarge(this.host.rules.broker, task.root, task.value);
    let input: unknown;
    try {
      input = parse(text === "" ? "null" : text);
    } catch (error) {
      throw error instanceof NotJson ? new InvalidInput(`the input is ${error.message}`) : error;
    }
    input = workflow.checked(input);
    if (input instanceof Promise) input = await input;
    const { graph } = execution;
    const before = graph.firsts.includes(task.step) ? NOTHING : await this.before(execution);
    const context = new Context<Record<string, unknown>>(execution, before, task.step === graph.onFailure ? await this.errors(execution) : []);
    return this.host.isCareful ? current.run(execution, () => step.body(input, context)) : step.body(input, context);
  }

  private written(value: unknown, step: Step): string {
    try {
      return canonical(value === undefined ? null : value);
    } catch (error) {
      throw error instanceof NotJson ? new InvalidOutput(`the output of step '${step.name}': ${error.message}`) : error;
    }
  }

  /** Return how the steps have ended that come before a step. */
  private async before({ task, graph }: Execution): Promise<ReadonlyMap<string, Outcome>> {
    const before = graph.nodes.map(({ name }) => name).filter((name) => graph.comesBefore(name, task.step));
    const { broker } = this.host.rules;
    const { names } = broker;
    const stored = await broker.many(names.records, before.map((name) => names.step(task, name)));
    const read = await Promise.all(stored.map(async ({ subject, body }) => [lastToken(subject), await withOutput(broker, task.root, decodeOutcome(body))] as const));
    return new Map(read);
  }

  private async errors({ task }: Execution): Promise<readonly Failure[]> {
    const { broker } = this.host.rules;
    const stored = await broker.last(broker.names.records, broker.names.outcome(task));
    return stored === null ? [] : failuresOf(decodeOutcome(stored.body));
  }

  private async stopped(delivery: Delivery, execution: Execution, why: Stopped["why"]): Promise<End> {
    if (why === "cancelled") return this.drop(delivery, execution.graph, execution.hasSpawned ? execution.spawner.owned.size : 0);
    return this.handBack(delivery, { attempt: execution.attempt, started: execution.started });
  }

  /** Hand a task back that was not run, or stopped at shutdown: it is no attempt. */
  async handBack(delivery: Delivery, of: Partial<Attempt> = {}, delay = 0): Promise<End> {
    await this.store(delivery.task, String(delivery.count), { started: now(), ended: now(), worker: this.host.name, ...of, returned: true });
    return { nak: delay };
  }

  /** Hand a task back after an error of this worker itself, or a refusal: it counts, or it could go on for ever. */
  async leave(delivery: Delivery, error: unknown): Promise<End> {
    const { execution, task, count } = delivery;
    const of = { attempt: execution?.attempt ?? task.tried + 1, started: execution?.started ?? now(), ended: now(), worker: this.host.name };
    await this.store(task, String(count), { ...of, error: failureOf(error, task.step) }).catch(() => undefined);
    return { nak: 1000 };
  }

  private async failed(delivery: Delivery, execution: Execution, error: unknown): Promise<End> {
    const { task, step, attempt, started } = execution;
    const { rules, name } = this.host;
    const why = failureOf(error, task.step);
    let delay = isWorth(error, step.options.on) ? delayAfter(step.options, attempt) : undefined;
    if (delay !== undefined && error instanceof RetryAfter) delay = error.ms;
    const deadline = deadlineOf(task, execution.graph);
    if (delay !== undefined && deadline !== undefined) delay = Math.min(delay, Math.max(0, deadline - Date.now()));
    const next = delay === undefined ? "it is the last one" : `next in ${Math.round(delay)} ms`;
    const what = `attempt ${attempt} of step '${task.step}' of '${task.workflow}' failed: ${why.type}: ${why.message.slice(0, 300)}`;
    rules.broker.log.warn(`jetflow: run ${task.run}: ${what}; ${next}`);
    if (delay === undefined) return this.end(execution, error instanceof StepTimeout || error instanceof RunTimeout ? "timed_out" : "failed", why);
    const ended = now();
    const again = ended + delay / 1000;
    const of = { attempt, worker: name, started, ended };
    await this.store(task, String(delivery.count), { ...of, error: why, again });
    await rules.seal(task, execution.postponed(again, of));
    return ACK;
  }

  /** End a step without an output. One that may have spawned is sealed first: a step beside it may have borrowed. */
  private async end(execution: Execution, status: "failed" | "timed_out", error: Failure): Promise<End> {
    const { task, graph, clean } = execution;
    const ended = execution.ending(status, { error });
    if (graph.nodes.length > 1 && (!clean || execution.hasSpawned)) await this.host.rules.seal(task, execution.failing(ended));
    else await this.host.rules.finish(task, graph, ended);
    return ACK;
  }

  // --- what cannot be run

  /** Leave a step that this worker does not know to others for a while, then fail it by name. */
  private async unknown(delivery: Delivery, graph: Graph | undefined): Promise<End> {
    const { task, count } = delivery;
    const type = graph === undefined ? "UnknownVersion" : "UnknownStep";
    const tried = count > 1 ? [...(await this.tried(task)).values()] : [];
    const since = Math.min(now(), ...tried.filter((one) => one.error?.type === type && one.started > 0).map((one) => one.started));
    const message = graph === undefined ? `version '${task.version}' of workflow '${task.workflow}' is not stored` : `no worker knows step '${task.step}' of '${task.workflow}'`;
    const why = failure(type, message, task.step);
    if (now() - since < this.host.unknownGraceMs / 1000) return this.handBack(delivery, { error: why }, Math.min(1000, this.host.unknownGraceMs));
    const ended = this.unrun(task, why);
    if (graph?.has(task.step) === true && task.step !== START) await this.host.rules.finish(task, graph, ended);
    else await this.host.rules.conclude(task, ended);
    return ACK;
  }

  /** End the run of a task that rests on what cannot be read. */
  private async endRun(task: Task, graph: Graph | undefined, error: MalformedRecord | LostValue): Promise<End> {
    const ended = this.unrun(task, failureOf(error, task.step));
    if (graph !== undefined && task.step === graph.onFailure) await this.host.rules.finish(task, graph, ended);
    else await this.host.rules.conclude(task, ended, graph);
    return ACK;
  }

  /** Return the outcome of a task that cannot be run. */
  private unrun({ workflow, step, key }: Task, error: Failure): Outcome {
    return outcome("failed", { error, workflow, step, key, started: now(), ended: now(), worker: this.host.name });
  }
}

/** When a run has no more time, in ms since the epoch. What runs after its failure has all it needs. */
const deadlineOf = (task: Task, graph: Graph): number | undefined =>
  task.deadline === null || task.step === graph.onFailure ? undefined : task.deadline * 1000;

/** Tell whether an error is worth another attempt. */
function isWorth(error: unknown, on: ((error: unknown) => boolean) | undefined): boolean {
  if (error instanceof RetryAfter) return true;
  if (error instanceof RunTimeout || (isFinal(error) && !(error instanceof ChildrenFailed || error instanceof ChildFailed))) return false;
  return on === undefined ? !isFinal(error) : on(error);
}
