/** A worker in TypeScript of the chaos run: it has the names and inputs of most of the workflows in tests/chaos/load.py,
 * so that any worker may carry on what another one has begun. */

import { setTimeout as sleep } from "node:timers/promises";

import { ChildFailed, collect, connect, flow, RetryAfter, Worker, workflow, type Child, type Context, type StepOptions } from "@jetflow/sdk";

import {
  bound, failsBefore, joinStyle, lateAttempts, leafValue, leaves, pause, secondBatch, sharedLeaf, subtrees, type Leaf, type Node, type Total,
} from "./plan.js";

const PATIENT: StepOptions = { attempts: 1_000_000, initialMs: 50, maxDelayMs: 1000 };
const SHORT: StepOptions = { attempts: 3, initialMs: 50, maxDelayMs: 200 };
const JSON_SCHEMA = {
  type: "object", properties: { seed: { type: "integer" }, depth: { type: "integer", default: 0 }, poisoned: { type: "boolean", default: false } },
};

type Anything = Context<any>;
type Result = number | Total | Record<string, number>;

const work = (ctx: Anything, mostMs: number) => sleep(Math.random() * mostMs, undefined, { signal: ctx.signal });

// --- leaves

const leaf = workflow("leaf", async ({ seed }: Leaf, ctx) => {
  await work(ctx, 50);
  if (ctx.attempt <= failsBefore(seed)) throw new Error(`attempt ${ctx.attempt} of leaf ${seed}`);
  return leafValue(seed);
}, { ...PATIENT, jsonSchema: JSON_SCHEMA });

const syncLeaf = workflow("sync-leaf", async ({ seed }: Leaf, ctx) => {
  await work(ctx, 20);
  return leafValue(seed);
}, { ...PATIENT, jsonSchema: JSON_SCHEMA });

const late = workflow("late", ({ seed }: Leaf, ctx) => {
  if (ctx.attempt <= lateAttempts(seed)) throw new RetryAfter(pause(seed, "late", ctx.attempt) * 1000, "it is too early");
  return leafValue(seed);
}, { ...PATIENT, jsonSchema: JSON_SCHEMA });

const doomed = workflow("doomed", ({ seed }: Leaf) => {
  throw new Error(`leaf ${seed} is doomed`);
}, { ...SHORT, jsonSchema: JSON_SCHEMA });

// --- trees

const spawnLeaf = (ctx: Anything, seed: number) => ctx.spawnWorkflow<Leaf, Result>("leaf", { seed });

async function spawnAll(ctx: Anything, kind: string, node: Node): Promise<Child<Result>[]> {
  const children: Child<Result>[] = [];
  for (const [child, seeds, keyed] of leaves(kind, node)) {
    const inputs = seeds.map((seed) => ({ seed }));
    children.push(...(await ctx.spawnWorkflows<Leaf, Result>(child, inputs, keyed ? { key: ({ seed }) => `leaf ${seed}` } : {})));
  }
  for (const [child, below] of subtrees(kind, node)) {
    children.push(await ctx.spawnWorkflow<Node, Result>(child, below, { key: `tree ${below.seed}` }));
  }
  return children;
}

/** Add what a child returned: a number, a total, or the outputs of several last steps. */
function add(to: Total, result: Result): void {
  if (typeof result === "number") {
    to.total += result;
    return;
  }
  for (const [name, value] of Object.entries(result)) to[name === "failed" ? "failed" : "total"] += value;
}

async function settled(ctx: Anything, children: Child<Result>[], to: Total = { total: 0, failed: 0 }): Promise<Total> {
  const { succeeded, failed } = await ctx.join(children, { policy: collect() });
  for (const one of succeeded) add(to, one.output);
  to.failed += failed.length;
  return to;
}

/** Join children of which none may fail. */
async function joined(ctx: Anything, children: Child<Result>[], to: Total = { total: 0, failed: 0 }): Promise<Total> {
  for (const one of await ctx.join(children)) add(to, one);
  return to;
}

