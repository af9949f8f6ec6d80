/** What a running step sees: its run, what came before it, and its children. */

import { ChildFailed, ChildrenFailed, InvalidInput } from "./errors.js";
import type { Execution } from "./execution.js";
import { within, type Policy } from "./policies.js";
import type { Stored } from "./reading.js";
import { decodeOutcome, failuresOf, type Failure, type Outcome, type Status } from "./records.js";
import { parse } from "./json.js";
import { nameOf, type Spawnable } from "./spawning.js";
import { readable } from "./values.js";
import { lastToken, subjects } from "./wire.js";

/** A child run that a step has spawned, or found spawned. */
export class Child<O = unknown> {
  /** @internal */
  constructor(private readonly execution: Execution, readonly id: string, readonly workflow: string, readonly isDetached = false) {}

  /** Wait for the child to end, and return its output. The step's slot is free meanwhile. Throws ChildFailed. */
  async result(): Promise<O> {
    if (this.isDetached) throw new InvalidInput(`child ${this.id} is detached, and in no join: follow it by client.run(id)`);
    const [ended] = await this.execution.waiting.all([this.id]);
    return new ChildResult<O>(this.id, ended!).output;
  }
}

/** Children that were spawned together, in the order of their inputs. */
export class Children<O = unknown> implements Iterable<Child<O>> {
  /** @internal */
  constructor(private readonly execution: Execution, readonly ids: readonly string[], readonly workflow: string) {}
  get length(): number {
    return this.ids.length;
  }
  at(index: number): Child<O> | undefined {
    const id = this.ids.at(index);
    return id === undefined ? undefined : new Child<O>(this.execution, id, this.workflow);
  }
  *[Symbol.iterator](): Generator<Child<O>, void> {
    for (const id of this.ids) yield new Child<O>(this.execution, id, this.workflow);
  }
}

/** How a child ended. */
export class ChildResult<O = unknown> {
  readonly workflow: string;
  readonly key: string | null;
  readonly status: Status;
  readonly errors: readonly Failure[];
  /** @internal */
  constructor(readonly id: string, private readonly ended: Outcome) {
    ({ workflow: this.workflow, key: this.key, status: this.status } = ended);
    this.errors = failuresOf(ended);
  }
  /** The child's output. Throws ChildFailed if it has none. */
  get output(): O {
    if (this.status !== "succeeded") throw new ChildFailed(this.id, this.status, this.errors, this.key);
    return this.ended.output.value as O;
  }
}

/** How a join under a policy was decided. `open` are the ids of the children that had not ended. */
export interface Joined<O> {
  readonly met: boolean;
  readonly succeeded: readonly ChildResult<O>[];
  readonly failed: readonly ChildResult<O>[];
  readonly open: readonly string[];
}

/** How to join. With a `policy` nothing is thrown for children that failed. */
export interface JoinOptions {
  readonly policy: Policy;
  /** The join takes so long at most: what has ended by then decides. */
  readonly withinMs?: number;
}

type Group<O> = Children<O> | Iterable<Child<O>>;

/** What a running step sees of its run, and how it spawns and joins children. `S` has the outputs of earlier steps. */
// eslint-disable-next-line @typescript-eslint/no-empty-object-type -- a workflow of one step has no earlier ones
export class Context<S = {}> {
  readonly runId: string;
  readonly step: string;
  /** Which attempt this is, from 1. */
  readonly attempt: number;
  /** The same for every attempt of this step of this run: for side effects of your own. */
  readonly idempotencyKey: string;
  /** The W3C trace context that the run came with. */
  readonly traceparent: string | null;
  /** In a step on failure: why the run has failed. */
  readonly errors: readonly Failure[];
  readonly #execution: Execution;
  readonly #before: ReadonlyMap<string, Outcome>;

