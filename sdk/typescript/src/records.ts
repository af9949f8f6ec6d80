/** Records as they are stored: their types, and readers that give defaults and ignore what they do not know. */

import { canonical, NotJson, Raw, read } from "./json.js";
import type { Policy } from "./policies.js";

export type Status = "succeeded" | "failed" | "cancelled" | "timed_out" | "skipped";

/** Why a step, a child or a run ended so. */
export interface Failure {
  readonly type: string;
  readonly message: string;
  readonly step: string | null;
  readonly traceback: string;
  readonly place: string;
}

/** How a run, or a step, ended. Times are seconds since the epoch. */
export interface Outcome {
  readonly status: Status;
  readonly output: Raw;
  readonly value: string | null;
  readonly error: Failure | null;
  readonly errors: readonly Failure[];
  readonly workflow: string;
  readonly step: string;
  readonly key: string | null;
  readonly attempt: number;
  readonly started: number;
  readonly ended: number;
  readonly worker: string;
}

/** Which children a sealed or parked step needs before it goes on. */
export interface JoinRecord {
  readonly kind: "sealed" | "parked";
  readonly turn: number;
  readonly task: string;
  readonly needed: number;
  readonly total: number;
  readonly policy: Policy;
  readonly members: string | null;
  readonly id_sum: string;
  readonly borrowed: readonly (readonly [run: string, step: string])[];
  readonly excused: readonly string[];
  readonly whole: string | null;
  readonly until: number | null;
  readonly tried: number;
  readonly status: Status;
  readonly error: Failure | null;
  readonly output: Raw;
  readonly value: string | null;
  readonly attempt: number;
  readonly started: number;
  readonly ended: number;
  readonly worker: string;
}

/** One delivery that ended without an outcome, or has begun its body. */
export interface Attempt {
  readonly attempt: number;
  readonly worker: string;
  readonly started: number;
  readonly ended: number;
  readonly error: Failure | null;
  readonly returned: boolean;
  readonly again: number | null;
}

export const NULL = new Raw("null");

type Check = (value: unknown) => boolean;
type Field = readonly [check: Check, absent?: unknown];

const text: Check = (value) => typeof value === "string";
const number: Check = (value) => typeof value === "number";
const whole: Check = (value) => Number.isSafeInteger(value);
const flag: Check = (value) => typeof value === "boolean";
const orNull = (check: Check): Check => (value) => value === null || check(value);
const list = (check: Check): Check => (value) => Array.isArray(value) && value.every(check);
const record = (fields: Readonly<Record<string, Field>>): Check => (value) => isRecord(value) && lacks(value, fields) === undefined;
const oneOf = (...of: string[]): Check => (value) => of.includes(value as string);
const raw: Check = (value) => value instanceof Raw;

const isRecord = (value: unknown): value is Record<string, unknown> =>
  value !== null && typeof value === "object" && !Array.isArray(value);

function lacks(value: Record<string, unknown>, fields: Readonly<Record<string, Field>>): string | undefined {
  return Object.keys(fields).find((name) => {
    const [check, absent] = fields[name]!;
    return name in value ? !check(value[name]) : absent === undefined;
  });
}

const FAILURE = { type: [text], message: [text], step: [orNull(text), null], traceback: [text, ""], place: [text, ""] } satisfies Record<string, Field>;
const STATUS = oneOf("succeeded", "failed", "cancelled", "timed_out", "skipped");
const ENDED = {
  output: [raw, NULL], value: [orNull(text), null], error: [orNull(record(FAILURE)), null], attempt: [whole, 1],
  started: [number, 0], ended: [number, 0], worker: [text, ""],
} satisfies Record<string, Field>;
const POLICY = {
  quorum: [orNull(whole), null], tolerated: [whole, 0], fraction: [orNull(number), null], anything: [flag, false],
  early: [flag, false], cancel_rest: [flag, false], seconds: [orNull(number), null],
} satisfies Record<string, Field>;
const NODE = { name: [text], after: [list(text), []] } satisfies Record<string, Field>;
const GRAPH = { workflow: [text], nodes: [list(record(NODE))], on_failure: [orNull(text), null], fail_fast: [flag, false] } satisfies Record<string, Field>;
const PACKED = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
const PAIR: Check = (value) => list(text)(value) && (value as unknown[]).length === 2;

