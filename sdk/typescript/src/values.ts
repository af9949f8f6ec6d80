/** What is too large for a message travels in chunks, and is referred to. */

import { textOf, type Broker } from "./broker.js";
import { LostValue, PayloadTooLarge } from "./errors.js";
import { hashed } from "./identity.js";
import { Raw } from "./json.js";
import { failure, NULL, type Outcome } from "./records.js";
import { subjects } from "./wire.js";

const MOST = 64 * 1024 * 1024;
const REFERENCE = /^(([0-9a-f]{32})-[1-9]\d*)\.([1-9]\d*)$/;

/** Return the bytes of a chunk, and of the largest value that travels in its message. */
export const chunkSize = (maxPayload: number): number => Math.min(256 * 1024, Math.floor(maxPayload / 4));

/** Return the reference of a value, and its chunks. */
export function chunksOf(data: Uint8Array, size: number): { name: string; reference: string; chunks: Uint8Array[] } {
  const chunks: Uint8Array[] = [];
  for (let at = 0; at < data.length; at += size) chunks.push(data.subarray(at, at + size));
  const name = `${hashed(data)}-${size}`;
  return { name, reference: `${name}.${chunks.length}`, chunks };
}

/** Store a value if it is large, and return its reference. Throws PayloadTooLarge above 64 MiB. */
export async function putLarge(broker: Broker, root: string, text: string, what: string): Promise<string | null> {
  const size = chunkSize(broker.maxPayload);
  if (text.length * 3 <= size || Buffer.byteLength(text) <= size) return null;
  const data = Buffer.from(text);
  if (data.length > MOST) throw new PayloadTooLarge(`${what} has ${data.length} bytes of JSON: ${MOST} at most`);
  const { name, reference, chunks } = chunksOf(data, size);
  await Promise.all(chunks.map((chunk, at) => broker.store(subjects.value(root, name, at), chunk)));
  return reference;
}

/** Return the text of a value by its reference. Throws LostValue. */
export async function getLarge(broker: Broker, root: string, reference: string): Promise<string> {
  const [, name = "", hash, count] = REFERENCE.exec(reference) ?? [];
  const chunks = Array.from({ length: Number(count) <= MOST / 256 ? Number(count) : 0 }, (_, at) => subjects.value(root, name, at));
  const found = new Map((await broker.many(chunks)).map((one) => [one.subject, one.body]));
  const data = Buffer.concat(chunks.map((chunk) => found.get(chunk) ?? new Uint8Array()));
  if (hashed(data) !== hash) throw new LostValue(`the value ${reference} is gone, or was changed`);
  return textOf(data);
}

/** Return an outcome with its output, loaded if it is kept by reference. Throws LostValue. */
export async function withOutput(broker: Broker, root: string, ended: Outcome): Promise<Outcome> {
  return ended.value === null ? ended : { ...ended, value: null, output: new Raw(await getLarge(broker, root, ended.value)) };
}

/** The same for who reads it: one that is lost is a failure. */
export async function readable(broker: Broker, root: string, ended: Outcome, step = ended.step): Promise<Outcome> {
  return withOutput(broker, root, ended).catch((error: unknown) => {
    if (!(error instanceof LostValue)) throw error;
    return { ...ended, status: "failed", output: NULL, value: null, error: failure(error.type, error.message, step || null) };
  });
}
