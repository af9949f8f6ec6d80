/**
 * Records as they are stored. A table says what each field must be and what it is where it is left out; types and reader
 * follow from it. Unknown fields are ignored.
 */

import type { StoredGraph } from "./graph.js";
import { canonical, NotJson, Raw, read, type Schema } from "./json.js";
import type { Policy } from "./policies.js";

export type Status = "succeeded" | "failed" | "cancelled" | "timed_out" | "skipped";

/** Takes a value for what it must be, with its defaults. Throws Unfit. */
type Read<T> = (value: unknown) => T;
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- fields of any types
type Fields = Readonly<Record<string, readonly [read: Read<any>, absent?: unknown]>>;
type Of<F extends Fields> = { readonly [K in keyof F]: ReturnType<F[K][0]> };

class Unfit extends Error {}

const is = <T>(check: (value: unknown) => boolean): Read<T> => (value) => {
  if (!check(value)) throw new Unfit();
  return value as T;
};
const text = is<string>((value) => typeof value === "string");
const number = is<number>((value) => typeof value === "number");
const whole = is<number>((value) => Number.isSafeInteger(value));
const flag = is<boolean>((value) => typeof value === "boolean");
const raw = is<Raw>((value) => value instanceof Raw);
const object = is<Schema>((value) => value !== null && typeof value === "object" && !Array.isArray(value));
const array = is<unknown[]>(Array.isArray);
const oneOf = <T extends string>(...of: T[]) => is<T>((value) => of.includes(value as T));
const orNull = <T>(read: Read<T>): Read<T | null> => (value) => (value === null ? null : read(value));
const list = <T>(read: Read<T>): Read<readonly T[]> => (value) => array(value).map(read);
const record = <F extends Fields>(fields: F): Read<Of<F>> => (value) => {
  const given = object(value);
  const all = Object.entries(fields).map(([name, [read, absent]]) => {
    if (!(name in given) && absent === undefined) throw new Unfit();
    return [name, name in given ? read(given[name]) : absent] as const;
  });
  return Object.fromEntries(all) as Of<F>;
};

export const NULL = new Raw("null");
const PACKED = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
const status = oneOf<Status>("succeeded", "failed", "cancelled", "timed_out", "skipped");
const FAILURE = { type: [text], message: [text], step: [orNull(text), null], traceback: [text, ""], place: [text, ""] } as const;
const failed = orNull(record(FAILURE));
const ENDED = {
  output: [raw, NULL], value: [orNull(text), null], error: [failed, null], attempt: [whole, 1], started: [number, 0], ended: [number, 0],
  worker: [text, ""],
} as const;
const POLICY = {
  quorum: [orNull(whole), null], tolerated: [whole, 0], fraction: [orNull(number), null], anything: [flag, false], early: [flag, false],
  cancel_rest: [flag, false], seconds: [orNull(number), null],
} as const;
const NODE = { name: [text], after: [list(text), []] } as const;
const GRAPH = { workflow: [text], nodes: [list(record(NODE))], on_failure: [orNull(text), null], on_success: [orNull(text), null], fail_fast: [flag, false], conditional: [list(text), []], gated: [flag, false], levels: [list(text), []], level: [orNull(text), null], limited: [list(text), []] } as const;

const KINDS = {
  outcome: { status: [status], ...ENDED, errors: [list(record(FAILURE)), []], workflow: [text, ""], step: [text, ""], key: [orNull(text), null] },
  join: {
    kind: [oneOf("sealed", "parked")], turn: [whole], task: [text], needed: [whole], total: [whole, 0],
    policy: [record(POLICY) as Read<Policy>, {}], members: [orNull(is<string>((value) => PACKED.test(text(value)))), null], id_sum: [text, ""],
    borrowed: [list(is<readonly [run: string, step: string]>((value) => list(text)(value).length === 2)), []],
    excused: [list(text), []], whole: [orNull(text), null], until: [orNull(number), null], tried: [whole, 0], status: [status, "succeeded"], ...ENDED,
  },
  attempt: {
    attempt: [whole, 1], worker: [text, ""], started: [number, 0], ended: [number, 0], error: [failed, null], returned: [flag, false],
    again: [orNull(number), null],
  },
  needed: { places: [list(list(text)), []] },
  mark: { type: [text, ""], message: [text, ""], step: [orNull(text), null], place: [text, ""], key: [orNull(text), null] },
  graph: GRAPH,
  declaration: {
    graph: [record(GRAPH)], version: [text], deadline: [orNull(number), null], input: [object, {}], output: [object, {}], steps: [object, {}],
  },
} as const;

