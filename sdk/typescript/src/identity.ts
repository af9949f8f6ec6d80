/** Who is who: digests, run ids, and what else is made of hashes. */

import { createHash, randomBytes } from "node:crypto";

import { InvalidInput } from "./errors.js";
import { canonical, NotJson, type Schema } from "./json.js";

const NAME = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/;
const ID = /^[0-9a-f]{32}$/;

export const isName = (text: string): boolean => NAME.test(text);
export const isRunId = (text: string): boolean => ID.test(text);

/** Return the hash that ids and digests are made of: SHA-256, cut to 16 bytes, in hex. */
export const hashed = (data: string | Uint8Array): string => createHash("sha256").update(data).digest("hex").slice(0, 32);

/** Return the digest of an input that is canonical already. */
export const digestOf = (canonicalText: string): string => `2-${hashed(canonicalText)}`;

/** Return the canonical JSON of a value; `undefined` is null. Throws an error of the given kind for what has none. */
export function canonicalOr(kind: new (message: string) => Error, what: string, value: unknown, schema?: Schema): string {
  try {
    return canonical(value === undefined ? null : value, schema);
  } catch (error) {
    throw error instanceof NotJson ? new kind(`${what}: ${error.message}`) : error;
  }
}

/** Return the JSON of an input and its digest by the schema of its workflow. Throws InvalidInput. */
export function inputOf(value: unknown, schema: Schema, what: string): { text: string; digest: string } {
  const text = canonicalOr(InvalidInput, what, value);
  return { text, digest: digestOf(Object.keys(schema).length === 0 ? text : canonicalOr(InvalidInput, what, value, schema)) };
}

/** Return the id of a child: of its key, if the spawn gave one, else of its input's digest. */
export const childId = (parent: string, workflow: string, key: string | undefined, digest: string): string =>
  hashed(`${parent}\n${workflow}\n${key === undefined ? "hash" : "key"}\n${key ?? digest}`);

/** Return the id of the root run that a key names. */
export const rootId = (workflow: string, key: string): string => hashed(`-\n${workflow}\nkey\n${checkedKey(key)}`);

/** Return an id for a root run without a key: a UUIDv7. */
export function newRunId(now = Date.now()): string {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(now, 0, 6);
  bytes[6] = (bytes[6]! & 0x0f) | 0x70;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return bytes.toString("hex");
}

/** Return the sum of ids modulo 2^128, which tells a set of them. */
export function idSum(ids: Iterable<string>): string {
  let sum = 0n;
  for (const id of ids) sum += BigInt(`0x${id}`);
  return (sum & ((1n << 128n) - 1n)).toString(16).padStart(32, "0");
}

/** Return a key, checked. Throws InvalidInput. */
export function checkedKey(key: unknown): string {
  if (typeof key !== "string") throw new InvalidInput(`a key is a string, not ${typeof key}`);
  if (!key.isWellFormed()) throw new InvalidInput("a key with a lone surrogate would be another one where it is read");
  return key;
}

/** Return a key as tasks show it: JSON, 200 characters of text at most. */
export function shownKey(key: string): string {
  const characters = key.length > 200 ? Array.from(key) : [];
  return JSON.stringify((characters.length > 200 ? `${characters.slice(0, 199).join("")}…` : key).replaceAll(/\p{Surrogate}/gu, "?"));
}

/** Return the token of a name that `once` is given. */
export const onceToken = (name: string): string => (/^_?[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/.test(name) ? name : hashed(name));

export const packIds = (ids: Iterable<string>): string => Buffer.from([...ids].join(""), "hex").toString("base64");

export function unpackIds(packed: string): string[] {
  return Buffer.from(packed, "base64").toString("hex").match(/.{32}/g) ?? [];
}