  /** @internal */
  constructor(execution: Execution, before: ReadonlyMap<string, Outcome>, errors: readonly Failure[]) {
    const { task } = execution;
    [this.runId, this.step, this.attempt, this.traceparent] = [task.run, task.step, execution.attempt, task.trace];
    this.idempotencyKey = `${task.run}.${task.step}`;
    this.errors = errors;
    this.#execution = execution;
    this.#before = before;
  }

  /** What was given to the root run when it was triggered. */
  get metadata(): Readonly<Record<string, unknown>> {
    const { metadata } = this.#execution.task;
    const value = metadata === null ? null : parse(metadata);
    return value !== null && typeof value === "object" ? (value as Record<string, unknown>) : {};
  }

  /** Aborted when it is in vain to go on: cancelled, timed out, parked, or its worker ends. */
  get signal(): AbortSignal {
    return this.#execution.signal;
  }

  /** Return the output of a step that comes before this one. Throws RangeError for any other. */
  output<N extends keyof S & string>(step: N): S[N] {
    const ended = this.#before.get(step);
    if (ended === undefined) throw new RangeError(`step '${step}' does not come before step '${this.step}'`);
    return ended.output.value as S[N];
  }

  /**
   * Spawn one child run, or attach to the one that this run has spawned with the same key or, without one, input.
   * A `detached` child is in nobody's join, and survives its parent.
   * Throws InvalidInput, UnknownWorkflow, KeyConflict, DepthExceeded, TreeTooLarge, PayloadTooLarge.
   */
  async spawnWorkflow<I, O>(child: Spawnable<I, O>, input: I, options: { readonly key?: string; readonly detached?: boolean } = {}): Promise<Child<O>> {
    const { key, detached = false } = options;
    const name = nameOf(child);
    const { spawner } = this.#execution;
    if (detached) return new Child(this.#execution, await spawner.detach(child, input, key), name, true);
    const [id] = await spawner.spawn(child, [input], key === undefined ? undefined : () => key);
    return new Child(this.#execution, id!, name);
  }

  /** Spawn a child run for each input of an iterable, which may be async: they are taken as they come. */
  async spawnWorkflows<I, O>(
    child: Spawnable<I, O>, inputs: Iterable<I> | AsyncIterable<I>, options: { readonly key?: (input: I) => string } = {},
  ): Promise<Children<O>> {
    if (typeof inputs !== "object" || !(Symbol.iterator in inputs || Symbol.asyncIterator in inputs)) {
      throw new InvalidInput("the inputs of spawnWorkflows are an iterable: ctx.spawnWorkflow spawns one child");
    }
    const ids = await this.#execution.spawner.spawn(child, inputs, options.key);
    return new Children(this.#execution, ids, nameOf(child));
  }

  /**
   * Wait for children, and return their outputs in their order. The step's slot is free meanwhile; a long wait parks the
   * step, which begins again from its top when they have ended: a StepOver is thrown, which must be let pass.
   * Throws ChildrenFailed once all have ended, if some failed. With a `policy` it says how it was decided instead.
   *
   * @example
   * ```ts
   * const part = workflow("part", (n: number) => n * n);
   * const whole = workflow("whole", async (upTo: number, ctx) => {
   *   const numbers = Array.from({ length: upTo }, (_, n) => n);
   *   const [first = 0] = await ctx.join(await ctx.spawnWorkflows(part, [10], { key: () => "the first" }));
   *   const some = await ctx.join(await ctx.spawnWorkflows(part, numbers), { policy: quorum(2), withinMs: 60_000 });
   *   return first + some.succeeded.length;
   * });
   * const worker = new Worker(jf, [part, whole]);
   * await worker.start();
   * console.log(await (await jf.trigger(whole, 3)).result());
   * await worker.stop();
   * ```
   */
  join<O>(children: Group<O>): Promise<O[]>;
  join<O>(children: Group<O>, options: JoinOptions): Promise<Joined<O>>;
  async join<O>(children: Group<O>, options?: JoinOptions): Promise<O[] | Joined<O>> {
    const ids = idsOf(children);
    if (options === undefined) return outputsOf(ids, await this.#execution.waiting.all(ids));
    const policy = options.withinMs === undefined ? options.policy : within(options.policy, options.withinMs);
    const { ended, open, met } = await this.#execution.waiting.decided(ids, policy);
    const results = [...ended].map(([id, one]) => new ChildResult<O>(id, one));
    const [succeeded, failed] = [true, false].map((well) => results.filter((one) => (one.status === "succeeded") === well));
    return { met, succeeded: succeeded!, failed: failed!, open };
  }

  /**
   * Yield children as they end: `await child.result()` then returns at once.
   *
   * @example
   * ```ts
   * const size = workflow("size", async (word: string) => word.length);
   * async function* words() {
   *   yield* ["to", "be", "or", "not"]; // from a file, or a page at a time from somewhere else
   * }
   * const sizes = workflow("sizes", async (_: null, ctx) => {
   *   let sum = 0;
   *   for await (const child of ctx.asCompleted(await ctx.spawnWorkflows(size, words()))) sum += await child.result();
   *   return sum;
   * });
   * const worker = new Worker(jf, [size, sizes]);
   * await worker.start();
   * console.log(await (await jf.trigger(sizes, null)).result());
   * await worker.stop();
   * ```
   */
  async *asCompleted<O>(children: Group<O>): AsyncGenerator<Child<O>, void> {
    const byId = new Map([...children].map((child) => [child.id, child]));
    for await (const id of this.#execution.waiting.each([...byId.keys()])) yield byId.get(id)!;
  }

  /**
   * Call a function once in the life of this step of this run, and return its value ever after. It is JSON. A worker that
   * dies between the call and the record calls it again. Throws InvalidOutput, PayloadTooLarge.
   */
  async once<T>(name: string, make: () => T): Promise<Awaited<T>> {
    return (await this.#execution.spawner.once(name, make)) as Awaited<T>;
  }

  /** Yield how the children of a step before this one ended, in the order of their ends. `child` types their outputs. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- of any input
  async *children<O = unknown>(step: keyof S & string, _child?: Spawnable<any, O>): AsyncGenerator<ChildResult<O>, void> {
    const { task, worker } = this.#execution;
    const { broker, looks } = worker.rules;
    const join = { root: task.root, run: task.run, step };
    const record = await looks.newest(join);
    const members = await looks.counted(join, record);
    const end = (await broker.last(subjects.step(join)))?.seq ?? Infinity;
    const result = async ({ subject, body }: Stored) =>
      new ChildResult<O>(lastToken(subject), await readable(broker, task.root, decodeOutcome(body)));
    for await (const page of broker.pages(subjects.outcomeOf(join, "*"))) {
      for (const one of page) if (one.seq < end && (members?.has(lastToken(one.subject)) ?? true)) yield await result(one);
    }
    const borrowed = (record?.borrowed ?? []).map(([run, owner]) => subjects.outcomeOf(join, run, owner));
    for (const one of await broker.many(borrowed)) yield await result(one);
  }
}

function idsOf<O>(children: Group<O>): string[] {
  if (children instanceof Children) return [...children.ids];
  const all = [...(children as Iterable<Child<O>>)];
  const detached = all.find((one) => one.isDetached);
  if (detached !== undefined) throw new InvalidInput(`child ${detached.id} is detached, and in no join`);
  return all.map((one) => one.id);
}

function outputsOf<O>(ids: readonly string[], ended: readonly Outcome[]): O[] {
  const failed = new Map<string, ChildFailed>();
  ended.forEach((one, at) => one.status !== "succeeded" && failed.set(ids[at]!, new ChildFailed(ids[at]!, one.status, failuresOf(one), one.key)));
  if (failed.size === 0) return ended.map((one) => one.output.value as O);
  const errors = [...failed.values()];
  throw new ChildrenFailed(`${errors.length} of ${ids.length} children failed, the first: ${errors[0]!.message.slice(0, 500)}`, errors);
}
