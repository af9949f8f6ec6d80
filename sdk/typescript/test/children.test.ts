/** Children: spawning, joining in all ways, and what a parent reads of them. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import {
  ChildrenFailed, collect, failFast, first, flow, quorum, tolerate, within, workflow, type ChildFailed, type Context, type RunFailed, type WorkerOptions,
} from "../src/index.js";
import { running, server, signal } from "./fleet.js";

const square = workflow("square", (n: number) => n * n);
const odd = workflow("odd", (n: number) => {
  if (n % 2 === 0) throw new Error(`${n} is even`);
  return n;
}, { attempts: 1 });
const slow = workflow("slow", async (ms: number, ctx) => {
  await sleep(ms, undefined, { signal: ctx.signal });
  return ms;
});
const range = (n: number) => Array.from({ length: n }, (_, at) => at);
const COLD: WorkerOptions = { parkAfterMs: 0 };

describe("children", () => {
  const ends: (() => void)[] = [];
  let url: string;
  before(async () => (url = await server({ after: (end) => ends.push(end as () => void) })));
  after(() => ends.forEach((end) => end()));

  for (const [how, options] of [["warm", {}], ["cold", COLD]] as const) {
    test(`a join in a step gives the outputs in spawn order (${how})`, async () => {
      const parent = workflow("parent", async (n: number, ctx) => {
        const outputs = await ctx.join(await ctx.spawnWorkflows(square, range(n)));
        return [outputs, ctx.attempt] as const;
      });
      await running(url, [parent, square], async (client) => {
        assert.deepEqual(await (await client.trigger(parent, 20)).result(), [range(20).map((n) => n * n), 1]);
      }, options);
    });

    test(`one slot is enough for a recursion (${how})`, async () => {
      const nest = workflow("nest", async (depth: number, ctx): Promise<number> => {
        if (depth === 0) return 0;
        return 1 + (await (await ctx.spawnWorkflow<number, number>("nest", depth - 1)).result());
      });
      await running(url, [nest], async (client) => assert.equal(await (await client.trigger(nest, 20)).result(), 20), { slots: 1, ...options });
    });

    test(`children are taken as they end (${how})`, async () => {
      const race = workflow("race", async (times: number[], ctx) => {
        const seen: number[] = [];
        for await (const child of ctx.asCompleted(await ctx.spawnWorkflows(slow, times))) seen.push(await child.result());
        return seen;
      });
      await running(url, [race, slow], async (client) => {
        assert.deepEqual(await (await client.trigger(race, [500, 1, 250])).result(), [1, 250, 500]);
      }, options);
    });

    test(`children that fail are told together, and caught by who wants to (${how})`, async () => {
      const strict = workflow("strict", async (_: null, ctx) => ctx.join(await ctx.spawnWorkflows(odd, [1, 2, 4])));
      const lenient = workflow("lenient", async (_: null, ctx) => {
        try {
          return await ctx.join(await ctx.spawnWorkflows(odd, [1, 2, 4]));
        } catch (error) {
          if (error instanceof ChildrenFailed) return error.errors.map((one: ChildFailed) => one.failures[0]?.message);
          throw error;
        }
      });
      await running(url, [strict, lenient, odd], async (client) => {
        await assert.rejects((await client.trigger(strict, null)).result(), (error: RunFailed) => error.failures[0]?.type === "ChildrenFailed");
        assert.deepEqual(await (await client.trigger(lenient, null)).result(), ["2 is even", "4 is even"]);
      }, options);
    });

    test(`a policy decides in the step (${how})`, async () => {
      const policies = { collect: collect(), fast: failFast(), two: quorum(2), one: first(), most: tolerate(1), half: tolerate({ fraction: 0.5 }) };
      const decided = workflow("decided", async (name: keyof typeof policies, ctx) => {
        const { met, succeeded, failed, open } = await ctx.join(await ctx.spawnWorkflows(odd, [1, 3, 4, 6]), { policy: policies[name] });
        return { met, all: succeeded.length + failed.length + open.length, outputs: succeeded.map((one) => one.output).sort() };
      });
      await running(url, [decided, odd], async (client) => {
        for (const [name, met] of Object.entries({ collect: true, fast: false, two: true, one: true, most: false, half: true })) {
          const found = await (await client.trigger(decided, name as keyof typeof policies)).result();
          assert.deepEqual([name, found.met, found.all], [name, met, 4]);
        }
      }, options);
    });
  }

  test("a join may have a bound: what has ended decides, and the rest is cancelled", async () => {
    const bounded = workflow("bounded", async (_: null, ctx) => {
      const joined = await ctx.join(await ctx.spawnWorkflows(slow, [1, 60_000]), { policy: { anything: true, cancel_rest: true }, withinMs: 600 });
      return [joined.met, joined.succeeded.map((one) => one.output), joined.open.length] as const;
    });
    await running(url, [bounded, slow], async (client) => {
      const run = await client.trigger(bounded, null);
      assert.deepEqual(await run.result({ timeoutMs: 15_000 }), [true, [1], 1]);
      const { children } = await run.describe();
      assert.deepEqual([children.spawned, children.succeeded, children.cancelled], [2, 1, 1]);
    });
  });

  test("children of a step are joined at its boundary, and read as a stream by the next", async () => {
    const fan = flow<number>("fan")
      .step("scatter", async (n, ctx) => (await ctx.spawnWorkflows(square, stream(n), { key: (one) => `k${one}` })).length)
      .step("gather", async (_, ctx) => {
        let [sum, keys] = [0, 0];
        for await (const child of ctx.children("scatter", square)) {
          sum += child.output;
          keys += child.key?.startsWith("k") === true ? 1 : 0;
        }
        return [ctx.output("scatter"), sum, keys];
      }, { after: "scatter" });
    await running(url, [fan, square], async (client) => {
      const run = await client.trigger(fan, 2500);
      assert.deepEqual(await run.result(), [2500, range(2500).reduce((sum, n) => sum + n * n, 0), 2500]);
      assert.equal((await run.describe()).children.succeeded, 2500);
    });
  });

  test("a policy at the boundary decides whether the step fails", async () => {
    const make = (name: string, join: ReturnType<typeof failFast>) => flow<number[]>(name)
      .step("scatter", async (ns, ctx) => (await ctx.spawnWorkflows(odd, ns)).length, { join })
      .step("count", async (_, ctx) => {
        let well = 0;
        for await (const child of ctx.children("scatter", odd)) well += child.status === "succeeded" ? 1 : 0;
        return well;
      }, { after: "scatter" });
    const all = [make("all", {}), make("some", tolerate(1)), make("any", collect()), make("fast", failFast()), make("soon", within(collect(), 30_000))];
    await running(url, [...all, odd], async (client) => {
      const ended = await Promise.all(all.map(async (one) => {
        const run = await client.trigger(one, [1, 3, 2]);
        return run.result({ timeoutMs: 15_000 }).catch((error: unknown) => (error as RunFailed).failures[0]?.type);
      }));
      assert.deepEqual(ended, ["ChildrenFailed", 2, 2, "ChildrenFailed", 2]);
    });
  });

  test("a child of two steps is one child", async () => {
    let ran = 0;
    const counted = workflow("counted", async (n: number) => {
      ran++;
      await sleep(100);
      return n;
    });
    const spawnIt = async (_: null, ctx: Context<object>) => (await ctx.spawnWorkflow(counted, 7, { key: "shared" })).id;
    const both = flow<null>("both").step("one", spawnIt).step("two", spawnIt).step("end", async (_, ctx) => {
      const seen: number[] = [];
      for (const step of ["one", "two"] as const) for await (const child of ctx.children(step, counted)) seen.push(child.output);
      return [ctx.output("one") === ctx.output("two"), ...seen];
    }, { after: ["one", "two"] });
    await running(url, [both, counted], async (client) => {
      assert.deepEqual(await (await client.trigger(both, null)).result(), [true, 7, 7]);
      assert.equal(ran, 1);
    });
  });

  test("a key with another input is refused at once", async () => {
    const twice = workflow("twice", async (_: null, ctx) => {
      await ctx.spawnWorkflow(square, 1, { key: "k" });
      await ctx.spawnWorkflow(square, 2, { key: "k" });
    });
    await running(url, [twice, square], async (client) => {
      await assert.rejects((await client.trigger(twice, null)).result(), (error: RunFailed) => error.failures[0]?.type === "KeyConflict");
    });
  });

  test("what is no workflow, or an input that has no JSON, is refused where it is spawned", async () => {
    const bad = workflow("bad-spawn", async (what: string, ctx) => {
      if (what === "workflow") await ctx.spawnWorkflow(undefined as never, 1);
      if (what === "input") await ctx.spawnWorkflow(square, NaN);
      if (what === "inputs") await ctx.spawnWorkflows(square, 7 as never);
      if (what === "key") await ctx.spawnWorkflows(square, [1], { key: () => 7 as never });
      if (what === "nobody") await ctx.spawnWorkflow("nobody-has-it", 1);
    }, { attempts: 1 });
    await running(url, [bad, square], async (client) => {
      const wanted = { workflow: "InvalidDeclaration", input: "InvalidInput", inputs: "InvalidInput", key: "InvalidInput", nobody: "UnknownWorkflow" };
      for (const [what, type] of Object.entries(wanted)) {
        await assert.rejects((await client.trigger(bad, what)).result(), (error: RunFailed) => error.failures[0]?.type === type, what);
      }
      await assert.rejects(client.trigger(null as never), { type: "InvalidDeclaration" });
    });
  });

  test("once is once, whatever attempt or turn asks", async () => {
    let made = 0;
    const parent = workflow("lucky", async (_: null, ctx) => {
      const drawn = await ctx.once("draw", () => ++made);
      if (ctx.attempt < 3) throw new Error("again");
      await ctx.join(await ctx.spawnWorkflows(square, [1]));
      return [drawn, await ctx.once("draw", () => ++made), made];
    }, { initialMs: 10 });
    await running(url, [parent, square], async (client) => assert.deepEqual(await (await client.trigger(parent, null)).result(), [1, 1, 1]), COLD);
  });

  test("a step that swallows its parking is parked all the same", async () => {
    const deaf = workflow("deaf", async (_: null, ctx) => {
      const children = await ctx.spawnWorkflows(slow, [300]);
      try {
        return await ctx.join(children);
      } catch {
        return "swallowed";
      }
    });
    await running(url, [deaf, slow], async (client) => assert.deepEqual(await (await client.trigger(deaf, null)).result(), [300]), COLD);
  });

  test("a detached child survives its parent, and is in no join", async () => {
    const parent = workflow("parting", async (_: null, ctx) => {
      const child = await ctx.spawnWorkflow(slow, 100, { detached: true });
      await assert.rejects(child.result(), { type: "InvalidInput" });
      return child.id;
    });
    await running(url, [parent, slow], async (client) => {
      const id = await (await client.trigger(parent, null)).result();
      assert.equal(await client.run(id).result(), 100);
    });
  });

  test("cancelling a run cancels what it has spawned", async () => {
    const begun = signal();
    let aborted = 0;
    const leaf = workflow("leaf", async (_: number, ctx) => {
      begun.resolve(undefined);
      await sleep(60_000, undefined, { signal: ctx.signal }).catch(() => aborted++);
    });
    const parent = workflow("tree", async (_: null, ctx) => ctx.join(await ctx.spawnWorkflows(leaf, [1, 2, 3])));
    await running(url, [parent, leaf], async (client) => {
      const run = await client.trigger(parent, null);
      await begun.promise;
      await run.cancel();
      await assert.rejects(run.result(), (error: RunFailed) => error.status === "cancelled");
      while (aborted < 3) await sleep(20);
    });
  });

  test("limits of depth and size end what does not end by itself", async () => {
    const deep = workflow("deep", async (n: number, ctx): Promise<unknown> => (await ctx.spawnWorkflow("deep", n + 1)).result(), { attempts: 1 });
    const wide = workflow("wide", async (_: null, ctx) => {
      for (let at = 0; at < 50; at++) {
        await ctx.spawnWorkflow(square, at);
        await sleep(5);
      }
    }, { attempts: 1 });
    await running(url, [deep, wide, square], async (client) => {
      await assert.rejects((await client.trigger(deep, 0)).result(), /DepthExceeded/);
      await assert.rejects((await client.trigger(wide, null)).result(), /TreeTooLarge/);
    }, { maxDepth: 5, maxDescendants: 10 });
  });
});

async function* stream(n: number): AsyncGenerator<number, void> {
  for (let at = 0; at < n; at++) {
    if (at % 100 === 0) await sleep(1);
    yield at;
  }
}
