/** Spawning children from a running step: identity, dedup, and attaching to what exists. */

import { bytesOf, textOf } from "./broker.js";
import { type Stored } from "./reading.js";
import { DepthExceeded, InvalidOutput, KeyConflict, PayloadTooLarge, TreeTooLarge } from "./errors.js";
import type { Execution } from "./execution.js";
import { Graph } from "./graph.js";
import { checkedKey, childId, inputOf, onceToken, shownKey } from "./identity.js";
import { canonical, NotJson, parse } from "./json.js";
import { startRoot } from "./starting.js";
import { chunkSize, putLarge } from "./values.js";
import type { Declaration } from "./records.js";
import type { Workflow } from "./workflow.js";

/** A workflow, or the name of one. */
export type Spawnable<I, O> = Workflow<I, O> | string;

interface Planned {
  readonly id: string;
  readonly key: string | undefined;
  readonly digest: string;
  readonly subject: string;
  readonly body: Uint8Array;
  readonly headers: Record<string, string>;
}

const AT_ONCE = 500;
const UNDER_WAY = 4;

/** The children of one execution of one step. */
export class Spawner {
  /** The children that are the step's own, and those that another step of the run has spawned. */
  readonly owned = new Set<string>();
  readonly borrowed = new Map<string, string>();

  constructor(private readonly execution: Execution) {}

  has = (child: string): boolean => this.owned.has(child) || this.borrowed.has(child);

  /** Spawn a child for each input, and return their ids. They are taken as they come. */
  async spawn<I>(child: Spawnable<I, unknown>, inputs: Iterable<I> | AsyncIterable<I>, key?: (input: I) => string): Promise<string[]> {
    const { declaration, planner } = await this.resolve(child);
    const ids: string[] = [];
    const underWay: Promise<void>[] = [];
    let batch: Planned[] = [];
    const send = () => {
      this.execution.check();
      this.checkTree();
      const sending = this.publish(declaration.graph.workflow, batch);
      sending.catch(() => undefined);
      underWay.push(sending);
      batch = [];
    };
    try {
      for await (const input of inputs) {
        const planned = await planner(input, key === undefined ? undefined : checkedKey(key(input)));
        ids.push(planned.id);
        if (batch.push(planned) < AT_ONCE) continue;
        send();
        if (underWay.length >= UNDER_WAY) await underWay.shift();
      }
      if (batch.length > 0) send();
    } finally {
      await Promise.all(underWay);
    }
    return ids;
  }

  private async resolve<I>(child: Spawnable<I, unknown>) {
    this.execution.check();
    const { host, task, step } = this.execution;
    const { rules } = host;
    const workflow = typeof child === "string" ? child : child.name;
    const declaration = await rules.registry.declaration(workflow);
    if (task.depth + 1 > host.maxDepth) throw new DepthExceeded(`a child of '${workflow}' would be nested ${task.depth + 1} deep: ${host.maxDepth} at most`);
    const { first } = new Graph(declaration.graph);
    const shared = this.headersOf(declaration);
    const planner = async (input: I, key: string | undefined): Promise<Planned> => {
      if (typeof child !== "string" && child.options.schema !== undefined) await child.checked(input);
      const { text, digest } = inputOf(input, declaration.input, `the input of '${workflow}'`);
      const id = childId(task.run, workflow, key, digest);
      const value = text.length * 3 <= chunkSize(rules.broker.maxPayload) ? null : await putLarge(rules.broker, task.root, text, `the input of '${workflow}'`);
      const headers: Record<string, string> = { ...shared, "Nats-Msg-Id": `${id}.${step.name}` };
      if (key !== undefined) Object.assign(headers, { "Nats-Msg-Id": `${id}.${step.name}.${digest}`, "Jf-Digest": digest, "Jf-Key": shownKey(key) });
      if (value !== null) headers["Jf-Value"] = value;
      const subject = rules.broker.names.childTask(workflow, first, task.root, task.run, id);
      return { id, key, digest, subject, body: bytesOf(value === null ? text : ""), headers };
    };
    return { declaration, planner };
  }

