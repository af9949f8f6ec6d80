/** Mixed fleets: parents in one language, children in the other, and workers that are killed in the middle. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { connect, type Client, type Run } from "../src/index.js";
import { python, QUIET, server, typescript, type Started } from "./fleet.js";

const CHILDREN = Number(process.env["CHILDREN"] ?? "10000");
const DOUBLED = CHILDREN * (CHILDREN - 1);

/** Wait until some of a run's children have ended. */
async function underWay(run: Run, enough: number): Promise<void> {
  while ((await run.describe()).children.succeeded < enough) await sleep(10);
}

describe("mixed fleets", () => {
  const ends: (() => void)[] = [];
  const t = { after: (end: () => void) => void ends.push(end) };
  let url: string;
  let client: Client;
  before(async () => {
    url = await server(t);
    client = await connect({ servers: url, logger: QUIET });
  });
  after(async () => {
    await client.close();
    ends.forEach((end) => end());
  });

  async function fanOut(parent: string, child: string, workers: Started[], killed?: Started): Promise<void> {
    const run = await client.trigger<number>(parent, { child, n: CHILDREN });
    if (killed !== undefined) {
      await underWay(run, CHILDREN / 20);
      killed.process.kill("SIGKILL");
    }
    assert.equal(await run.result({ timeoutMs: 60_000 }), DOUBLED);
    const { children } = await run.describe();
    assert.deepEqual([children.spawned, children.open, children.succeeded], [CHILDREN, 0, CHILDREN]);
    assert.ok(workers.every((one) => one === killed || one.process.exitCode === null), "a worker has ended by itself");
  }

  test("a parent in Python, children in TypeScript", async (t) => {
    await fanOut("py-fan", "ts-double", [await python(t, url), await typescript(t, url)]);
  });

  test("a parent in TypeScript, children in Python", async (t) => {
    await fanOut("ts-fan", "py-double", [await python(t, url), await typescript(t, url)]);
  });

  test("a parent and children in TypeScript", async (t) => {
    await fanOut("ts-fan", "ts-double", [await typescript(t, url), await typescript(t, url)]);
  });

  test("a parent in Python, and a worker of its TypeScript children is killed", async (t) => {
    const workers = [await python(t, url), await typescript(t, url), await typescript(t, url)];
    await fanOut("py-fan", "ts-double", workers, workers[1]);
  });

  test("a parent in TypeScript, and a worker of its Python children is killed", async (t) => {
    const workers = [await typescript(t, url), await python(t, url), await python(t, url)];
    await fanOut("ts-fan", "py-double", workers, workers[1]);
  });

  test("a parent in TypeScript, whose worker is killed while its children end", async (t) => {
    const workers = [await typescript(t, url), await typescript(t, url), await python(t, url)];
    await fanOut("ts-fan", "ts-double", workers, workers[0]);
  });

  test("a parked parent in Python is woken by its TypeScript children", async (t) => {
    await python(t, url);
    await typescript(t, url);
    const run = await client.trigger<number>("py-park", { child: "ts-double", n: 100 });
    assert.equal(await run.result({ timeoutMs: 20_000 }), 9900);
  });

  test("an attempt in TypeScript that is due later is woken by a Python worker", async (t) => {
    await python(t, url);
    const { process: worker } = await typescript(t, url);
    const run = await client.trigger<number>("ts-later", 1500);
    assert.equal(await run.result({ timeoutMs: 20_000 }), 2);
    assert.equal(worker.exitCode, null);
  });
});
