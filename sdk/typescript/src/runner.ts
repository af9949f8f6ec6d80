/** One delivery of a task, from what earlier deliveries have left to the write that lets it be acknowledged. */

import { AsyncLocalStorage } from "node:async_hooks";

import { textOf, type Broker } from "./broker.js";
import { drop } from "./cancelling.js";
import { Context } from "./context.js";
import {
  ChildFailed, ChildrenFailed, failureOf, InvalidInput, InvalidOutput, isFinal, LostValue, MalformedRecord, PayloadTooLarge, RetryAfter,
  RunTimeout, StepOver, StepTimeout, UnknownVersion,
} from "./errors.js";
import { Execution } from "./execution.js";
import type { Graph } from "./graph.js";
import { canonicalOr } from "./identity.js";
import { NotJson, parse, Raw } from "./json.js";
import { decodeAttempt, decodeOutcome, encode, failure, failuresOf, NULL, outcome, type Attempt, type Failure, type Outcome } from "./records.js";
import type { Rules } from "./rules.js";
import { getLarge, withOutput } from "./values.js";
import { ADMIT, lastToken, START, subjects, type Task } from "./wire.js";
import type { Worker } from "./worker.js";
import { delayAfter, type Step } from "./workflow.js";

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
  readonly ackWait: number;
  holdsSlot: boolean;
  execution?: Execution;
}

