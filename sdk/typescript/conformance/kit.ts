/**
 * The kit of the conformance suite in TypeScript: `python -m conformance --level parent -- node dist/conformance/kit.js`.
 *
 * What each workflow does is told in `conformance/README.md`.
 */

import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

import { plant } from "./faults.js";
import {
  collect, connect, flow, JetflowError, RetryAfter, RunFailed, Worker, workflow,
  type Client, type Context, type StandardSchema, type StepOptions,
} from "../src/index.js";

const PREFIX = process.env["PREFIX"] ?? "";
const AT_ONCE: StepOptions = { attempts: 1 };
const SHORT: StepOptions = { attempts: 3, initialMs: 400, multiplier: 1, jitter: 0 };

/** A schema of a check in one function. */
const schemaOf = <T>(fits: (value: unknown) => value is T, what: string): StandardSchema<T> => ({
  "~standard": { version: 1, vendor: "kit", validate: (value) => (fits(value) ? { value } : { issues: [{ message: `${what} is expected` }] }) },
});
const whole = schemaOf((value): value is number => Number.isInteger(value), "a whole number");

// --- one step

const square = workflow(`${PREFIX}square`, (n: number) => n * n, { ...SHORT, schema: whole, jsonSchema: { type: "integer" } });
const echo = workflow(`${PREFIX}echo`, (value: unknown) => value, SHORT);

const flaky = workflow(`${PREFIX}flaky`, (n: number, { attempt }) => {
  if (attempt < 3) throw new Error(`attempt ${attempt} of ${n} fails`);
  return attempt;
}, SHORT);

const fail = workflow(`${PREFIX}fail`, (n: number) => {
  if (n % 10 === 3) throw new RangeError(`${n} ends in 3`);
  return n;
}, AT_ONCE);

const again = workflow(`${PREFIX}again`, ({ seconds, fails = 1 }: { seconds: number; fails?: number }, { attempt }) => {
  if (attempt <= fails) throw new RetryAfter(seconds * 1000, `attempt ${attempt} fails`);
  return attempt;
}, { attempts: 5 });

const slow = workflow(`${PREFIX}slow`, async (seconds: number, { attempt, signal }) => {
  await sleep(seconds * 1000, undefined, { signal });
  return attempt;
}, SHORT);

const big = workflow(`${PREFIX}big`, ({ text, n = 1 }: { text: string; n?: number }) => text.repeat(n), {
  ...AT_ONCE, jsonSchema: { type: "object", properties: { text: { type: "string" }, n: { type: "integer", default: 1 } } },
});

// --- children

interface Spawn {
  readonly child: string;
  readonly inputs: readonly unknown[];
  readonly key?: string | null;
}

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- of any workflow
const spawn = (ctx: Context<any>, child: string, inputs: readonly unknown[], key: string | null = null) =>
  ctx.spawnWorkflows<unknown, number>(child, inputs, key === null ? {} : { key: (value) => (key === "each" ? JSON.stringify(value) : key) });

async function outputs<S>(ctx: Context<S>, step: keyof S & string): Promise<number[]> {
  const found: number[] = [];
  for await (const child of ctx.children<number>(step)) found.push(child.output);
  return found;
}

const sum = (numbers: number[]) => numbers.reduce((all, one) => all + one, 0);

const fan = flow<Spawn>(`${PREFIX}fan`)
  .step("scatter", async ({ child, inputs, key }, ctx) => (await spawn(ctx, child, inputs, key)).length, SHORT)
  .step("sum", async (_, ctx) => sum(await outputs(ctx, "scatter")), { ...SHORT, after: "scatter" });

const park = workflow(`${PREFIX}park`, async ({ child, inputs, then = [] }: Spawn & { then?: unknown[] }, ctx) => {
  const results = await ctx.join(await spawn(ctx, child, inputs));
  return then.length === 0 ? results : [...results, ...(await ctx.join(await spawn(ctx, child, then)))];
}, SHORT);

const bounded = workflow(`${PREFIX}bounded`, async ({ child, inputs, seconds }: Spawn & { seconds: number }, ctx) => {
  const joined = await ctx.join(await spawn(ctx, child, inputs), { policy: collect(), withinMs: seconds * 1000 });
  return joined.succeeded.length;
}, SHORT);

interface Late extends Spawn {
  readonly again: readonly unknown[];
  readonly fails?: number;
}

const lost = (name: string, lose: () => void) => flow<Late>(name)
  .step("scatter", async (given, ctx) => {
    await spawn(ctx, given.child, ctx.attempt === 1 ? given.inputs : given.again);
    if (ctx.attempt <= (given.fails ?? 1)) lose();
  }, { attempts: 2, initialMs: 200, jitter: 0 })
  .step("sum", async (_, ctx) => sum(await outputs(ctx, "scatter")), { attempts: 2, initialMs: 200, jitter: 0, after: "scatter" });

const late = lost(`${PREFIX}late`, () => {
  throw new Error("lost after spawning");
});
const crash = lost(`${PREFIX}crash`, () => process.exit(1));

