/** The vectors that clients and workers in all languages are held to. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { decide, Graph, type StoredGraph } from "../src/graph.js";
import { childId, digestOf, idSum, onceToken, rootId, shownKey } from "../src/identity.js";
import { canonical, read, type Schema } from "../src/json.js";
import { missing, verdict, type Policy } from "../src/policies.js";
import { decode, decodeAttempt, decodeOutcome, type Status } from "../src/records.js";
import { chunksOf, chunkSize } from "../src/values.js";
import { END, Namespace, readTask, START, subjects, taskHeaders, type Task } from "../src/wire.js";

const CONFORMANCE = new URL("../../../../conformance/", import.meta.url);
// eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- what a file holds
const load = <T>(name: string): T => JSON.parse(readFileSync(new URL(name, CONFORMANCE), "utf8")) as T;

interface Vectors {
  canonical: { text: string; schema?: Schema; canonical: string; digest: string }[];
  refused: string[];
  root_ids: { workflow: string; key: string; id: string }[];
  child_ids: { parent: string; workflow: string; key?: string; input?: string; id: string }[];
  refused_keys: string[];
  id_sums: { ids: string[]; sum: string }[];
  shown_keys: { key: string; shown: string }[];
  once_tokens: { name: string; token: string }[];
  value_refs: { bytes: { repeat: string; times: number }; max_payload: number; ref: string; chunks: number[] }[];
}
const vectors = load<Vectors>("vectors.json");

test("canonical JSON and its digest", () => {
  for (const one of vectors.canonical) {
    const found = canonical(read(one.text), one.schema ?? {});
    assert.equal(found, one.canonical, one.text);
    assert.equal(digestOf(found), one.digest, one.text);
  }
});

test("texts that are refused", () => {
  for (const text of vectors.refused) assert.throws(() => read(text), text);
});

test("ids of root runs and children", () => {
  for (const { workflow, key, id } of vectors.root_ids) assert.equal(rootId(workflow, key), id);
  for (const { parent, workflow, key, input = "null", id } of vectors.child_ids) {
    assert.equal(childId(parent, workflow, key, digestOf(canonical(read(input)))), id);
  }
  for (const key of vectors.refused_keys) assert.throws(() => rootId("w", key), { type: "InvalidInput" });
});

test("sums, shown keys, tokens and references", () => {
  for (const { ids, sum } of vectors.id_sums) assert.equal(idSum(ids), sum);
  for (const { key, shown } of vectors.shown_keys) assert.equal(JSON.parse(shownKey(key)), shown);
  for (const { name, token } of vectors.once_tokens) assert.equal(onceToken(name), token);
  for (const { bytes, max_payload, ref, chunks } of vectors.value_refs) {
    const found = chunksOf(Buffer.from(bytes.repeat.repeat(bytes.times)), chunkSize(max_payload));
    assert.equal(found.reference, ref);
    assert.deepEqual(found.chunks.map((one) => one.length), chunks);
  }
});

type Fields = Record<"workflow" | "step" | "root" | "parent" | "parent_step" | "run" | "turn" | "status" | "version" | "name" | "digest" | "chunk" | "delivery", string>;

test("subjects of all kinds of messages", () => {
  const seen = new Set<string>();
  for (const { namespace, kind, fields, subject } of load<{ namespace: string; kind: string; fields: Fields; subject: string }[]>("vectors/subjects.json")) {
    const names = subjects;
    const task = { ...fields, parentStep: fields.parent_step, turn: Number(fields.turn) } as unknown as Task;
    const made: Record<string, () => string> = {
      task: () => names.task(task), cancel: () => names.cancel(fields.root, fields.run), run: () => names.outcome(task),
      step: () => names.step(task), join: () => names.join(task, fields.turn), mark: () => names.mark(task, fields.status),
      try: () => names.attempt(task, fields.delivery), once: () => names.once(task, fields.name),
      value: () => names.value(fields.root, fields.digest, Number(fields.chunk)), timer: () => names.timer(task), due: () => names.due(task),
      "live.run": () => names.live(task), count: () => names.counter("join", task), gate: () => names.counter("gate", task),
      tree: () => names.counter("tree", task), workflow: () => names.workflow(fields.workflow), version: () => names.workflow(fields.workflow, fields.version),
    };
    if (made[kind] === undefined) continue; // what a parent does not send
    const { absolute, relative } = new Namespace(namespace);
    assert.equal(absolute(made[kind]()), subject);
    assert.equal(relative(subject), made[kind]());
    seen.add(kind);
  }
  assert.ok(seen.size >= 15, [...seen].join(" "));
});

interface TaskVector {
  subject: string;
  headers: Record<string, string>;
  body: string;
  task: Record<string, unknown>;
  written: boolean;
}

test("tasks, both ways", () => {
  for (const { subject, headers, body, task, written } of load<TaskVector[]>("vectors/task_headers.json")) {
    const { absolute, relative } = new Namespace("default");
    const found = readTask(relative(subject), Object.entries(headers), Buffer.from(body))!;
    const { headers: _, parentStep, notBefore, body: input, ...rest } = found;
    assert.deepEqual({ ...rest, parent_step: parentStep, not_before: notBefore, input: Buffer.from(input).toString() }, task);
    if (written) assert.deepEqual(taskHeaders(found, found.step, found.turn, found.tried), headers);
    assert.equal(absolute(subjects.task(found)), subject);
  }
  for (const { subject, headers, why } of load<{ subject: string; headers: Record<string, string>; why: string }[]>("vectors/refused_subjects.json")) {
    assert.equal(readTask(new Namespace("default").relative(subject), Object.entries(headers), Buffer.from("1")), undefined, why);
  }
});

test("message ids", () => {
  for (const { run, step, turn, id } of load<{ run: string; step?: string; turn?: number; id: string }[]>("vectors/message_ids.json")) {
    if (step !== undefined && turn !== undefined) assert.equal(taskHeaders({ run, headers: {} } as unknown as Task, step, turn)["Nats-Msg-Id"], id);
  }
});

interface GraphVector {
  graph: StoredGraph;
  first: string;
  behind: Record<string, string[]>;
  lasts: string[];
  gates: string[];
  beside: Record<string, string[]>;
}

test("graphs", () => {
  for (const one of load<GraphVector[]>("vectors/graphs.json")) {
    const graph = new Graph(one.graph);
    const names = graph.nodes.map((node) => node.name);
    assert.equal(graph.first, one.first);
    assert.deepEqual(graph.lasts, one.lasts);
    for (const [step, behind] of Object.entries(one.behind)) assert.deepEqual(graph.behind(step), behind);
    for (const [step, beside] of Object.entries(one.beside)) assert.deepEqual(graph.beside(step), beside);
    const gates = [...names.filter((name) => graph.after(name).length > 1), ...(graph.lasts.length > 1 ? [END] : [])];
    assert.deepEqual(gates, one.gates);
    assert.ok([START, "_admit"].includes(graph.first) || names.includes(graph.first));
  }
});

test("what becomes of a step, and of a join", () => {
  for (const { before, conditional, verdict: wanted } of load<{ before: Status[]; conditional?: boolean; verdict: string }[]>("vectors/decide.json")) assert.equal(decide(before, conditional), wanted);
  for (const one of load<{ policy: Policy; total: number; succeeded: number; ended: number; verdict: string; missing: number }[]>("vectors/policies.json")) {
    assert.equal(verdict(one.policy, one.total, one.succeeded, one.ended), one.verdict, JSON.stringify(one));
    assert.equal(missing(one.policy, one.total, one.succeeded, one.ended), one.missing, JSON.stringify(one));
  }
});

test("records", () => {
  for (const { kind, json, decoded } of load<{ kind: "outcome" | "attempt" | "join" | "mark" | "graph" | "declaration"; json: string; decoded: Record<string, unknown> | null }[]>("vectors/records.json")) {
    const found = decode(kind, json);
    if (decoded === null) assert.equal(found, undefined, json);
    else {
      const plain = JSON.parse(canonical(found)) as Record<string, unknown>;
      for (const [name, value] of Object.entries(decoded)) {
        const filled = plain[name] === null && value !== null ? undefined : plain[name];
        if (name === "graph") { // what is of level full is not told there
          const of = filled as Record<string, unknown>;
          delete of.gated;
          delete of.levels;
          delete of.level;
          delete of.limited;
        }
        if (name === "policy" || name === "steps") continue; // their defaults are filled in where they are used
        assert.deepEqual(filled, value, `${name} of ${json}`);
      }
    }
  }
  assert.equal(decodeOutcome(Buffer.from("{}")).error?.type, "MalformedOutcome");
  assert.equal(decodeAttempt(Buffer.from("no")).returned, false);
});
