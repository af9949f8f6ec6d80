/** Plays every planted fault against the cases that must catch it: `node dist/conformance/play.js [NAME…]`. */

import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";

import { FAULTS } from "./faults.js";

const ROOT = fileURLToPath(new URL("../../../../", import.meta.url));
const KIT = fileURLToPath(new URL("kit.js", import.meta.url));
const PYTHON = process.env["PYTHON"] ?? `${ROOT}.venv/bin/python`;
const AT_ONCE = 2;

interface Result {
  readonly id: string;
  readonly passed: boolean;
  readonly problem: string;
}

/** Tell whether a case failed by what was planted, and not because the fault itself fails. */
const isCaught = ({ passed, problem }: Result) => !passed && !/^(NotReady|Traceback)|is not a function|there is no method/.test(problem);

async function played(name: string): Promise<Result[]> {
  const cases = FAULTS[name]!.caughtBy.join(",");
  const args = ["-m", "conformance", "--level", "parent", "--json", "--only", cases, "--", process.execPath, KIT, name];
  const said = await new Promise<string>((done) => execFile(PYTHON, args, { cwd: ROOT, maxBuffer: 2 ** 26 }, (_, output) => done(output)));
  return said.split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line) as Result);
}

const names = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(FAULTS);
const left = [...names];
let caught = 0;
await Promise.all(Array.from({ length: AT_ONCE }, async () => {
  for (let name = left.shift(); name !== undefined; name = left.shift()) {
    const results = await played(name);
    const all = results.length === FAULTS[name]!.caughtBy.length && results.every(isCaught);
    caught += all ? 1 : 0;
    for (const one of results) console.log(`${isCaught(one) ? "caught" : "MISSED"} ${name.padEnd(22)} ${one.id.padEnd(5)} ${one.problem.split("\n")[0] ?? ""}`);
    if (results.length === 0) console.log(`BROKEN ${name}`);
  }
}));
console.log(`${names.length} planted faults, ${caught} caught`);
process.exit(caught === names.length ? 0 : 1);
