/**
 * JSON as the wire has it: a strict reader that keeps the digits of integers, and the canonical writer.
 *
 * Whole numbers beyond `Number.MAX_SAFE_INTEGER` are read as `BigInt`, and a `BigInt` is written with all its digits.
 * What has no JSON (NaN, a lone surrogate, a Map, a function) is refused by name, and nothing becomes `null` instead.
 */

/** A JSON Schema, or a part of one. */
export type Schema = Readonly<Record<string, unknown>>;

/** JSON text that is written as it is. */
export class Raw {
  constructor(readonly text: string) {}
  /** The value that it stands for. */
  get value(): unknown {
    return parse(this.text);
  }
}

/** A text is no JSON, or a value has none. */
export class NotJson extends Error {}

const DEEPEST = 100;
const SUSPECT = /\\u[dD]|\d{16}|[eE]\+?\d{2}/; // surrogates, integers beyond doubles, and doubles beyond all
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"(?:\s*:)?|[-+.\deE]*\d|[[\]{},]/g;
const NUL = "\\u0000"; // as a JSON text has it, and in no other way

/** Return the value of a text; quickly where nothing in it needs care. Throws NotJson. */
export const parse = (text: string): unknown => (SUSPECT.test(text) ? read(text) : native(text));

function native(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw new NotJson((error as Error).message);
  }
}

/** Return the value of a text. A member `raw` of the outermost object is kept as its text, a `Raw`. Throws NotJson. */
export function read(text: string, raw?: string): unknown {
  const plain = native(text);
  let [depth, begin] = [0, -1];
  let kept = undefined as Raw | undefined;
  // Integers beyond doubles become strings that begin with a NUL, and such strings with two.
  const marked = text.replace(TOKEN, (token, at: number) => {
    const fail = (why: string): never => {
      throw new NotJson(`${why} at character ${at}`);
    };
    if (token.startsWith('"')) {
      const isName = token.endsWith(":");
      if (!(JSON.parse(isName ? token.slice(0, -1) : token) as string).isWellFormed()) fail("a lone surrogate");
      if (isName && depth === 1 && JSON.parse(token.slice(0, -1)) === raw) begin = at + token.length;
      return isName || !token.startsWith(NUL, 1) ? token : `"${NUL}${token.slice(1)}`;
    }
    if (token === "[" || token === "{") depth++;
    if (depth > DEEPEST) fail(`nested deeper than ${DEEPEST}`);
    if (token === "]" || token === "}") depth--;
    if (begin >= 0 && ((token === "," && depth === 1) || depth === 0)) [kept, begin] = [new Raw(text.slice(begin, at).trim()), -1];
    if (!/\d/.test(token)) return token;
    if (/[.eE]/.test(token)) return Number.isFinite(Number(token)) ? token : fail("a number beyond all doubles");
    return Number.isSafeInteger(Number(token)) ? token : `"${NUL}${token}"`;
  });
  const value = marked === text ? plain : (JSON.parse(marked, unmarked) as unknown);
  return kept === undefined ? value : { ...(value as object), [raw!]: kept };
}

function unmarked(_: string, value: unknown): unknown {
  if (typeof value !== "string" || !value.startsWith("\0")) return value;
  return value.startsWith("\0\0") ? value.slice(1) : BigInt(value.slice(1));
}

/** What a schema says of one place: the types of its plain schemas, and those of objects and arrays. */
interface Said {
  readonly types: ReadonlySet<unknown>;
  readonly objects: readonly Schema[];
  readonly arrays: readonly Schema[];
}

const ANY: Schema = {};
const NOTHING: Said = { types: new Set(), objects: [], arrays: [] };
const said = new WeakMap<object, Said>();

const isSchema = (value: unknown): value is Schema => value !== null && typeof value === "object";

function plain(schema: unknown, root: Schema, depth = 0): Schema[] {
  if (!isSchema(schema) || depth > DEEPEST) return [{}];
  if (typeof schema["$ref"] === "string") {
    const defs = isSchema(root["$defs"]) ? root["$defs"] : {};
    return plain(defs[schema["$ref"].slice("#/$defs/".length)], root, depth + 1);
  }
  const all = Array.isArray(schema["allOf"]) && schema["allOf"].length === 1 ? schema["allOf"] : undefined;
  const of = (schema["anyOf"] ?? schema["oneOf"] ?? all) as unknown[] | undefined;
  return Array.isArray(of) ? of.flatMap((one) => plain(one, root, depth + 1)) : [schema];
}

function sayingOf(schema: Schema, root: Schema): Said {
  if (schema === ANY) return NOTHING;
  let found = said.get(schema);
  if (found === undefined) {
    const all = plain(schema, root);
    const kinds = (one: Schema) => (one["type"] === undefined ? [] : [one["type"]].flat());
    const open = all.some((one) => one["type"] === undefined && !("enum" in one) && !("const" in one));
    const of = (type: string) => all.filter((one) => kinds(one).includes(type));
    found = open ? NOTHING : { types: new Set(all.flatMap(kinds)), objects: of("object"), arrays: of("array") };
    said.set(schema, found);
  }
  return found;
}