  private headersOf({ version, deadline }: Declaration): Record<string, string> {
    const { task, step } = this.execution;
    const policy = step.options.join ?? {};
    const headers: Record<string, string> = { "Jf-Parent-Step": step.name, "Jf-Version": version, "Jf-Depth": String(task.depth + 1) };
    if (task.metadata !== null) headers["Jf-Metadata"] = task.metadata;
    if (task.trace !== null) headers["traceparent"] = task.trace;
    const now = Date.now() / 1000;
    const nearest = Math.min(task.deadline ?? Infinity, now + (deadline ?? Infinity), now + (policy.seconds ?? Infinity));
    if (nearest < Infinity) headers["Jf-Deadline"] = nearest.toFixed(3);
    if (policy.early === true) headers["Jf-Eager"] = "1";
    return headers;
  }

  /** Count the children in their tree: a first attempt only, for a later one finds most of them spawned. */
  private checkTree(spawned = 0): void {
    const { host, task, clean } = this.execution;
    const { broker } = host.rules;
    if (host.full.has(task.root)) throw new TreeTooLarge(`root run ${task.root} has more than ${host.maxDescendants} descendants`);
    if (spawned === 0 || !clean) return;
    const count = broker.count(broker.names.counter("tree", { root: task.root, run: task.root, step: "_tree" }), spawned);
    const failed = (error: unknown) => broker.log.warn(`jetflow: a tree was not counted: ${String(error)}`);
    count.then((value) => (value ?? 0) > host.maxDescendants && host.full.add(task.root), failed);
  }

  private async publish(workflow: string, batch: readonly Planned[]): Promise<void> {
    const { broker } = this.execution.host.rules;
    this.checkTree(batch.length);
    const receipts = await Promise.all(batch.map((one) => broker.publish(one.subject, one.body, one.headers)));
    const taken = batch.filter((_, at) => receipts[at]!.taken);
    batch.forEach((one, at) => receipts[at]!.taken || this.borrowed.has(one.id) || this.owned.add(one.id));
    if (taken.length > 0) await this.attach(workflow, taken);
  }

  /** Check children that exist: with the same input they are ours, or another step's; else the key is taken. */
  private async attach(workflow: string, taken: readonly Planned[]): Promise<void> {
    const { step, host } = this.execution;
    const { broker } = host.rules;
    const { names } = broker;
    const found = new Map((await broker.many(names.tasks, taken.map((one) => one.subject))).map((one) => [one.subject, one]));
    let conflict: Planned | undefined;
    for (const planned of taken) {
      const stored: Stored | null = found.get(planned.subject) ?? (await broker.store(names.tasks, planned.subject, planned.body, planned.headers));
      const headers = new Map(stored?.headers ?? []);
      const owner = headers.get("Jf-Parent-Step") ?? step.name;
      if (stored !== null && planned.key !== undefined && headers.get("Jf-Digest") !== planned.digest) conflict = planned;
      else if (owner === step.name) this.owned.add(planned.id);
      else this.borrowed.set(planned.id, owner);
    }
    if (conflict === undefined) return;
    const { key, id } = conflict;
    throw new KeyConflict(`key ${JSON.stringify(key)} of '${workflow}' names child run ${id}, which was spawned with another input`);
  }

  /** Spawn a root run under a child's id, that belongs to nobody's join; return its id. */
  async detach<I>(child: Spawnable<I, unknown>, input: I, key: string | undefined): Promise<string> {
    const { declaration, planner } = await this.resolve(child);
    const { task, host } = this.execution;
    const { id, digest } = await planner(input, key);
    const { text } = inputOf(input, {}, "the input");
    await startRoot(host.rules, declaration, { run: id, text, digest, key, depth: task.depth + 1, metadata: task.metadata, trace: task.trace });
    return id;
  }

  /** Compute a value once in the life of this step of this run. */
  async once(name: string, make: () => unknown): Promise<unknown> {
    this.execution.check();
    const { task, host } = this.execution;
    const { broker } = host.rules;
    const subject = broker.names.once(task, onceToken(name));
    const before = await broker.last(broker.names.records, subject);
    if (before !== null) return parse(textOf(before.body));
    const value = await make();
    this.execution.check();
    let text: string;
    try {
      text = canonical(value === undefined ? null : value);
    } catch (error) {
      throw error instanceof NotJson ? new InvalidOutput(`the value of once("${name}"): ${error.message}`) : error;
    }
    if (Buffer.byteLength(text) > chunkSize(broker.maxPayload)) throw new PayloadTooLarge(`the value of once("${name}") is too large for a record`);
    const there = await broker.store(broker.names.records, subject, text);
    return parse(there === null ? text : textOf(there.body));
  }
}
