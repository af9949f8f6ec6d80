/** Spawning children from a running step: identity, dedup, and attaching to what exists. */

import { textOf } from "./broker.js";
import { DepthExceeded, InvalidDeclaration, InvalidOutput, KeyConflict, PayloadTooLarge, TreeTooLarge } from "./errors.js";
import type { Execution } from "./execution.js";
import { Graph } from "./graph.js";
import { canonicalOr, checkedKey, childId, inputOf, onceToken, shownKey } from "./identity.js";
import { parse } from "./json.js";
import type { Declaration } from "./records.js";
import { startRoot } from "./starting.js";
import { chunkSize, putLarge } from "./values.js";
import { subjects } from "./wire.js";
import { Workflow } from "./workflow.js";

/** A workflow, or the name of one. */
export type Spawnable<I, O> = Workflow<I, O> | string;

/** A child's first task. */
interface Planned {
  readonly id: string;
  readonly key: string | undefined;
  readonly digest: string;
  readonly subject: string;
  readonly body: string;
  readonly headers: Record<string, string>;
}

const AT_ONCE = 500;
const UNDER_WAY = 4;

/** Return the name of a workflow, or the name that was given. Throws InvalidDeclaration for what is neither. */
export function nameOf(child: unknown): string {
  if (typeof child === "string") return child;
  if (child instanceof Workflow) return child.name;
  throw new InvalidDeclaration(`a workflow, or the name of one, is expected, and not ${child === null ? "null" : typeof child}`);
}

/** The children of one execution of one step. */
export class Spawner {
  /** The children that are the step's own, and those that another step of the run has spawned. */
  readonly owned = new Set<string>();
  readonly borrowed = new Map<string, string>();

  constructor(private readonly execution: Execution) {}

  has = (child: string): boolean => this.owned.has(child) || this.borrowed.has(child);