/**
 * Return the canonical JSON of a value: the text that digests are made of. Without a schema it has all members.
 * Throws NotJson, which names the place in the value.
 */
export function canonical(value: unknown, schema: Schema = ANY): string {
  return write(value, schema, schema, 0, "");
}

function write(value: unknown, schema: Schema, root: Schema, depth: number, place: string): string {
  switch (typeof value) {
    case "string":
      if (!value.isWellFormed()) refuse("a lone surrogate", place);
      return JSON.stringify(value);
    case "number":
      if (!Number.isFinite(value)) refuse(String(value), place);
      return String(value === 0 ? 0 : value);
    case "bigint": {
      const { types } = sayingOf(schema, root);
      if (!types.has("number") || types.has("integer")) return String(value);
      return Number.isFinite(Number(value)) ? String(Number(value)) : refuse("a number beyond all doubles", place);
    }
    case "boolean":
      return String(value);
    case "object":
      break;
    default:
      refuse(typeof value, place);
  }
  if (value === null) return "null";
  if (value instanceof Raw) return value.text;
  if (depth >= DEEPEST) refuse(`what is nested deeper than ${DEEPEST}`, place);
  if (Array.isArray(value)) return writeArray(value, schema, root, depth + 1, place);
  const { toJSON } = value as { toJSON?: unknown };
  if (typeof toJSON === "function") return write(toJSON.call(value), schema, root, depth + 1, place);
  if (value instanceof Map || value instanceof Set || ArrayBuffer.isView(value) || value instanceof Promise) {
    refuse(`a ${value.constructor.name}`, place);
  }
  return writeObject(value as Record<string, unknown>, schema, root, depth + 1, place);
}

function refuse(what: string, place: string): never {
  throw new NotJson(`${what} has no JSON${place && `, at ${place}`}`);
}

/** The tags of an object's schema: members that have a `const` or an `enum`, and what these may be. */
function tagsOf(schema: Schema): [string, readonly unknown[]][] {
  return Object.entries((schema["properties"] ?? {}) as Record<string, unknown>).flatMap(([name, member]) => {
    if (!isSchema(member) || !("const" in member || "enum" in member)) return [];
    return [[name, "const" in member ? [member["const"]] : (member["enum"] as unknown[])]];
  });
}

function writeObject(value: Record<string, unknown>, schema: Schema, root: Schema, depth: number, place: string): string {
  const { objects } = sayingOf(schema, root);
  const several = objects.length > 1;
  const fits = (one: Schema) => tagsOf(one).every(([name, of]) => Object.hasOwn(value, name) && of.includes(value[name]));
  const fitting = several ? objects.filter(fits) : objects;
  const chosen = fitting.length === 1 ? fitting[0]! : ANY;
  const tags = several ? new Set(tagsOf(chosen).map(([name]) => name)) : undefined;
  const properties = (chosen["properties"] ?? ANY) as Record<string, unknown>;
  const others = isSchema(chosen["additionalProperties"]) ? chosen["additionalProperties"] : ANY;
  let written = "";
  for (const name of sorted(Object.keys(value))) {
    const inner = value[name];
    if (inner === undefined) continue;
    const member = Object.hasOwn(properties, name) ? properties[name] : undefined;
    const of = isSchema(member) ? member : others;
    const text = write(inner, of, root, depth, `${place}.${name}`);
    if (isSchema(member) && "default" in member && !tags?.has(name) && text === defaultOf(member, root)) continue;
    if (!name.isWellFormed()) refuse("a lone surrogate in a name", place);
    written += `${written && ","}${JSON.stringify(name)}:${text}`;
  }
  return `{${written}}`;
}

function writeArray(value: readonly unknown[], schema: Schema, root: Schema, depth: number, place: string): string {
  const { arrays } = sayingOf(schema, root);
  const chosen = arrays.length === 1 ? arrays[0]! : ANY;
  const first = (chosen["prefixItems"] ?? []) as readonly unknown[];
  const items = isSchema(chosen["items"]) ? chosen["items"] : ANY;
  const written: string[] = [];
  for (let at = 0; at < value.length; at++) {
    const of = at < first.length ? first[at] : items;
    written.push(write(value[at], isSchema(of) ? of : ANY, root, depth, `${place}[${at}]`));
  }
  if (chosen["uniqueItems"] === true && first.length === 0) return `[${sorted([...new Set(written)]).join(",")}]`;
  while (written.length > 0 && written.length <= first.length) {
    const item = first[written.length - 1];
    if (!isSchema(item) || !("default" in item) || written.at(-1) !== defaultOf(item, root)) break;
    written.pop();
  }
  return `[${written.join(",")}]`;
}

const defaultOf = (schema: Schema, root: Schema) => write(schema["default"], schema, root, 0, "default");

/** Sort by code point: UTF-16 sorts what is beyond U+FFFF before U+E000. */
function sorted(texts: string[]): string[] {
  texts.sort();
  return texts.some((one) => /[\ud800-\udbff]/.test(one)) ? texts.sort(byCodePoint) : texts;
}

const byCodePoint = (one: string, other: string) => Buffer.compare(Buffer.from(one), Buffer.from(other)); // as UTF-8 sorts
