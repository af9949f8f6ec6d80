/** Declaring workflows: of one step by `workflow`, of several by `flow`. Their types follow from their functions. */

import type { Context } from "./context.js";
import { InvalidDeclaration, InvalidInput } from "./errors.js";
import type { Node, StoredGraph } from "./graph.js";
import { hashed, isName } from "./identity.js";
import { canonical, type Schema } from "./json.js";
import type { Policy } from "./policies.js";
import type { Declaration } from "./records.js";

/** A validator of any library that keeps to Standard Schema, such as zod or valibot. */
export interface StandardSchema<T = unknown> {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => Validated<T> | Promise<Validated<T>>;
    readonly types?: { readonly input: unknown; readonly output: T } | undefined;
    readonly jsonSchema?: { readonly input: (options: { readonly target: string }) => Record<string, unknown> };
  };
}
type Validated<T> =
  | { readonly value: T; readonly issues?: undefined }
  | { readonly issues: readonly { readonly message: string; readonly path?: readonly unknown[] | undefined }[] };

/** How often a step is tried, and how long it waits between: `initialMs * multiplier ** (n - 1)`, shortened by `jitter`. */
export interface Retry {
  readonly attempts?: number;
  readonly initialMs?: number;
  readonly multiplier?: number;
  readonly maxDelayMs?: number;
  /** A fraction from 0 to 1: by so much a delay is shortened at random, at most. */
  readonly jitter?: number;
  /** Tells whether an error is worth another attempt. Without it all are, but failed children. */
  readonly on?: (error: unknown) => boolean;
}

/** What can be said of a step. Times are milliseconds. */
export interface StepOptions extends Retry {
  /** One attempt may take so long; waits for children do not count. */
  readonly timeoutMs?: number;
  /** The task may lie in the queue for so long. */
  readonly queueTimeoutMs?: number;
  /** So many may run at once, in all workers together. */
  readonly maxRunning?: number;
  /** Decides over the children that the step returns without having joined them. */
  readonly join?: Policy;
}

/** What can be said of a workflow. */
export interface WorkflowOptions<I> {
  /** Checks, and types, the input. */
  readonly schema?: StandardSchema<I>;
  /** The JSON Schema of the input: clients that have no code of the workflow compute its digest by it. */
  readonly jsonSchema?: Schema;
  /** A run may take so long. */
  readonly deadlineMs?: number;
}

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- a worker has steps of any types
type Body = (input: any, ctx: Context<any>) => unknown;

/** One step: what runs, and how. */
export interface Step {
  readonly name: string;
  readonly after: readonly string[];
  readonly body: Body;
  readonly options: StepOptions;
}

/** A workflow of input `I` and output `O`: give it to a worker, a client, or a step that spawns it. */
export class Workflow<I = unknown, O = unknown> {
  declare readonly types?: { readonly input: (input: I) => void; readonly output: O };

  constructor(
    readonly name: string,
    readonly options: WorkflowOptions<I>,
    readonly steps: readonly Step[],
    readonly failFast = false,
    readonly failureStep?: Step,
  ) {
    if (!isName(name)) throw new InvalidDeclaration(`a workflow cannot be called '${name}': letters, digits, _ and -, 64 at most`);
  }

  /** Return what the registry says of it. */
  declaration(): Declaration {
    const nodes: Node[] = this.steps.map(({ name, after }) => ({ name, after }));
    const more = { ...(this.failureStep && { on_failure: this.failureStep.name }), ...(this.failFast && { fail_fast: true }) };
    const graph: StoredGraph = { workflow: this.name, nodes, ...more };
    const { schema, jsonSchema, deadlineMs } = this.options;
    const input = jsonSchema ?? schema?.["~standard"].jsonSchema?.input({ target: "draft-2020-12" }) ?? {};
    const shown = this.steps.map(({ name, options }) => [name, {
      attempts: options.attempts ?? 3, timeout: options.timeoutMs === undefined ? null : options.timeoutMs / 1000,
      max_running: options.maxRunning ?? null, join: options.join ?? {},
    }] as const);
    const deadline = deadlineMs === undefined ? null : deadlineMs / 1000;
    return { graph, version: hashed(canonical(graph)).slice(0, 16), deadline, input, output: {}, steps: Object.fromEntries(shown) };
  }

  /** Return an input as its step gets it; a promise if its validator needs one. Throws InvalidInput. */
  checked(input: unknown): I | Promise<I> {
    const { schema } = this.options;
    if (schema === undefined) return input as I;
    const found = schema["~standard"].validate(input);
    return found instanceof Promise ? found.then((one) => this.fitting(one)) : this.fitting(found);
  }

  private fitting(found: Validated<I>): I {
    if (found.issues === undefined) return found.value;
    const said = found.issues.map(({ message, path = [] }) => [path.map(segment).join("."), message].filter(Boolean).join(": "));
    throw new InvalidInput(`the input of workflow '${this.name}' does not fit: ${said.join("; ")}`);
  }
}

/** Return a part of an issue's path: a key, or an object that has one. */
const segment = (one: unknown): string => String(one !== null && typeof one === "object" && "key" in one ? one.key : one);