  /** Spawn a child for each input, and return their ids. They are taken as they come. */
  async spawn<I>(child: Spawnable<I, unknown>, inputs: Iterable<I> | AsyncIterable<I>, key?: (input: I) => string): Promise<string[]> {
    const plan = await this.planner(child);
    const ids: string[] = [];
    const underWay: Promise<void>[] = [];
    let batch: Planned[] = [];
    const send = () => {
      this.execution.check();
      const sending = this.publish(batch);
      sending.catch(() => undefined);
      underWay.push(sending);
      batch = [];
    };
    try {
      for await (const input of inputs) {
        const planned = await plan(input, key === undefined ? undefined : checkedKey(key(input)));
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

  /** Return the declaration of a child, and what makes an input and an id of it. */
  private async declared<I>(child: Spawnable<I, unknown>) {
    this.execution.check();
    const { worker, task } = this.execution;
    const { maxDepth } = worker.settings;
    const workflow = nameOf(child);
    const declaration = await worker.rules.registry.declaration(workflow);
    if (task.depth + 1 > maxDepth) throw new DepthExceeded(`a child of '${workflow}' would be nested ${task.depth + 1} deep: ${maxDepth} at most`);
    const identify = async (input: I, key: string | undefined) => {
      if (typeof child !== "string") await child.checked(input);
      const { text, digest } = inputOf(input, declaration.input, `the input of '${workflow}'`);
      return { id: childId(task.run, workflow, key, digest), key, digest, text };
    };
    return { workflow, declaration, identify };
  }

  private async planner<I>(child: Spawnable<I, unknown>): Promise<(input: I, key: string | undefined) => Promise<Planned>> {
    const { workflow, declaration, identify } = await this.declared(child);
    const { worker, task, step } = this.execution;
    const { broker } = worker.rules;
    const { first } = new Graph(declaration.graph);
    const shared = this.headersOf(declaration);
    return async (input, given) => {
      const { id, key, digest, text } = await identify(input, given);
      const value = await putLarge(broker, task.root, text, `the input of '${workflow}'`);
      const headers = {
        ...shared, "Nats-Msg-Id": `${id}.${step.name}`, ...(value !== null && { "Jf-Value": value }),
        ...(key !== undefined && { "Nats-Msg-Id": `${id}.${step.name}.${digest}`, "Jf-Digest": digest, "Jf-Key": shownKey(key) }),
      };
      const subject = subjects.task({ workflow, step: first, root: task.root, parent: task.run, run: id, turn: 0 });
      return { id, key, digest, subject, body: value === null ? text : "", headers };
    };
  }

  private headersOf({ version, deadline }: Declaration): Record<string, string> {
    const { task, step, graph } = this.execution;
    const { seconds, early } = step.options.join ?? {};
    const now = Date.now() / 1000;
    const held = [task.headers["Jf-Held"], task.headers["Jf-Places"]].filter(Boolean).join(" ");
    const nearest = Math.min(task.deadline ?? Infinity, now + (deadline ?? Infinity), now + (seconds ?? Infinity));
    return {
      "Jf-Parent-Step": step.name, "Jf-Version": version, "Jf-Depth": String(task.depth + 1),
      ...(task.metadata !== null && { "Jf-Metadata": task.metadata }), ...(task.trace !== null && { traceparent: task.trace }),
      ...(task.headers["Jf-Level"] !== undefined && { "Jf-Level": task.headers["Jf-Level"] }),
      ...(held !== "" && { "Jf-Held": held }),
      ...(nearest < Infinity && { "Jf-Deadline": nearest.toFixed(3) }), ...(early === true && { "Jf-Eager": "1" }),
      ...(graph.hasBeside(step.name) && { "Jf-Shared": "1" }),
    };
  }

  /** Count children in their tree: in a first attempt only, for a later one finds most of them spawned. */
  private countInTree(spawned: number): void {
    const { worker, task, clean } = this.execution;
    const { broker } = worker.rules;
    const { maxDescendants } = worker.settings;
    if (worker.full.has(task.root)) throw new TreeTooLarge(`root run ${task.root} has more than ${maxDescendants} descendants`);
    if (!clean) return;
    const count = broker.count(subjects.counter("tree", { root: task.root, run: task.root, step: "_tree" }), spawned);
    broker.inBackground("a tree was not counted", count.then((value) => (value ?? 0) > maxDescendants && worker.full.add(task.root)));
  }

  private async publish(batch: readonly Planned[]): Promise<void> {
    const { broker } = this.execution.worker.rules;
    this.countInTree(batch.length);
    const receipts = await Promise.all(batch.map((one) => broker.publish(one.subject, one.body, one.headers)));
    const taken = batch.filter((_, at) => receipts[at]!.taken);
    for (const one of batch) if (!taken.includes(one) && !this.borrowed.has(one.id)) this.owned.add(one.id);
    if (taken.length > 0) await this.attach(taken);
  }

  /** Check children that exist: with the same input they are ours, or another step's; else the key is taken. */
  private async attach(taken: readonly Planned[]): Promise<void> {
    const { step, worker } = this.execution;
    const { broker } = worker.rules;
    const found = new Map((await broker.many(taken.map((one) => one.subject))).map((one) => [one.subject, one]));
    let conflict: Planned | undefined;
    for (const planned of taken) {
      const stored = found.get(planned.subject) ?? (await broker.store(planned.subject, planned.body, planned.headers));
      const owner = stored?.headers.get("Jf-Parent-Step") ?? step.name;
      if (stored !== null && planned.key !== undefined && stored.headers.get("Jf-Digest") !== planned.digest) conflict = planned;
      else if (owner === step.name) this.owned.add(planned.id);
      else this.borrowed.set(planned.id, owner);
    }
    if (conflict === undefined) return;
    const { key, id, subject } = conflict;
    throw new KeyConflict(`key ${JSON.stringify(key)} of '${subject.split(".")[1]}' names child run ${id}, which was spawned with another input`);
  }

  /** Spawn a root run under a child's id, that belongs to nobody's join; return its id. */
  async detach<I>(child: Spawnable<I, unknown>, input: I, key: string | undefined): Promise<string> {
    const { declaration, identify } = await this.declared(child);
    const { task, worker } = this.execution;
    const { id, ...identity } = await identify(input, key === undefined ? undefined : checkedKey(key));
    await startRoot(worker.rules, declaration, { run: id, ...identity, depth: task.depth + 1, metadata: task.metadata, trace: task.trace });
    return id;
  }

  /** Compute a value once in the life of this step of this run. */
  async once(name: string, make: () => unknown): Promise<unknown> {
    this.execution.check();
    const { task, worker } = this.execution;
    const { broker } = worker.rules;
    const subject = subjects.once(task, onceToken(name));
    const before = await broker.last(subject);
    if (before !== null) return parse(textOf(before.body));
    const value = await make();
    this.execution.check();
    const text = canonicalOr(InvalidOutput, `the value of once("${name}")`, value);
    if (Buffer.byteLength(text) > chunkSize(broker.maxPayload)) throw new PayloadTooLarge(`the value of once("${name}") is too large for a record`);
    const there = await broker.store(subject, text);
    return parse(there === null ? text : textOf(there.body));
  }
}
