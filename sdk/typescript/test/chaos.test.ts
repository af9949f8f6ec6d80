/** A mixed fleet whose workers are killed all the time: nothing is lost, doubled, early or stuck. `SECONDS`, `SEED`. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { connect, type Run } from "../src/index.js";
import { python, QUIET, serverProcess, typescript, type Started } from "./fleet.js";

const SECONDS = Number(process.env["SECONDS"] ?? "20");
const SEED = Number(process.env["SEED"] ?? "1");
const AT_ONCE = 6;

/** Return random numbers from 0 to 1, the same for the same seed. */
function drawing(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

test(`a mixed fleet under kills for ${SECONDS} s`, { timeout: (SECONDS + 120) * 1000 }, async (t) => {
  const draw = drawing(SEED);
  const { process: server, firstLine: url } = await serverProcess(t);
  const starters = [python, python, typescript, typescript, typescript];
  const workers: Started[] = await Promise.all(starters.map((start) => start(t, url)));
  await using client = await connect({ servers: url, logger: QUIET });
  const until = Date.now() + SECONDS * 1000;
  let [kills, restarts, ended] = [0, 0, 0];

  const kill = async (): Promise<void> => {
    while (Date.now() < until) {
      await sleep(500 + draw() * 1500);
      if (draw() < 0.1) {
        restarts++;
        server.stdin!.write("restart\n");
        continue;
      }
      const at = Math.floor(draw() * workers.length);
      workers[at]!.process.kill("SIGKILL");
      kills++;
      workers[at] = await starters[at]!(t, url);
    }
  };
  const fanOut = async (): Promise<void> => {
    while (Date.now() < until) {
      const n = 50 + Math.floor(draw() * 400);
      const [parent, child] = [["ts-fan", "py-fan", "ts-park", "py-park"][Math.floor(draw() * 4)]!, draw() < 0.5 ? "ts-double" : "py-double"];
      const run: Run<number> = await client.trigger<number>(parent, { child, n });
      const what = `SEED=${SEED}: ${parent} of ${n} ${child}, run ${run.id}`;
      assert.equal(await run.result({ timeoutMs: 90_000 }).catch((error: unknown) => String(error)), n * (n - 1), what);
      const { children } = await run.describe();
      assert.deepEqual([children.spawned, children.succeeded, children.open], [n, n, 0], what);
      ended++;
    }
  };
  await Promise.all([kill(), ...Array.from({ length: AT_ONCE }, fanOut)]);
  t.diagnostic(`${ended} fan-outs, ${kills} workers killed, ${restarts} times the server`);
  assert.ok(ended > 0 && kills > 0);
});
