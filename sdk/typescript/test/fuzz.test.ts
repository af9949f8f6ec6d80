/** Canonical JSON of random texts, against Python's. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { test } from "node:test";

import { canonical, NotJson, parse, read, type Schema } from "../src/json.js";

const HERE = fileURLToPath(new URL("../../", import.meta.url));
const PYTHON = process.env["PYTHON"] ?? `${HERE}../../.venv/bin/python`;
const COUNT = process.env["TEXTS"] ?? "10000";

function written(text: string, schema: Schema): string | null {
  try {
    const value = read(text);
    const found = canonical(value, schema);
    assert.deepEqual(canonical(parse(text)), canonical(value), `the quick reader of ${text}`);
    return found;
  } catch (error) {
    if (error instanceof NotJson) return null;
    throw error;
  }
}

test(`canonical JSON of ${COUNT} random texts is Python's`, () => {
  const seed = process.env["SEED"] ?? String(Math.floor(Math.random() * 1e9));
  const lines = execFileSync(PYTHON, [`${HERE}test/texts.py`, COUNT, seed], { encoding: "utf8", maxBuffer: 2 ** 30 }).trimEnd().split("\n");
  assert.equal(lines.length, Number(COUNT));
  let refused = 0;
  for (const line of lines) {
    const { text, schema, canonical: wanted } = JSON.parse(line) as { text: string; schema: Schema; canonical: string | null };
    assert.equal(written(text, schema), wanted, `SEED=${seed}: ${text} by ${JSON.stringify(schema)}`);
    refused += wanted === null ? 1 : 0;
  }
  assert.ok(refused > 0 && refused < lines.length / 2, `${refused} of ${COUNT} were refused`);
});
