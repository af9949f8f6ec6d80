/** Steps: what they are given, how they fail, and how they are stopped. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import {
  connect, flow, KeyConflict, NonRetryable, RecentlyDeleted, ResultTimeout, RetryAfter, RunFailed, UnknownRun, UnknownWorkflow, workflow, type StandardSchema,
} from "../src/index.js";
import { HERE, QUIET, running, server, signal, started } from "./fleet.js";

const ONCE = { attempts: 1 };
const SOON = { attempts: 3, initialMs: 20, jitter: 0 };

describe("steps", () => {
  const ends: (() => void)[] = [];
  let url: string;
  before(async () => (url = await server({ after: (end) => ends.push(end as () => void) })));
  after(() => ends.forEach((end) => end()));

  test("a run gives what its step returns", async () => {
    const add = workflow("add", ({ a, b }: { a: number; b: number }) => ({ sum: a + b }));
    await running(url, [add], async (client) => {
      const run = await client.trigger(add, { a: 1, b: 2 }, { key: "k" });
      assert.deepEqual(await run.result(), { sum: 3 });
      assert.deepEqual(await client.run(run.id).result(), { sum: 3 });
      const same = await client.trigger("add", { b: 2, a: 1 }, { key: "k" });
      assert.equal(same.id, run.id);
      await assert.rejects(client.trigger(add, { a: 1, b: 3 }, { key: "k" }), KeyConflict);
      await assert.rejects(client.trigger("nobody", 1), UnknownWorkflow);
      await assert.rejects(client.run("0".repeat(32)).result(), UnknownRun);
      assert.throws(() => client.run("x"), UnknownRun);
      const { status, workflow: name, key, children } = await run.describe();
      assert.deepEqual([status, name, key, children.spawned], ["succeeded", "add", "k", 0]);
    });
  });

  test("steps see the outputs of steps before them, and the run gives those of its last steps", async () => {
    const graph = flow<number>("graph")
      .step("left", (n) => n + 1)
      .step("right", (n) => Promise.resolve(`${n}`))
      .step("both", (_, ctx) => [ctx.output("left"), ctx.output("right")] as const, { after: ["left", "right"] })
      .step("other", (_, ctx) => ctx.output("left") * 10, { after: "left" });
    await running(url, [graph], async (client) => {
      const out = await (await client.trigger(graph, 4)).result();
      const typed: { both: readonly [number, string]; other: number } = out;
      assert.deepEqual(typed, { both: [5, "4"], other: 50 });
    });
  });

  test("whole numbers keep all their digits, and what is no JSON is refused by name", async () => {
    const echo = workflow("echo", (value: unknown) => value);
    const bad = workflow("bad", (what: string) => ({ a: [what === "nan" ? NaN : what === "map" ? new Map() : "\ud800"] }), ONCE);
    await running(url, [echo, bad], async (client) => {
      const given = { big: 123456789012345678901234567890n, small: 1.5, zero: -0, text: "é\u2028", list: [null, true] };
      assert.deepEqual(await (await client.trigger(echo, given)).result(), { ...given, zero: 0 });
      assert.equal(await (await client.trigger(echo, undefined)).result(), null);
      await assert.rejects(client.trigger(echo, { x: Infinity }), { type: "InvalidInput", message: /Infinity has no JSON, at \.x/ });
      for (const what of ["nan", "map", "surrogate"]) {
        const run = await client.trigger(bad, what);
        await assert.rejects(run.result(), (error: RunFailed) => error.failures[0]?.type === "InvalidOutput" && error.message.includes(".a[0]"));
      }
    });
  });

  test("large inputs and outputs travel by reference", async () => {
    const long = workflow("long", (text: string) => text + text);
    await running(url, [long], async (client) => {
      const text = "x".repeat(700_000);
      assert.equal((await (await client.trigger(long, text)).result()).length, 1_400_000);
    });
  });

  test("an attempt that fails is made again, and says why it failed at last", async () => {
    let made = 0;
    const flaky = workflow("flaky", (until: number) => {
      if (++made < until) throw new TypeError(`attempt ${made}`);
      return made;
    }, SOON);
    const never = workflow("never", () => {
      throw new NonRetryable("in vain");
    }, SOON);
    const later = workflow("later", (_: null, ctx) => {
      if (ctx.attempt === 1) throw new RetryAfter(50);
      return ctx.attempt;
    });
    await running(url, [flaky, never, later], async (client) => {
      assert.equal(await (await client.trigger(flaky, 3)).result(), 3);
      assert.equal(await (await client.trigger(later, null)).result(), 2);
      made = 0;
      await assert.rejects((await client.trigger(flaky, 9)).result(), (error: RunFailed) => {
        const [why] = error.failures;
        assert.deepEqual([why?.type, why?.message, why?.step], ["TypeError", "attempt 3", "run"]);
        assert.match(why!.place, /^steps\.test\.(js|ts):/);
        return true;
      });
      await assert.rejects((await client.trigger(never, null)).result(), /NonRetryable: in vain/);
    });
  });

  test("what is thrown may be anything, and fails that attempt and no other", async () => {
    const throws = workflow("throws", async (what: string, ctx) => {
      const values: Record<string, unknown> = { text: "just text", undefined: undefined, null: null, object: { code: 7 }, symbol: Symbol("s"), cyclic: {} };
      (values["cyclic"] as Record<string, unknown>)["self"] = values["cyclic"];
      if (what !== "well") throw values[what];
      await sleep(300, undefined, { signal: ctx.signal });
      return "well";
    }, ONCE);
    await running(url, [throws], async (client) => {
      const well = await client.trigger(throws, "well");
      for (const what of ["text", "undefined", "null", "object", "symbol", "cyclic"]) {
        await assert.rejects((await client.trigger(throws, what)).result(), (error: RunFailed) => error.failures[0]?.type === "Error");
      }
      assert.equal(await well.result(), "well");
    });
  });

  test("a rejection that nobody handles fails its attempt and no other", async (t) => {
    const { firstLine } = await started(t, process.execPath, `${HERE}dist/test/loose.js`, url);
    const ended = JSON.parse(firstLine) as (string | null)[];
    assert.deepEqual(ended.map((one) => /loose in \w+|good\d/.exec(String(one))?.[0]), ["good1", "loose in bad1", "good2", "loose in bad2", "good3"]);
  });

  test("a step that takes too long times out, and its signal tells it so", async () => {
    const told: string[] = [];
    const slow = workflow("slow", async (ms: number, ctx) => {
      ctx.signal.addEventListener("abort", () => told.push((ctx.signal.reason as Error).name));
      await sleep(ms);
      return ms;
    }, { ...SOON, attempts: 2, timeoutMs: 100 });
    const late = workflow("late", async (_: null, ctx) => sleep(5000, undefined, { signal: ctx.signal }), { deadlineMs: 200 });
    await running(url, [slow, late], async (client) => {
      assert.equal(await (await client.trigger(slow, 1)).result(), 1);
      const run = await client.trigger(slow, 2000);
      await assert.rejects(run.result(), (error: RunFailed) => error.status === "timed_out" && error.failures[0]?.type === "StepTimeout");
      assert.deepEqual(told.filter((one) => one === "StepTimeout"), ["StepTimeout", "StepTimeout"]);
      await assert.rejects((await client.trigger(late, null)).result(), (error: RunFailed) => error.failures[0]?.type === "RunTimeout");
    });
  });

  test("a run that is cancelled is told to stop", async () => {
    let aborted = false;
    const begun = signal();
    const long = workflow("long-one", async (_: null, ctx) => {
      begun.resolve(undefined);
      await sleep(20_000, undefined, { signal: ctx.signal }).catch(() => (aborted = true));
    });
    await running(url, [long], async (client) => {
      const run = await client.trigger(long, null);
      await begun.promise;
      await assert.rejects(run.result({ timeoutMs: 50 }), ResultTimeout);
      await assert.rejects(run.result({ signal: AbortSignal.timeout(20) }), { name: "TimeoutError" });
      assert.equal(await run.cancel(), true);
      await assert.rejects(run.result(), (error: RunFailed) => error.status === "cancelled");
      assert.equal(await run.cancel(), false);
      assert.equal(aborted, true);
    });
  });

  test("a run is deleted with all that is stored of it, and its key is refused for a while", async () => {
    const long = workflow("long-text", (text: string) => text + text);
    const parent = workflow("deleted", async (_: null, ctx) => (await ctx.spawnWorkflow(long, "x".repeat(300_000))).result());
    await running(url, [long, parent], async (client) => {
      const run = await client.trigger(parent, null, { key: "k" });
      const kept = await client.trigger(parent, null, { key: "other" });
      await Promise.all([run.result(), kept.result()]);
      await run.delete();
      await assert.rejects(run.result({ timeoutMs: 5000 }), UnknownRun);
      await assert.rejects(run.delete(), UnknownRun);
      await assert.rejects(client.trigger(parent, null, { key: "k" }), RecentlyDeleted);
      const { broker } = client.rules;
      const kinds = ["task", "cancel", "run", "step", "join", "mark", "try", "once", "value", "timer", "due", "counters"];
      const left = (await Promise.all(kinds.map((kind) => broker.subjects(`${kind}.>`)))).flat();
      assert.deepEqual(left.filter((one) => one.includes(run.id)), [`cancel.${run.id}.${run.id}`]);
      assert.equal((await kept.describe()).children.succeeded, 1);
    });
  });

  test("an input is checked by a schema of any library", async () => {
    const positive: StandardSchema<number> = {
      "~standard": {
        version: 1, vendor: "test",
        validate: (value) => (typeof value === "number" && value > 0 ? { value: value * 2 } : { issues: [{ message: "must be positive", path: ["n"] }] }),
      },
    };
    const checked = workflow("checked", (n) => n, { schema: positive });
    await running(url, [checked], async (client) => {
      assert.equal(await (await client.trigger(checked, 4)).result(), 8);
      await assert.rejects(client.trigger(checked, -1), { type: "InvalidInput", message: /n: must be positive/ });
      await assert.rejects((await client.trigger("checked", -1)).result(), (error: RunFailed) => error.failures[0]?.type === "InvalidInput");
    });
  });

  test("a step on failure is told why, and changes the run no more", async () => {
    const undone = signal<string[]>();
    const saga = flow<null>("saga")
      .step("one", () => {
        throw new Error("no");
      }, ONCE)
      .step("two", () => 2, { after: "one" })
      .onFailure((_, ctx) => undone.resolve(ctx.errors.map((error) => error.message)));
    await running(url, [saga], async (client) => {
      await assert.rejects((await client.trigger(saga, null)).result(), /Error: no/);
      assert.deepEqual(await undone.promise, ["no", "not run: step 'one' failed"].slice(0, 1));
    });
  });

  test("bad messages end nobody", async () => {
    const fine = workflow("fine", (n: number) => n);
    await running(url, [fine], async (client, _, namespace) => {
      const { nc } = client.rules.broker;
      const id = "a".repeat(32);
      for (const [subject, body] of [
        [`jf.${namespace}.task.fine.run.${id}.-.${id}.0`, "{not json"], [`jf.${namespace}.task.fine.run.${id}.-.${id}.007`, "1"],
        [`jf.${namespace}.task.fine.run.x`, ""], [`jf.${namespace}.live.cancel.${id}.${id}`, '["x"'], [`jf.${namespace}.who.fine`, "\n\n"],
        [`jf.${namespace}.task.fine.nostep.${id}.-.${id}.0`, "1"], [`jf.${namespace}.live.run.${id}.${id}.run.x`, "[]"],
      ] as const) nc.publish(subject, body);
      assert.equal(await (await client.trigger(fine, 5)).result(), 5);
      assert.notEqual((await nc.request(`jf.${namespace}.who.fine`, "")).string(), "", "a worker says that it is there");
      await assert.rejects(client.run(id).result({ timeoutMs: 5000 }), (error: RunFailed) => error.failures[0]?.type === "InvalidInput");
    });
  });

  test("a worker tells who asks what it does, and a guard what it holds", async () => {
    const [begun, end] = [signal(), signal()];
    const leaf = workflow("leaf", async (_: null, ctx) => {
      await end.promise;
      return ctx.attempt;
    });
    const asked = workflow("asked", async (_: null, ctx) => {
      const child = await ctx.spawnWorkflow(leaf, null);
      begun.resolve(undefined);
      return child.result();
    });
    await running(url, [leaf, asked], async (client, worker, namespace) => {
      const { nc } = client.rules.broker;
      const ask = async (subject: string, body = "") => nc.request(`jf.${namespace}.${subject}`, body, { timeout: 500 });
      const run = await client.trigger(asked, null);
      await begun.promise;
      type Told = Record<"running" | "workflows", Record<string, unknown>[]> & Record<"name" | "pid" | "slots" | "used" | "waiting" | "leaving", unknown>;
      let told: Told;
      do told = (await ask("ask.workers")).json<Told>(); while (told.running.length < 2 || told.waiting !== 1);
      assert.deepEqual([told.name, told.pid, told.slots, told.used, told.leaving], [worker.name, process.pid, 100, 1, false]);
      assert.deepEqual(told.workflows, ["asked", "leaf"]);
      const [step] = (await ask(`ask.run.${run.id}`, '{"stack": true}')).json<Record<string, unknown>[]>();
      const { started, ...rest } = step!;
      assert.deepEqual(rest, {
        run: run.id, root: run.id, workflow: "asked", step: "run", worker: worker.name, attempt: 1, turn: 0, state: "waiting",
      });
      assert.ok(Math.abs(Number(started) - Date.now() / 1000) < 60);
      await assert.rejects(ask(`ask.run.${"0".repeat(32)}`), /timeout/i);
      const tasks = [`jf.${namespace}.task.asked.run.${run.id}.-.${run.id}.0`, `jf.${namespace}.task.asked.run.x`];
      for (const asker of ["guard someone", "someone"]) {
        const lines = (await ask("who.asked", [asker, ...tasks].join("\n"))).string().split("\n");
        assert.deepEqual(lines.slice(1), tasks.slice(0, 1), asker);
      }
      end.resolve(undefined);
      assert.equal(await run.result(), 1);
    });
  });

  test("metadata and the trace context reach every descendant", async () => {
    const traceparent = `00-${"a".repeat(32)}-${"b".repeat(16)}-01`;
    const leaf = workflow("leaf", (_: null, ctx) => [ctx.metadata, ctx.traceparent]);
    const root = workflow("root", async (_: null, ctx) => (await ctx.spawnWorkflow(leaf, null)).result());
    await running(url, [leaf, root], async (client) => {
      const run = await client.trigger(root, null, { metadata: { by: "håndværk" }, traceparent });
      assert.deepEqual(await run.result(), [{ by: "håndværk" }, traceparent]);
      await assert.rejects(client.trigger(root, null, { metadata: { x: "x".repeat(20_000) } }), { type: "PayloadTooLarge" });
    });
  });

  test("a worker that stops lets steps end, and another one goes on with the rest", async () => {
    const begun = signal();
    const work = workflow("work", async (ms: number, ctx) => {
      begun.resolve(undefined);
      await sleep(ms, undefined, { signal: ctx.signal });
      return ctx.attempt;
    });
    await running(url, [work], async (client, worker, namespace) => {
      const runs = await Promise.all([300, 300, 1].map((ms) => client.trigger(work, ms)));
      await begun.promise;
      await worker.stop();
      assert.equal(await runs[0]!.result({ timeoutMs: 0 }), 1);
      await using other = await connect({ servers: url, namespace, logger: QUIET });
      const { Worker } = await import("../src/index.js");
      await using again = new Worker(other, [work]);
      await again.start();
      for (const run of runs) assert.equal(await run.result({ timeoutMs: 10_000 }), 1);
    }, { slots: 1 });
  });
});
