/** The examples of the documentation run as they stand. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";

import * as sdk from "../src/index.js";
import { HERE, server } from "./fleet.js";

const run = promisify(execFile);

/** The examples in a file, each as a program that connects if the example does not. */
function programsIn(file: string): string[] {
  const blocks = readFileSync(join(HERE, "src", file), "utf8").matchAll(/@example\n\s*\* ```ts\n([\s\S]*?)\n\s*\* ```/g);
  return [...blocks].map(([, text]) => {
    const code = text!.replaceAll(/^\s*\* ?/gm, "");
    const used = Object.keys(sdk).filter((name) => new RegExp(`\\b${name}[(<]`).test(code) || code.includes("jf") && name === "connect");
    const [before, behind] = code.includes("await connect(") || !code.includes("jf") ? ["", ""] : ["const jf = await connect();\n", "\nawait jf.close();"];
    return `import { ${used.join(", ")} } from "@jetflow/sdk";\n\n${before}${code}${behind}\nexport {};\n`;
  });
}

test("each example of the TSDoc compiles strictly, and runs", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "jetflow-examples-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  mkdirSync(join(folder, "node_modules", "@jetflow"), { recursive: true });
  symlinkSync(HERE, join(folder, "node_modules", "@jetflow", "sdk"));
  symlinkSync(join(HERE, "node_modules", "@types"), join(folder, "node_modules", "@types"));
  writeFileSync(join(folder, "package.json"), '{"type":"module"}');
  const programs = readdirSync(join(HERE, "src")).flatMap(programsIn);
  const files = programs.map((code, at) => {
    writeFileSync(join(folder, `example-${at}.ts`), code);
    return `example-${at}.ts`;
  });
  assert.ok(files.length >= 6, `${files.length} examples`);
  const tsc = join(HERE, "node_modules", ".bin", "tsc");
  await run(tsc, ["--module", "nodenext", "--target", "es2023", "--strict", ...files], { cwd: folder }).catch((error: unknown) => assert.fail((error as { stdout: string }).stdout));
  const env = { ...process.env, NATS_URL: await server(t) };
  for (const [at, file] of files.entries()) {
    await run(process.execPath, [file.replace(".ts", ".js")], { cwd: folder, env, timeout: 20_000 }).catch((error: unknown) => assert.fail(`${programs[at]}\n${String(error)}`));
  }
});