const borrow = flow<Spawn>(`${PREFIX}borrow`)
  .step("one", async ({ child, inputs, key }, ctx) => (await spawn(ctx, child, inputs, key)).length, SHORT)
  .step("two", async ({ child, inputs, key }, ctx) => (await spawn(ctx, child, inputs, key)).length, SHORT)
  .step("end", async (_, ctx) => [await outputs(ctx, "one"), await outputs(ctx, "two")], { ...SHORT, after: ["one", "two"] });

const nest = workflow(`${PREFIX}nest`, async (depth: number, ctx): Promise<number> => {
  if (depth === 0) return 0;
  const [below = 0] = await ctx.join(await spawn(ctx, `${PREFIX}nest`, [depth - 1]));
  return below + 1;
}, SHORT);

const detach = workflow(`${PREFIX}detach`, async ({ child, input, key }: { child: string; input: unknown; key?: string | null }, ctx) =>
  (await ctx.spawnWorkflow(child, input, { detached: true, ...(key == null ? {} : { key }) })).id, SHORT);

// --- graphs

const diamond = flow<number>(`${PREFIX}diamond`)
  .step("left", (n) => n + 1, SHORT)
  .step("right", (n) => n + 2, SHORT)
  .step("sum", (_, ctx) => ctx.output("left") + ctx.output("right"), { ...SHORT, after: ["left", "right"] })
  .step("text", (n) => "x".repeat(n), { ...SHORT, after: ["left", "right"] });

interface Steps {
  readonly fail?: readonly string[];
  readonly seconds?: Readonly<Record<string, number>>;
}

const stepOf = (step: string) => async ({ fail = [], seconds = {} }: Steps, { signal }: Context) => {
  await sleep((seconds[step] ?? 0) * 1000, undefined, { signal });
  if (fail.includes(step)) throw new Error(`${step} fails`);
  return step;
};

const stepsOf = (name: string, failFast = false) => flow<Steps>(name, { failFast })
  .step("a", stepOf("a"), AT_ONCE)
  .step("b", stepOf("b"), AT_ONCE)
  .step("c", stepOf("c"), { ...AT_ONCE, after: "a" })
  .step("d", stepOf("d"), { ...AT_ONCE, after: ["a", "b"] })
  .step("e", stepOf("e"), { ...AT_ONCE, after: "c" });

const undo = (_: Steps, ctx: Context<object>) => ctx.errors.map((error) => error.step);
const steps = stepsOf(`${PREFIX}steps`);
const fast = stepsOf(`${PREFIX}fast`, true).onFailure(undo);
const saga = flow<Steps>(`${PREFIX}saga`)
  .step("one", stepOf("one"), AT_ONCE).step("two", stepOf("two"), AT_ONCE).onFailure(undo, SHORT);

const WORKFLOWS = [
  square, echo, flaky, fail, again, slow, big, fan, park, bounded, late, crash, borrow, nest, detach, diamond, steps, fast, saga,
];

// --- the client

interface Command {
  readonly id: number;
  readonly do: string;
  readonly workflow: string;
  readonly input: unknown;
  readonly key?: string | null;
  readonly metadata?: Record<string, unknown> | null;
  readonly run: string;
  readonly tree?: boolean;
}

async function perform(client: Client, command: Command): Promise<object> {
  const { key, metadata } = command;
  switch (command.do) {
    case "trigger": {
      const run = await client.trigger(command.workflow, command.input, { ...(key != null && { key }), ...(metadata != null && { metadata }) });
      return { run: run.id };
    }
    case "result":
      try {
        return { status: "succeeded", output: await client.run(command.run).result({ timeoutMs: 20_000 }) };
      } catch (error) {
        if (error instanceof RunFailed) return { status: error.status };
        throw error;
      }
    case "cancel":
      return { cancelled: await client.run(command.run).cancel({ tree: command.tree ?? true }) };
    case "delete":
      await client.run(command.run).delete();
      return {};
    default:
      return { error: "UnknownCommand", message: command.do };
  }
}

async function answer(client: Client, command: Command): Promise<void> {
  let said: object;
  try {
    said = await perform(client, command);
  } catch (error) {
    said = { error: error instanceof JetflowError ? error.type : "Error", message: String(error) };
  }
  console.log(JSON.stringify({ id: command.id, ...said }));
}

// --- main

const stop = new AbortController();
process.once("SIGTERM", () => stop.abort());
const logger = { info: () => undefined, warn: console.error, error: console.error };
const client = await connect({ namespace: process.env["JETFLOW_NAMESPACE"] ?? "default", logger });
const worker = new Worker(client, WORKFLOWS, {
  slots: Number(process.env["SLOTS"] ?? 100), parkAfterMs: 0, graceMs: 5000, unknownStepGraceMs: 3000,
});
plant(process.argv[2]);
const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => void answer(client, JSON.parse(line) as Command));
lines.on("close", () => stop.abort());
await worker.start();
console.log("ready");
if (!stop.signal.aborted) await new Promise((done) => stop.signal.addEventListener("abort", done, { once: true }));
await worker.stop();
await client.close();
process.exit(0);
