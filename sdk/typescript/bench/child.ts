/**
 * A child worker to measure: `node dist/bench/child.js URL [--slots N] [--workflow NAME] [--namespace NAME]`.
 *
 * It runs one workflow that returns twice its input, writes `ready`, and ends when its standard input ends.
 */

import { parseArgs } from "node:util";

import { connect, Worker, workflow } from "../src/index.js";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    slots: { type: "string", default: "100" },
    workflow: { type: "string", default: "ts-child" },
    namespace: { type: "string", default: "default" },
  },
});

const client = await connect({ namespace: values.namespace, ...(positionals[0] !== undefined && { servers: positionals[0] }) });
const double = workflow(values.workflow, (n: number) => n * 2);
const worker = new Worker(client, [double], { slots: Number(values.slots) });
await worker.start();
console.log("ready");
const stop = new AbortController();
process.once("SIGTERM", () => stop.abort());
process.stdin.on("end", () => stop.abort()).resume();
if (!stop.signal.aborted) await new Promise((done) => stop.signal.addEventListener("abort", done, { once: true }));
await worker.stop();
await client.close();
process.exit(0);