async function completed(ctx: Anything, children: Child<Result>[]): Promise<Total> {
  const found: Total = { total: 0, failed: 0 };
  for await (const child of ctx.asCompleted(children)) {
    try {
      add(found, await child.result());
    } catch (error) {
      if (!(error instanceof ChildFailed)) throw error;
      found.failed++;
    }
  }
  return found;
}

const branch = flow<Node>("branch", { jsonSchema: JSON_SCHEMA }).step("fan", async (node, ctx) => {
  const children = await spawnAll(ctx, "branch", node);
  const found = joinStyle(node.seed) === 1 ? await completed(ctx, children) : await settled(ctx, children);
  const more: Child<Result>[] = [];
  for (const seed of secondBatch(node.seed, found.total)) more.push(await spawnLeaf(ctx, seed));
  return await joined(ctx, more, found);
}, PATIENT);

const scatter = flow<Node>("scatter", { jsonSchema: JSON_SCHEMA })
  .step("throw", async (node, ctx) => (await spawnAll(ctx, "scatter", node)).length, PATIENT)
  .step("gather", async (_, ctx) => {
    const found: Total = { total: 0, failed: 0 };
    let count = 0;
    for await (const child of ctx.children<Result>("throw")) {
      add(found, child.output);
      count++;
    }
    if (count !== ctx.output("throw")) throw new Error(`${count} children of ${ctx.output("throw")}`);
    return found;
  }, { ...PATIENT, after: "throw" });

const diamond = flow<Node>("diamond", { jsonSchema: JSON_SCHEMA })
  .step("left", async (node, ctx) => joined(ctx, [...(await spawnAll(ctx, "diamond", node)), await spawnLeaf(ctx, sharedLeaf(node.seed))]), PATIENT)
  .step("right", async ({ seed }, ctx) => {
    await spawnLeaf(ctx, sharedLeaf(seed));
    await ctx.spawnWorkflow<Leaf, Result>("sync-leaf", { seed }, { key: "right" });
    return leafValue(seed);
  }, PATIENT)
  .step("middle", (_, ctx) => ctx.output("left").total + ctx.output("right"), { ...PATIENT, after: ["left", "right"] })
  .step("up", (_, ctx) => ctx.output("middle") + ctx.output("left").failed, { ...PATIENT, after: ["left", "middle"] })
  .step("down", async ({ seed }, ctx) => {
    await spawnLeaf(ctx, seed + 1);
    return -leafValue(seed);
  }, { ...PATIENT, after: "middle" });

const narrow = flow<Node>("narrow", { jsonSchema: JSON_SCHEMA })
  .step("squeeze", async (node, ctx) => joined(ctx, await spawnAll(ctx, "narrow", node)), { ...PATIENT, maxRunning: 2 });

const timely = flow<Node>("timely", { jsonSchema: JSON_SCHEMA }).step("bounded", async (node, ctx) => {
  const children = await spawnAll(ctx, "timely", node);
  await ctx.join(children, { policy: collect(), withinMs: bound(node.seed) * 1000 });
  return await settled(ctx, children);
}, { ...PATIENT, maxRunning: 4 });

// --- the process

const stop = new AbortController();
process.once("SIGTERM", () => stop.abort());
while (!stop.signal.aborted) {
  try {
    const jf = await connect({ namespace: process.env["NAMESPACE"]! });
    try {
      await new Worker(jf, [leaf, syncLeaf, late, doomed, branch, scatter, diamond, narrow, timely], {
        slots: Number(process.env["SLOTS"]), parkAfterMs: Number(process.env["PARK_AFTER"]) * 1000, graceMs: 2000,
      }).run({ signal: stop.signal });
    } finally {
      await jf.close();
    }
  } catch (error) { // the servers are down at this moment
    console.error("the worker could not start:", error);
    await sleep(300);
  }
}
process.exit(0);
