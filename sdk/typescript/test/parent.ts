/** The TypeScript side of a mixed fleet, as a process: `parent.js URL`. It has `ts-fan`, `ts-park`, `ts-double` and `ts-later`. */

import { connect, flow, RetryAfter, Worker, workflow } from "../src/index.js";

const client = await connect({ servers: process.argv[2]! });
const double = workflow("ts-double", (n: number) => n * 2);
const fan = flow<{ child: string; n: number }>("ts-fan")
  .step("scatter", async ({ child, n }, ctx) => (await ctx.spawnWorkflows(child, Array.from({ length: n }, (_, at) => at))).length)
  .step("total", async (_, ctx) => {
    let sum = 0;
    for await (const child of ctx.children<number>("scatter")) sum += child.output;
    return sum;
  }, { after: "scatter" });
const later = workflow("ts-later", (ms: number, { attempt }) => {
  if (attempt === 1) throw new RetryAfter(ms);
  return attempt;
});
const park = workflow("ts-park", async ({ child, n }: { child: string; n: number }, ctx) => {
  const outputs = await ctx.join<number>(await ctx.spawnWorkflows(child, Array.from({ length: n }, (_, at) => at)));
  return outputs.reduce((sum, one) => sum + one, 0);
});
const worker = new Worker(client, [double, fan, later, park], { parkAfterMs: 300 });
await worker.start();
console.log("ready");
const stop = new AbortController();
process.stdin.on("end", () => stop.abort()).resume();
if (!stop.signal.aborted) await new Promise((done) => stop.signal.addEventListener("abort", done, { once: true }));
await worker.stop();
await client.close();
process.exit(0);
