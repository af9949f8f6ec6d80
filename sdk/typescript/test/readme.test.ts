/** The newcomer's path, as the README tells it. */

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { mkdtempSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";

import { HERE, PYTHON, server } from "./fleet.js";

const readme = readFileSync(join(HERE, "README.md"), "utf8");
const blocks = [...readme.matchAll(/```(\w+)\n([\s\S]*?)```/g)].map(([, language, text]) => ({ language, text: text! }));
const run = promisify(execFile);

/** The command of the README that begins so. */
function command(begin: string): string {
  const line = blocks.filter((one) => one.language === "sh").flatMap((one) => one.text.split("\n")).find((one) => one.startsWith(begin));
  assert.ok(line, `the README has no command ${begin}`);
  return line;
}

test("from nothing to a TypeScript child of a Python parent, and to a TypeScript parent", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "jetflow-readme-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  for (const { text } of blocks) {
    const name = /^(?:#|\/\/) (\S+\.\w+)\n/.exec(text)?.[1];
    if (name !== undefined) writeFileSync(join(folder, name), text);
  }
  writeFileSync(join(folder, "package.json"), '{"type":"module"}');
  mkdirSync(join(folder, "node_modules", "@jetflow"), { recursive: true });
  symlinkSync(HERE, join(folder, "node_modules", "@jetflow", "sdk"));
  for (const one of ["typescript", "@types", ".bin"]) symlinkSync(join(HERE, "node_modules", one), join(folder, "node_modules", one));
  const env = { ...process.env, NATS_URL: await server(t), PATH: `${dirname(PYTHON)}:${process.env["PATH"]}` };
  const options = { cwd: folder, env };
  const inBackground = (line: string) => {
    const shell = spawn("bash", ["-c", `exec ${line}`], { ...options, stdio: "ignore", detached: true });
    t.after(() => process.kill(-shell.pid!, "SIGKILL"));
  };

  const [compile = "", start = ""] = command("npx tsc").split(" && ");
  await run("bash", ["-c", compile], options);
  inBackground(command("jetflow dev"));
  inBackground(start);
  const trigger = command("jetflow trigger");
  let said = "";
  for (let tries = 0; tries < 100 && said === ""; tries++) {
    said = (await run("bash", ["-c", trigger], options).catch(() => ({ stdout: "" }))).stdout; // until both are there
  }
  assert.equal(said, blocks.find((one) => one.language === "text")?.text);

  writeFileSync(join(folder, "double.py"), 'from jetflow import workflow\n\n@workflow("double")\nasync def double(n: int) -> int:\n    return n * 2\n');
  await run("bash", ["-c", compile.replace("worker.ts", "parent.ts")], options);
  inBackground("jetflow worker double.py");
  for (let tries = 0; tries < 100; tries++) {
    if (await run("jetflow", ["trigger", "double", "1", "--wait"], options).then(() => true, () => false)) break;
  }
  const { stdout } = await run(process.execPath, ["parent.js"], { ...options, timeout: 30_000 });
  assert.match(stdout, /\{ children: 3, total: 6 \}/);
});