/** Why a step, a child or a run ended so. */
export type Failure = Of<typeof FAILURE>;
/** How a run, or a step, ended. Times are seconds since the epoch. */
export type Outcome = Of<typeof KINDS.outcome>;
/** Which children a sealed or parked step needs before it goes on. */
export type JoinRecord = Of<typeof KINDS.join>;
/** One delivery that ended without an outcome, or has begun its body. */
export type Attempt = Of<typeof KINDS.attempt>;
/** What is known of a workflow by its name. */
export type Declaration = Omit<Of<typeof KINDS.declaration>, "graph"> & { readonly graph: StoredGraph };

/** Decode a record with its defaults; undefined for what cannot be read. */
export function decode<K extends keyof typeof KINDS>(kind: K, body: Uint8Array | string): Of<(typeof KINDS)[K]> | undefined {
  try {
    const json = typeof body === "string" ? body : new TextDecoder("utf-8", { fatal: true }).decode(body);
    return record<(typeof KINDS)[K]>(KINDS[kind])(read(json, kind === "declaration" ? undefined : "output"));
  } catch (error) {
    if (error instanceof NotJson || error instanceof TypeError || error instanceof Unfit) return undefined;
    throw error;
  }
}

/** Decode an outcome; one that cannot be read is a failure. */
export const decodeOutcome = (body: Uint8Array): Outcome =>
  decode("outcome", body) ?? outcome("failed", { error: failure("MalformedOutcome", "the outcome that is stored cannot be read") });

/** Decode an attempt; one that cannot be read counts. */
export const decodeAttempt = (body: Uint8Array): Attempt => decode("attempt", body) ?? decode("attempt", "{}")!;

export const failure = (type: string, message: string, step: string | null = null): Failure => ({ type, message, step, traceback: "", place: "" });

const absent = (fields: Fields): object => Object.fromEntries(Object.entries(fields).map(([name, [, value]]) => [name, value]));
const NO_OUTCOME = absent(KINDS.outcome) as Outcome;
/** A join record with nothing but defaults. */
export const NO_JOIN = absent(KINDS.join) as JoinRecord;

/** Make an outcome. */
export const outcome = (status: Status, of: Partial<Outcome> = {}): Outcome => ({ ...NO_OUTCOME, status, ...of });

const NEVER_LEFT_OUT: Readonly<Record<string, unknown>> = { turn: undefined, needed: undefined, attempt: 1 };

/** Return a record as JSON, without the fields that hold their defaults. */
export function encode(given: object): string {
  let json = "";
  for (const [name, value] of Object.entries(given) as [string, unknown][]) {
    const absent = name in NEVER_LEFT_OUT ? NEVER_LEFT_OUT[name] : 0;
    const idle = value === null || value === undefined || value === false || value === "" || value === absent || value === NULL;
    const empty = typeof value === "object" && value !== null && !(value instanceof Raw) && Object.keys(value).length === 0;
    if ((idle || empty) && !(name === "members" && value === "")) continue;
    json += `${json && ","}"${name}":${canonical(value)}`;
  }
  return `{${json}}`;
}

/** Tell why a run or a step ended: all of its errors. */
export const failuresOf = (ended: Outcome): readonly Failure[] =>
  ended.errors.length > 0 ? ended.errors : ended.error === null ? [] : [ended.error];
