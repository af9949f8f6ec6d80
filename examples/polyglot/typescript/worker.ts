/** A worker of the workflow `words`: it counts the words of a file. It ends when its standard input does, and so with
 * the program that has started it. */

import { readFile } from "node:fs/promises";

import { connect, Worker, workflow } from "@jetflow/sdk";

const words = workflow("words", async (path: string) => {
  const text = await readFile(path, "latin1"); // a byte is a character, as in a file of any encoding
  const counts: Record<string, number> = Object.create(null);
  for (const [word] of text.toLowerCase().matchAll(/[a-z]{4,}/g)) counts[word] = (counts[word] ?? 0) + 1;
  return counts;
});

const jf = await connect({ namespace: "polyglot" }); // at NATS_URL
const worker = new Worker(jf, [words]);
await worker.start();
console.log("ready");
for await (const _ of process.stdin);
await worker.stop();
await jf.close();
