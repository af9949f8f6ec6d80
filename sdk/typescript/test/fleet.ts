/** Real servers and processes for tests: each ends with the test that has started it, or is killed by it. */

import { spawn, type ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { TestContext } from "node:test";

import { connect, Worker, type Client, type WorkerOptions, type Workflow } from "../src/index.js";

export const HERE = fileURLToPath(new URL("../../", import.meta.url));
export const PYTHON = process.env["PYTHON"] ?? `${HERE}../../.venv/bin/python`;
export const QUIET = { info: () => undefined, warn: () => undefined, error: () => undefined };

export interface Started {
  readonly process: ChildProcess;
  readonly firstLine: string;
}

/** Start a process, and wait for its first line. It is killed at the end of the test. */
export async function started(t: Pick<TestContext, "after">, command: string, ...args: string[]): Promise<Started> {
  const child = spawn(command, args, { stdio: ["pipe", "pipe", process.env["VERBOSE"] === undefined ? "ignore" : "inherit"] });
  t.after(() => child.kill("SIGKILL"));
  const lines = createInterface({ input: child.stdout });
  const firstLine = await new Promise<string>((resolve, reject) => {
    lines.once("line", resolve);
    child.once("exit", (code) => reject(new Error(`${args.join(" ")} ended with ${code}`)));
  });
  return { process: child, firstLine };
}

export const serverProcess = (t: Pick<TestContext, "after">, ...settings: string[]) => started(t, PYTHON, `${HERE}test/server.py`, ...settings);
export const server = async (t: Pick<TestContext, "after">, ...settings: string[]): Promise<string> => (await serverProcess(t, ...settings)).firstLine;
export const python = (t: Pick<TestContext, "after">, url: string) => started(t, PYTHON, `${HERE}test/python_side.py`, url);
export const typescript = (t: Pick<TestContext, "after">, url: string) => started(t, process.execPath, `${HERE}dist/test/parent.js`, url);

let namespaces = 0;
export const fresh = (): string => `t${process.pid}-${++namespaces}`;

/** Run workflows on a worker of this process, in a namespace of their own, for the time of a function. */
export async function running<T>(
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- workflows of any types
  url: string, workflows: Workflow<any, any>[], use: (client: Client, worker: Worker, namespace: string) => Promise<T>, options: WorkerOptions = {},
): Promise<T> {
  const namespace = fresh();
  await using client = await connect({ servers: url, namespace, logger: QUIET });
  await using worker = new Worker(client, workflows, { graceMs: 2000, ...options });
  await worker.start();
  return await use(client, worker, namespace);
}

/** A promise, and how to resolve it. */
export function signal<T = undefined>(): { readonly promise: Promise<T>; readonly resolve: (value: T) => void } {
  let resolve!: (value: T) => void;
  const promise = new Promise<T>((done) => (resolve = done));
  return { promise, resolve };
}
