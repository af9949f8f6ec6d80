/** Steps that leave rejections that nobody handles: `loose.js URL` prints how their runs ended. */

import { setTimeout as sleep } from "node:timers/promises";

import { workflow } from "../src/index.js";
import { running } from "./fleet.js";

const loose = workflow("loose", async (name: string, ctx) => {
  if (name.startsWith("bad")) void Promise.reject(new RangeError(`loose in ${name}`));
  await sleep(200, undefined, { signal: ctx.signal });
  return name;
}, { attempts: 1 });

await running(process.argv[2]!, [loose], async (client) => {
  const runs = await Promise.all(["good1", "bad1", "good2", "bad2", "good3"].map((name) => client.trigger(loose, name)));
  const ended = await Promise.allSettled(runs.map((run) => run.result({ timeoutMs: 20_000 })));
  console.log(JSON.stringify(ended.map((one) => (one.status === "fulfilled" ? one.value : String(one.reason)))));
});
process.exit(0);
