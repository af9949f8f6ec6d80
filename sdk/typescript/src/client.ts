/** Connecting, triggering runs and following them, from outside any step. */

import { readFileSync } from "node:fs";

import { credsAuthenticator, nkeyAuthenticator } from "@nats-io/nats-core";
import { connect as dial, type NodeConnectionOptions } from "@nats-io/transport-node";

import { Broker, bytesOf } from "./broker.js";
import { sleep, type Logger } from "./reading.js";
import { cancelRun, firstTask } from "./cancelling.js";
import { deleteTree } from "./deleting.js";
import { InvalidConnection, ResultTimeout, RunFailed, UnknownRun } from "./errors.js";
import { inputOf, isName, isRunId, newRunId, rootId } from "./identity.js";
import { decodeOutcome, failuresOf, type Failure, type Outcome, type Status } from "./records.js";
import { Registry } from "./registry.js";
import { Rules } from "./rules.js";
import { nameOf } from "./spawning.js";
import { metadataText, startRoot } from "./starting.js";
import { ensureStreams } from "./topology.js";
import { withOutput } from "./values.js";
import { lastToken, Namespace, subjects } from "./wire.js";
import type { Workflow } from "./workflow.js";

/** How to connect: what NATS takes, and the namespace. Without `servers` it is `NATS_URL`, then this machine. */
export interface ConnectOptions extends Omit<NodeConnectionOptions, "servers"> {
  readonly servers?: string | readonly string[];
  readonly namespace?: string;
  /** A JetStream domain. */
  readonly domain?: string;
  /** The path of a credentials file. */
  readonly creds?: string;
  readonly nkeySeed?: string;
  readonly logger?: Logger;
}

const OLDEST = [2, 14, 3];
const LOOK_EVERY = 2000;

/** Take user, password and TLS from a URL, which the library does not read there. */
function addressOf(servers: string | readonly string[]): { servers: string[]; found: Partial<NodeConnectionOptions> } {
  const found: Partial<NodeConnectionOptions> = {};
  const plain = [servers].flat().flatMap((one) => one.split(",")).map((one) => {
    const text = one.includes("://") ? one : `nats://${one}`;
    if (!URL.canParse(text)) throw new InvalidConnection("the address of a server is a URL, such as nats://127.0.0.1:4222");
    const { protocol, username, password, host } = new URL(text);
    if (username && password) Object.assign(found, { user: decodeURIComponent(username), pass: decodeURIComponent(password) });
    else if (username) found.token = decodeURIComponent(username);
    if (protocol === "tls:") found.tls = {};
    return host;
  });
  return { servers: plain, found };
}

/**
 * Connect to a namespace. Throws InvalidConnection, and what NATS throws where nobody answers, or refuses who connects.
 *
 * @example
 * ```ts
 * const jf = await connect({ namespace: "default" });
 * const greet = workflow("greet", (name: string) => `hello ${name}`);
 * const worker = new Worker(jf, [greet]);
 * await worker.start();
 * const run = await jf.trigger(greet, "you", { key: "once a day" });
 * console.log(await run.result({ timeoutMs: 10_000 }));
 * await worker.stop();
 * await jf.close();
 * ```
 */
export async function connect(options: ConnectOptions = {}): Promise<Client> {
  const { servers = process.env["NATS_URL"] || "nats://127.0.0.1:4222", namespace = "default", domain, creds, nkeySeed, logger = console, ...nats } = options;
  if (!isName(namespace)) throw new InvalidConnection(`a namespace cannot be called '${namespace}': letters, digits, _ and -, 64 at most`);
  const address = addressOf(servers);
  const nc = await dial({
    maxReconnectAttempts: -1, reconnectTimeWait: 250, noAsyncTraces: true, ...address.found, servers: address.servers,
    ...(creds !== undefined && { authenticator: credsAuthenticator(readFileSync(creds)) }),
    ...(nkeySeed !== undefined && { authenticator: nkeyAuthenticator(bytesOf(nkeySeed)) }), ...nats,
  });
  const version = (nc.info?.version ?? "0").split(/[.-]/).map(Number);
  const age = OLDEST.map((part, at) => (version[at] ?? 0) - part).find((difference) => difference !== 0) ?? 0;
  if (age < 0) {
    await nc.close();
    throw new InvalidConnection(`the server is ${nc.info?.version}: ${OLDEST.join(".")} or newer is needed`);
  }
  const broker = new Broker(nc, new Namespace(namespace), logger, domain, nats.inboxPrefix);
  try {
    await ensureStreams(broker);
  } catch (error) {
    await broker.close();
    throw error;
  }
  return new Client(new Rules(broker, new Registry(broker)));
}

/** How a run stands. `children` counts those of the run itself. */
export interface Description {
  readonly id: string;
  readonly workflow: string;
  readonly status: "open" | Status;
  readonly key: string | null;
  readonly errors: readonly Failure[];
  readonly children: Readonly<Record<"spawned" | "open" | "succeeded" | "failed" | "cancelled" | "timed_out", number>>;
}

/** A root run, or any run by its id. */
export class Run<O = unknown> {
  constructor(private readonly rules: Rules, readonly id: string, private readonly isKnown = false) {}