/** How a delivery ends, as its reply subject is told: after so many ms it is delivered again, unless it is done. */
export type End = "done" | { readonly againAfter: number };

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
  private readonly rules: Rules;
  private readonly broker: Broker;

  constructor(private readonly worker: Worker) {
    this.rules = worker.rules;
    this.broker = worker.rules.broker;
  }

  /** Run one delivery. What it leads to is stored when the promise resolves. */
  async run(delivery: Delivery): Promise<End> {
    const { task } = delivery;
    let graph: Graph | undefined;
    try {
      graph = this.rules.registry.known(task.workflow, task.version) ?? (await this.graphOf(task));
      if (this.worker.marks.covers(task, graph)) return await this.drop(delivery, graph, 0);
      const step = this.stepOf(task, graph);
      if (graph === undefined || (step === undefined && task.step !== START)) return await this.unknown(delivery, graph);
      if (delivery.again && (await this.rules.resume(task, graph))) return "done";
      if (task.turn === 0 && task.notBefore !== null && task.notBefore > now()) {
        await this.rules.defer(task, Math.min(task.notBefore, task.deadline ?? Infinity));
        return "done";
      }
      if (step !== undefined) return await (delivery.again ? this.tryAgain(delivery, graph, step) : this.attempt(delivery, graph, step, task.tried + 1));
      await this.rules.begin(task, graph);
      return "done";
    } catch (error) {
      if (!(error instanceof MalformedRecord || error instanceof LostValue)) throw error;
      return this.endUnrun(task, graph, failureOf(error, task.step), task.step === graph?.onFailure);
    }
  }

  private graphOf({ workflow, version }: Task): Promise<Graph | undefined> {
    return this.rules.registry.graph(workflow, version).catch((error: unknown) => {
      if (error instanceof UnknownVersion) return undefined;
      throw error;
    });
  }

  private stepOf(task: Task, graph: Graph | undefined): Step | undefined {
    const workflow = this.worker.workflows.get(task.workflow);
    if (graph === undefined || workflow === undefined || !graph.has(task.step)) return undefined;
    if (graph.conditional.has(task.step) || graph.limited.has(task.step)) return undefined; // whoever knows them says whether it runs
    return task.step === graph.onFailure ? workflow.failureStep : workflow.steps.find((one) => one.name === task.step);
  }

  private async drop({ task }: Delivery, graph: Graph | undefined, spawned: number): Promise<End> {
    await drop(this.rules, this.worker.marks, task, graph, spawned);
    return "done";
  }

  // --- attempts

  /** Count what earlier deliveries have begun, and see that no worker that lives is at it, before an attempt is made. */
  private async tryAgain(delivery: Delivery, graph: Graph, step: Step): Promise<End> {
    const { task } = delivery;
    const tried = await this.tried(task);
    const begun = [...tried.keys()].filter((token) => token.startsWith("begun-")).map((token) => token.slice(6));
    const made = new Set([...begun, ...tried.keys()].filter((token) => /^\d/.test(token) && tried.get(token)?.returned !== true));
    const isOpen = (token: string) => !(tried.get(token)?.returned === true || (tried.get(token)?.ended ?? 0) > 0);
    if ((begun.some(isOpen) || isOpen("1")) && (await this.worker.holders.isHeld(task.workflow, subjects.task(task)))) return { againAfter: delivery.ackWait / 2 };
    return this.attempt(delivery, graph, step, task.tried + made.size + 1, made.size + begun.length > 0);
  }

  private async attempt(delivery: Delivery, graph: Graph, step: Step, number: number, hasBegun = false): Promise<End> {
    const { task, again } = delivery;
    const execution = new Execution(this.worker, delivery, step, graph, number);
    const late = this.tooLate(delivery, step, graph, hasBegun);
    const most = step.options.attempts ?? 3;
    if (late !== undefined) return this.end(execution, "timed_out", failureOf(late, task.step));
    if (number > most) {
      const message = `step '${task.step}' of '${task.workflow}' was begun and lost more often than its ${most} attempts allow`;
      return this.end(execution, "failed", failure("Poisoned", message, task.step));
    }
    delivery.execution = execution;
    if (again) await this.store(task, `begun-${delivery.count}`, { attempt: number, worker: this.worker.name, started: now() });
    return this.execute(delivery, execution);
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
    const stored = await Promise.all((await this.broker.subjects(subjects.attempt(task, "*"))).map((subject) => this.broker.last(subject)));
    return new Map(stored.flatMap((one) => (one === null ? [] : [[lastToken(one.subject), decodeAttempt(one.body)]])));
  }

  private async store(task: Task, token: string, attempt: Partial<Attempt>): Promise<void> {
    await this.broker.store(subjects.attempt(task, token), encode(attempt));
  }

  // --- the body

  private async execute(delivery: Delivery, execution: Execution): Promise<End> {
    const { task, step, graph } = execution;
    const deadline = deadlineOf(task, graph);
    if (deadline !== undefined) execution.stopAt(deadline, new RunTimeout("the deadline of the run has passed"));
    execution.startClock();
    let output = NULL;
    let thrown: { error: unknown } | undefined;
    try {
      const value = await execution.settled(this.call(execution));
      if (execution.need === undefined) output = new Raw(canonicalOr(InvalidOutput, `the output of step '${step.name}'`, value));
    } catch (error) {
      thrown = { error };
    }
    execution.close();
    this.worker.giveSlot(delivery);
    if (thrown?.error instanceof Stopped) {
      if (thrown.error.why !== "cancelled") return this.handBack(delivery, { attempt: execution.attempt, started: execution.started });
      return this.drop(delivery, graph, execution.hasSpawned ? execution.spawner.owned.size : 0);
    }
    if (execution.need === undefined && thrown !== undefined) return this.failed(delivery, execution, thrown.error);
    try {
      const record = execution.need === undefined ? execution.sealing({ output, ...execution.told() }) : execution.parking(execution.need);
      if (record !== undefined) await this.rules.seal(task, record);
      else await this.rules.finish(task, graph, execution.ending("succeeded", { output }), execution.hasSpawned);
    } catch (error) {
      if (!(error instanceof PayloadTooLarge)) throw error;
      return this.end(execution, "failed", failureOf(error, task.step));
    }
    return "done";
  }

  private async call(execution: Execution): Promise<unknown> {
    const { task, step, graph } = execution;
    const text = task.value === null ? textOf(task.body) : await getLarge(this.broker, task.root, task.value);
    let input: unknown;
    try {
      input = parse(text === "" ? "null" : text);
    } catch (error) {
      throw error instanceof NotJson ? new InvalidInput(`the input is ${error.message}`) : error;
    }
    input = this.worker.workflows.get(task.workflow)!.checked(input);
    if (input instanceof Promise) input = await input;
    const before = graph.firsts.includes(task.step) ? NOTHING : await this.before(execution);
    const context = new Context<Record<string, unknown>>(execution, before, task.step === graph.onFailure ? await this.errors(task) : []);
    return this.worker.isCareful ? current.run(execution, () => step.body(input, context)) : step.body(input, context);
  }

  /** Return how the steps have ended that come before a step. */
  private async before({ task, graph }: Execution): Promise<ReadonlyMap<string, Outcome>> {
    const before = graph.nodes.map(({ name }) => name).filter((name) => graph.comesBefore(name, task.step));
    const stored = await this.broker.many(before.map((name) => subjects.step(task, name)));
    const read = stored.map(async ({ subject, body }) =>
      [lastToken(subject), await withOutput(this.broker, task.root, decodeOutcome(body))] as const);
    return new Map(await Promise.all(read));
  }

  private async errors(task: Task): Promise<readonly Failure[]> {
    const stored = await this.broker.last(subjects.outcome(task));
    return stored === null ? [] : failuresOf(decodeOutcome(stored.body));
  }

  /** Hand a task back that was not run, or stopped at shutdown: it is no attempt. */
  async handBack({ task, count }: Delivery, of: Partial<Attempt> = {}, againAfter = 0): Promise<End> {
    await this.store(task, String(count), { started: now(), ended: now(), worker: this.worker.name, ...of, returned: true });
    return { againAfter };
  }

  /** Hand a task back after an error of this worker itself, or a refusal: it counts, or it could go on for ever. */
  async leave({ execution, task, count }: Delivery, error: unknown): Promise<End> {
    const of = { attempt: execution?.attempt ?? task.tried + 1, started: execution?.started ?? now(), ended: now(), worker: this.worker.name };
    await this.store(task, String(count), { ...of, error: failureOf(error, task.step) }).catch(() => undefined);
    return { againAfter: 1000 };
  }

  private async failed(delivery: Delivery, execution: Execution, error: unknown): Promise<End> {
    const { task, step, attempt } = execution;
    const why = failureOf(error, task.step);
    let delay = isWorth(error, step.options.on) ? delayAfter(step.options, attempt) : undefined;
    if (delay !== undefined && error instanceof RetryAfter) delay = error.ms;
    const deadline = deadlineOf(task, execution.graph);
    if (delay !== undefined && deadline !== undefined) delay = Math.min(delay, Math.max(0, deadline - Date.now()));
    const next = delay === undefined ? "it is the last one" : `next in ${Math.round(delay)} ms`;
    const what = `attempt ${attempt} of step '${task.step}' of '${task.workflow}' failed: ${why.type}: ${why.message.slice(0, 300)}`;
    this.broker.log.warn(`jetflow: run ${task.run}: ${what}; ${next}`);
    if (delay === undefined) return this.end(execution, error instanceof StepTimeout || error instanceof RunTimeout ? "timed_out" : "failed", why);
    const told = execution.told();
    const again = told.ended + delay / 1000;
    await this.store(task, String(delivery.count), { ...told, error: why, again });
    await this.rules.seal(task, execution.postponed(again, told));
    return "done";
  }

  /** End a step without an output. One that may have spawned is sealed first: a step beside it may have borrowed. */
  private async end(execution: Execution, status: "failed" | "timed_out", error: Failure): Promise<End> {
    const { task, graph, clean } = execution;
    const ended = execution.ending(status, { error });
    if (graph.nodes.length > 1 && (!clean || execution.hasSpawned)) await this.rules.seal(task, execution.failing(ended));
    else await this.rules.finish(task, graph, ended);
    return "done";
  }

  // --- what cannot be run

  /** Leave a step that this worker does not know to others for a while, then fail it by name. */
  private async unknown(delivery: Delivery, graph: Graph | undefined): Promise<End> {
    const { task, count } = delivery;
    const { unknownStepGraceMs } = this.worker.settings;
    const of = graph?.conditional.has(task.step) ? "the conditions of " : graph?.limited.has(task.step) ? "the limits of " : "";
    const why = graph === undefined
      ? failure("UnknownVersion", `version '${task.version}' of workflow '${task.workflow}' is not stored`, task.step)
      : failure("UnknownStep", `no worker knows ${of}step '${task.step}' of '${task.workflow}'`, task.step);
    const tried = count > 1 ? [...(await this.tried(task)).values()] : [];
    const since = Math.min(now(), ...tried.filter((one) => one.error?.type === why.type && one.started > 0).map((one) => one.started));
    if (now() - since < unknownStepGraceMs / 1000) return this.handBack(delivery, { error: why }, Math.min(1000, unknownStepGraceMs));
    const isStep = graph?.has(task.step) === true && task.step !== START && task.step !== ADMIT;
    return this.endUnrun(task, isStep ? graph : undefined, why, isStep);
  }

  /** End the step, or else the run, of a task that cannot be run: what it rests on cannot be read, or is not known. */
  private async endUnrun(task: Task, graph: Graph | undefined, error: Failure, isStep: boolean): Promise<End> {
    const { workflow, step, key } = task;
    const ended = outcome("failed", { error, workflow, step, key, started: now(), ended: now(), worker: this.worker.name });
    if (graph !== undefined && isStep) await this.rules.finish(task, graph, ended);
    else await this.rules.conclude(task, ended, graph);
    return "done";
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