/**
 * Declare a workflow of one step.
 *
 * @example
 * ```ts
 * const page = workflow("page", async (url: string, ctx) => (await fetch(url, { signal: ctx.signal })).status, {
 *   attempts: 5,
 *   timeoutMs: 30_000,
 * });
 * ```
 */
export function workflow<I, O>(
  name: string, body: (input: I, ctx: Context) => O, options: WorkflowOptions<I> & StepOptions = {},
): Workflow<I, Awaited<O>> {
  return new Workflow<I, Awaited<O>>(name, options, [checkedStep({ name: "run", after: [], body, options })]);
}

type IsUnion<T, U = T> = T extends U ? ([U] extends [T] ? false : true) : never;
/** The output of a run: that of its last step, or of several by name. */
export type OutputOf<S, L> = [L] extends [keyof S] ? (IsUnion<L> extends true ? { [K in L]: S[K] } : S[L]) : undefined;

/** A workflow of several steps. Each call of `step` returns one with a step more. */
// eslint-disable-next-line @typescript-eslint/no-empty-object-type -- it begins without steps
export class Flow<I = unknown, S = {}, L extends string = never> extends Workflow<I, OutputOf<S, L>> {
  /**
   * Add a step that begins when the steps in `after` have ended. Its context knows the outputs of the steps before.
   */
  step<N extends string, O, A extends keyof S & string = never>(
    name: N, body: (input: I, ctx: Context<S>) => O, options: StepOptions & { readonly after?: A | readonly A[] } = {},
  ): Flow<I, S & Record<N, Awaited<O>>, Exclude<L, A> | N> {
    const after = [options.after ?? []].flat() as string[];
    if (this.steps.some((step) => step.name === name) || name === this.failureStep?.name) throw new InvalidDeclaration(`workflow '${this.name}' has a step '${name}' already`);
    const unknown = after.find((one) => !this.steps.some((step) => step.name === one));
    if (unknown !== undefined) throw new InvalidDeclaration(`step '${name}' of workflow '${this.name}' comes after '${unknown}', which is not declared before it`);
    return new Flow(this.name, this.options, [...this.steps, checkedStep({ name, after, body, options })], this.failFast, this.failureStep);
  }

  /** Have a step run when a run has failed: `ctx.errors` tells why. It changes the run no more. */
  onFailure(body: (input: I, ctx: Context<S>) => unknown, options: StepOptions & { readonly name?: string } = {}): Flow<I, S, L> {
    const step = checkedStep({ name: options.name ?? "undo", after: [], body, options });
    return new Flow(this.name, this.options, this.steps, this.failFast, step);
  }
}

/**
 * Begin to declare a workflow of several steps. With `failFast` the first step that fails ends the run.
 *
 * @example
 * ```ts
 * const length = workflow("length", (word: string) => word.length);
 * const text = flow<string>("text")
 *   .step("scatter", async (words, ctx) => (await ctx.spawnWorkflows(length, words.split(" "))).length)
 *   .step("report", async (words, ctx) => {
 *     let letters = 0;
 *     for await (const child of ctx.children("scatter", length)) letters += child.output;
 *     return { words: ctx.output("scatter"), letters };
 *   }, { after: "scatter" });
 *
 * const worker = new Worker(jf, [length, text]);
 * await worker.start();
 * const { letters } = await (await jf.trigger(text, "to be or not")).result();
 * console.log(letters);
 * await worker.stop();
 * ```
 */
export function flow<I>(name: string, options: WorkflowOptions<I> & { readonly failFast?: boolean } = {}): Flow<I> {
  return new Flow<I>(name, options, [], options.failFast ?? false);
}

function checkedStep(step: Step): Step {
  const { name, options } = step;
  const { attempts = 1, jitter = 0, multiplier = 1 } = options;
  if (!isName(name)) throw new InvalidDeclaration(`a step cannot be called '${name}': letters, digits, _ and -, 64 at most`);
  if (typeof step.body !== "function") throw new InvalidDeclaration(`step '${name}' is no function`);
  if (!Number.isInteger(attempts) || attempts < 1) throw new InvalidDeclaration(`step '${name}': attempts is ${attempts}: a whole number from 1`);
  if (!(jitter >= 0 && jitter <= 1) || !(multiplier >= 1)) throw new InvalidDeclaration(`step '${name}': jitter is from 0 to 1, multiplier from 1`);
  const times = [options.timeoutMs, options.queueTimeoutMs, options.maxRunning].filter((one) => one !== undefined && !(one > 0));
  if (times.length > 0) throw new InvalidDeclaration(`step '${name}': timeoutMs, queueTimeoutMs and maxRunning are above 0`);
  return step;
}

/** Return after how many ms an attempt is made again that has failed; undefined if none is left. */
export function delayAfter(retry: Retry, attempt: number, chance = Math.random()): number | undefined {
  const { attempts = 3, initialMs = 500, multiplier = 2, maxDelayMs = 60_000, jitter = 0.1 } = retry;
  return attempt >= attempts ? undefined : Math.min(initialMs * multiplier ** (attempt - 1), maxDelayMs) * (1 - jitter * chance);
}