  /**
   * Wait for the end, and return the output. Throws RunFailed, UnknownRun, ResultTimeout after `timeoutMs`, and what
   * `signal` is aborted with.
   */
  async result({ timeoutMs, signal }: { readonly timeoutMs?: number; readonly signal?: AbortSignal } = {}): Promise<O> {
    const { root, ended } = await this.ended(timeoutMs === undefined ? Infinity : performance.now() + timeoutMs, signal);
    const { status, output } = await withOutput(this.rules.broker, root, ended);
    if (status !== "succeeded") throw new RunFailed(this.id, status, failuresOf(ended));
    return output.value as O;
  }

  private async ended(until: number, signal?: AbortSignal): Promise<{ root: string; ended: Outcome }> {
    const { broker } = this.rules;
    let wake = (): void => undefined;
    const stop = () => wake();
    const forget = broker.listen(`live.${subjects.outcomeById(this.id)}`, stop);
    signal?.addEventListener("abort", stop);
    try {
      for (let looks = 0; ; looks++) {
        const moved = new Promise<void>((done) => (wake = done));
        const stored = await broker.last(subjects.outcomeById(this.id));
        if (stored !== null) return { root: stored.subject.split(".")[1]!, ended: decodeOutcome(stored.body) };
        signal?.throwIfAborted();
        if ((looks > 0 || !this.isKnown) && (await firstTask(broker, this.id)) === undefined) throw new UnknownRun(`no run ${this.id} is stored`);
        const left = until - performance.now();
        if (left <= 0) throw new ResultTimeout(`run ${this.id} has not ended in time; it goes on`);
        await Promise.race([moved, sleep(Math.min(left, LOOK_EVERY))]);
      }
    } finally {
      signal?.removeEventListener("abort", stop);
      forget();
    }
  }

  /** Cancel the run, and its descendants unless `tree` is false. Returns false if it had ended already. */
  cancel({ tree = true }: { readonly tree?: boolean } = {}): Promise<boolean> {
    return cancelRun(this.rules, this.id, tree);
  }

  /** Delete all that is stored of a root run and its descendants, running or not. Throws UnknownRun. */
  delete(): Promise<void> {
    return deleteTree(this.rules.broker, this.id);
  }

  /** Tell how the run stands, with totals of its children. Throws UnknownRun. */
  async describe(): Promise<Description> {
    const { broker } = this.rules;
    const [stored, first] = await Promise.all([broker.last(subjects.outcomeById(this.id)), firstTask(broker, this.id)]);
    const root = first?.task.root ?? stored?.subject.split(".")[1];
    if (root === undefined) throw new UnknownRun(`no run ${this.id} is stored`);
    const marked = (status: string) => broker.total(`mark.${root}.${this.id}.*.${status}.*.*`);
    const [tasks, outcomes, failed, cancelled, timed_out] = await Promise.all([
      broker.subjects(subjects.children("task", root, this.id)), broker.subjects(`run.${root}.${this.id}.*.*`),
      marked("failed"), marked("cancelled"), marked("timed_out"),
    ]);
    const ids = new Set(outcomes.map(lastToken));
    const succeeded = Math.max(0, ids.size - failed - cancelled - timed_out);
    const spawned = new Set([...ids, ...tasks.map((one) => one.split(".")[5]!)]).size;
    const ended = stored === null ? undefined : decodeOutcome(stored.body);
    return {
      id: this.id, workflow: first?.task.workflow ?? ended?.workflow ?? "", status: ended?.status ?? "open", key: first?.task.key ?? ended?.key ?? null,
      errors: ended === undefined ? [] : failuresOf(ended), children: { spawned, open: spawned - ids.size, succeeded, failed, cancelled, timed_out },
    };
  }
}

/** What can be said of a trigger. The same `key` of the same workflow is the same run. */
export interface TriggerOptions {
  readonly key?: string;
  /** JSON that the run and all its descendants see. */
  readonly metadata?: Readonly<Record<string, unknown>>;
  /** A W3C trace context. */
  readonly traceparent?: string;
}

/** Triggers runs and follows them. Made by `connect`. */
export class Client implements AsyncDisposable {
  /** @internal */
  constructor(readonly rules: Rules) {}

  /**
   * Start a root run of a workflow, by what declares it or by its name.
   * Throws InvalidInput, UnknownWorkflow, KeyConflict, RecentlyDeleted, PayloadTooLarge.
   */
  trigger<I, O>(workflow: Workflow<I, O>, input: I, options?: TriggerOptions): Promise<Run<O>>;
  trigger<O = unknown>(workflow: string, input?: unknown, options?: TriggerOptions): Promise<Run<O>>;
  async trigger(workflow: Workflow | string, input?: unknown, options: TriggerOptions = {}): Promise<Run> {
    const { key, metadata, traceparent } = options;
    const name = nameOf(workflow);
    const run = key === undefined ? newRunId() : rootId(name, key);
    const declaration = await this.rules.registry.declaration(name);
    if (typeof workflow !== "string") await workflow.checked(input);
    const { text, digest } = inputOf(input, declaration.input, `the input of '${name}'`);
    await startRoot(this.rules, declaration, { run, text, digest, key, depth: 0, metadata: metadataText(metadata), trace: traceparent ?? null });
    return new Run(this.rules, run, true);
  }

  /** Return a run by its id. Throws UnknownRun for what is none. */
  run<O = unknown>(id: string): Run<O> {
    if (!isRunId(id)) throw new UnknownRun(`'${id}' is the id of no run`);
    return new Run<O>(this.rules, id);
  }

  /** Send what is under way, and close the connection. */
  close(): Promise<void> {
    return this.rules.broker.close();
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

