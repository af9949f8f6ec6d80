// Computes the identity groups of vectors.json again, from docs/wire.md and without any of jetflow's code.
// node conformance/check_vectors.mjs; ends with 1 if anything differs.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

const vectors = JSON.parse(readFileSync(new URL("vectors.json", import.meta.url), "utf8"));
const hash = (data) => createHash("sha256").update(data).digest("hex").slice(0, 32);
const DEEPEST = 100;

// --- reading: JSON.parse loses the digits of integers, and takes lone surrogates

class Double { constructor(value) { this.value = value; } }

function read(text) {
  let at = 0;
  const fail = () => { throw new Error(`not JSON at ${at}`); };
  const space = () => { while (" \t\n\r".includes(text[at]) && at < text.length) at++; };
  const take = (pattern) => {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (found) at += found[0].length;
    return found;
  };
  function value(depth) {
    space();
    const start = text[at];
    if (start === "{" || start === "[") {
      if (depth === DEEPEST) fail();
      return start === "{" ? object(depth + 1) : array(depth + 1);
    }
    if (start === '"') return string();
    const word = take(/true|false|null/y);
    if (word) return { true: true, false: false, null: null }[word[0]];
    const number = take(/(-?(?:0|[1-9][0-9]*))((?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)/y) ?? fail();
    if (!number[2]) return BigInt(number[1]);
    if (!Number.isFinite(Number(number[0]))) fail();
    return new Double(Number(number[0]));
  }
  function string() {
    const found = take(/"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y) ?? fail();
    const inner = JSON.parse(found[0]);
    if (!inner.isWellFormed()) fail();
    return inner;
  }
  function array(depth) {
    const items = [];
    at++; space();
    if (text[at] === "]") { at++; return items; }
    for (;;) {
      items.push(value(depth)); space();
      if (text[at] === "]") { at++; return items; }
      if (text[at++] !== ",") fail();
    }
  }
  function object(depth) {
    const members = new Map();
    at++; space();
    if (text[at] === "}") { at++; return members; }
    for (;;) {
      space();
      const name = string(); space();
      if (text[at++] !== ":") fail();
      members.set(name, value(depth)); space();
      if (text[at] === "}") { at++; return members; }
      if (text[at++] !== ",") fail();
    }
  }
  const whole = value(0);
  space();
  if (at !== text.length) fail();
  return whole;
}

// --- writing

const points = (text) => Array.from(text, (one) => one.codePointAt(0));
function byCodePoint(one, other) {
  const [a, b] = [points(one), points(other)];
  for (let at = 0; at < Math.min(a.length, b.length); at++) if (a[at] !== b[at]) return a[at] - b[at];
  return a.length - b.length;
}

function choices(schema, root) {
  if (schema === null || typeof schema !== "object") return [{}];
  if (typeof schema.$ref === "string") return choices(root.$defs?.[schema.$ref.slice("#/$defs/".length)], root);
  const of = schema.anyOf ?? schema.oneOf ?? (schema.allOf?.length === 1 ? schema.allOf : undefined);
  return of ? of.flatMap((one) => choices(one, root)) : [schema];
}

function kinds(schema) {
  if (schema.type !== undefined) return [schema.type].flat();
  return "enum" in schema || "const" in schema ? [] : ["any"];
}

function write(value, schema, root) {
  const all = choices(schema, root);
  const types = all.flatMap(kinds);
  const of = (type) => (types.includes("any") ? [] : all.filter((one) => kinds(one).includes(type)));
  if (typeof value === "bigint") {
    const isDouble = types.includes("number") && !types.includes("integer") && !types.includes("any");
    return isDouble ? String(Number(value)) : String(value);
  }
  if (value instanceof Double) return String(value.value);
  if (value instanceof Map) return writeObject(value, of("object"), root);
  if (Array.isArray(value)) return writeArray(value, of("array"), root);
  return JSON.stringify(value);
}

const plain = (value) => (value instanceof Double ? value.value : value);

function writeObject(value, alternatives, root) {
  const constants = (one) =>
    Object.entries(one.properties ?? {})
      .filter(([, member]) => "const" in member || "enum" in member)
      .map(([name, member]) => [name, "const" in member ? [member.const] : member.enum]);
  const fitting =
    alternatives.length < 2
      ? alternatives
      : alternatives.filter((one) => constants(one).every(([name, of]) => of.includes(plain(value.get(name)))));
  const schema = fitting.length === 1 ? fitting[0] : {};
  const tags = alternatives.length > 1 ? constants(schema).map(([name]) => name) : [];
  const written = [];
  for (const name of [...value.keys()].sort(byCodePoint)) {
    const member = Object.hasOwn(schema.properties ?? {}, name) ? schema.properties[name] : undefined;
    const text = write(value.get(name), member ?? schema.additionalProperties ?? {}, root);
    if (member && "default" in member && !tags.includes(name) && text === defaultOf(member, root)) continue;
    written.push(`${JSON.stringify(name)}:${text}`);
  }
  return `{${written.join(",")}}`;
}

function writeArray(value, alternatives, root) {
  const schema = alternatives.length === 1 ? alternatives[0] : {};
  const first = schema.prefixItems ?? [];
  const written = value.map((item, at) => write(item, first[at] ?? schema.items ?? {}, root));
  if (schema.uniqueItems === true && !first.length) return `[${[...new Set(written)].sort(byCodePoint).join(",")}]`;
  while (written.length && written.length <= first.length) {
    const item = first[written.length - 1];
    if (!("default" in item) || written.at(-1) !== defaultOf(item, root)) break;
    written.pop();
  }
  return `[${written.join(",")}]`;
}

// The schemas of the vectors hold no default that JSON.parse would change.
const defaultOf = (schema, root) => write(read(JSON.stringify(schema.default)), schema, root);

// --- checking

let wrong = 0;
let checked = 0;
function expect(what, found, expected) {
  checked++;
  if (JSON.stringify(found) !== JSON.stringify(expected)) {
    wrong++;
    console.error(`${what}: ${JSON.stringify(found)} instead of ${JSON.stringify(expected)}`);
  }
}
const digest = (canonical) => `2-${hash(canonical)}`;
const derived = (parent, workflow, kind, text) => hash(`${parent}\n${workflow}\n${kind}\n${text}`);

for (const { text, schema, canonical, digest: expected } of vectors.canonical) {
  const found = write(read(text), schema ?? {}, schema ?? {});
  expect(text, found, canonical);
  expect(text, digest(found), expected);
}
for (const text of vectors.refused) {
  let refused = false;
  try { read(text); } catch { refused = true; }
  expect(text, refused, true);
}
for (const { workflow, key, id } of vectors.root_ids) expect(key, derived("-", workflow, "key", key), id);
for (const { parent, workflow, key, input, id } of vectors.child_ids) {
  const found = key === undefined ? ["hash", digest(write(read(input), {}, {}))] : ["key", key];
  expect(key ?? input, derived(parent, workflow, ...found), id);
}
for (const key of vectors.refused_keys) expect(key, key.isWellFormed(), false);
for (const { ids, sum } of vectors.id_sums) {
  const total = ids.reduce((some, id) => some + BigInt(`0x${id}`), 0n) % (1n << 128n);
  expect("sum", total.toString(16).padStart(32, "0"), sum);
}
for (const { key, shown } of vectors.shown_keys) {
  const characters = [...key];
  expect(key, characters.length > 200 ? `${characters.slice(0, 199).join("")}…` : key, shown);
}
for (const { name, token } of vectors.once_tokens) {
  expect(name, /^_?[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/.test(name) ? name : hash(name), token);
}
for (const { bytes, max_payload, ref, chunks } of vectors.value_refs) {
  const data = Buffer.from(bytes.repeat.repeat(bytes.times));
  const size = Math.min(256 * 1024, Math.floor(max_payload / 4));
  const sizes = [];
  for (let at = 0; at < data.length; at += size) sizes.push(Math.min(size, data.length - at));
  expect(ref, `${hash(data)}-${size}.${sizes.length}`, ref);
  expect(ref, sizes, chunks);
}
console.log(`${checked} checked, ${wrong} wrong`);
process.exit(wrong ? 1 : 0);