const KINDS = {
  outcome: {
    ...ENDED, status: [STATUS], errors: [list(record(FAILURE)), []], workflow: [text, ""], step: [text, ""], key: [orNull(text), null],
  },
  join: {
    ...ENDED, kind: [oneOf("sealed", "parked")], turn: [whole], task: [text], needed: [whole], total: [whole, 0],
    policy: [record(POLICY), {}], members: [orNull((value) => text(value) && PACKED.test(value as string)), null],
    id_sum: [text, ""], borrowed: [list(PAIR), []], excused: [list(text), []], whole: [orNull(text), null],
    until: [orNull(number), null], tried: [whole, 0], status: [STATUS, "succeeded"],
  },
  attempt: {
    attempt: [whole, 1], worker: [text, ""], started: [number, 0], ended: [number, 0], error: [orNull(record(FAILURE)), null],
    returned: [flag, false], again: [orNull(number), null],
  },
  mark: { type: [text, ""], message: [text, ""], step: [orNull(text), null], place: [text, ""], key: [orNull(text), null] },
  graph: GRAPH,
  declaration: {
    graph: [record(GRAPH)], version: [text], deadline: [orNull(number), null], input: [isRecord, {}], output: [isRecord, {}],
    steps: [isRecord, {}],
  },
} satisfies Record<string, Record<string, Field>>;

/** Decode a record with its defaults; undefined for what cannot be read. */
export function decode(kind: keyof typeof KINDS, body: Uint8Array | string): Record<string, unknown> | undefined {
  let value: unknown;
  try {
    value = read(typeof body === "string" ? body : new TextDecoder("utf-8", { fatal: true }).decode(body), "output");
  } catch (error) {
    if (error instanceof NotJson || error instanceof TypeError) return undefined;
    throw error;
  }
  if (isRecord(value) && kind === "declaration" && value["output"] instanceof Raw) value["output"] = value["output"].value;
  const fields: Readonly<Record<string, Field>> = KINDS[kind];
  if (!isRecord(value) || lacks(value, fields) !== undefined) return undefined;
  const given = value;
  const filled = (from: Record<string, unknown>, by: Readonly<Record<string, Field>>) =>
    Object.fromEntries(Object.keys(by).map((name) => [name, name in from ? from[name] : by[name]![1]]));
  const made = filled(given, fields);
  if (kind === "graph") made["nodes"] = (made["nodes"] as Record<string, unknown>[]).map((node) => filled(node, NODE));
  if (kind === "declaration") made["graph"] = decode("graph", canonical(made["graph"]));
  if (isRecord(made["error"])) made["error"] = filled(made["error"], FAILURE);
  if (Array.isArray(made["errors"])) made["errors"] = (made["errors"] as Record<string, unknown>[]).map((one) => filled(one, FAILURE));
  return made;
}

export const decodeJoin = (body: Uint8Array) => decode("join", body) as JoinRecord | undefined;

/** Decode an outcome; one that cannot be read is a failure. */
export function decodeOutcome(body: Uint8Array): Outcome {
  return (decode("outcome", body) as Outcome | undefined) ?? outcome("failed", { error: failure("MalformedOutcome", "the outcome that is stored cannot be read") });
}

/** Decode an attempt; one that cannot be read counts. */
export const decodeAttempt = (body: Uint8Array): Attempt =>
  (decode("attempt", body) as Attempt | undefined) ?? { attempt: 1, worker: "", started: 0, ended: 0, error: null, returned: false, again: null };

export const failure = (type: string, message: string, step: string | null = null): Failure => ({ type, message, step, traceback: "", place: "" });

/** Make an outcome. */
export const outcome = (status: Status, of: Partial<Outcome> = {}): Outcome => ({
  status, output: NULL, value: null, error: null, errors: [], workflow: "", step: "", key: null, attempt: 1, started: 0, ended: 0, worker: "", ...of,
});

const OMITTED: Readonly<Record<string, unknown>> = { turn: undefined, needed: undefined, attempt: 1 };

/** Return a record as JSON, without the fields that hold their defaults; `status` stands first. */
export function encode(given: object): string {
  let text = "";
  for (const [name, value] of Object.entries(given) as [string, unknown][]) {
    const absent = name in OMITTED ? OMITTED[name] : 0;
    const idle = value === null || value === undefined || value === false || value === "" || value === absent || value === NULL;
    const empty = typeof value === "object" && value !== null && !(value instanceof Raw) && Object.keys(value).length === 0;
    if ((idle || empty) && !(name === "members" && value === "")) continue;
    text += `${text && ","}"${name}":${canonical(value)}`;
  }
  return `{${text}}`;
}

/** Tell why a run or a step ended: all of its errors. */
export const failuresOf = (ended: Outcome): readonly Failure[] =>
  ended.errors.length > 0 ? ended.errors : ended.error === null ? [] : [ended.error];
