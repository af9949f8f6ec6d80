/** The graph of a workflow, what becomes of a step by those before it, and how a run ends by its steps. */

import { canonical, Raw } from "./json.js";
import { failuresOf, outcome, type Failure, type Outcome, type Status } from "./records.js";
import { ADMIT, START, type Task } from "./wire.js";

export interface Node {
  readonly name: string;
  readonly after: readonly string[];
}

/** A graph as it is stored under its version. */
export interface StoredGraph {
  readonly workflow: string;
  readonly nodes: readonly Node[];
  readonly on_failure?: string | null;
  readonly on_success?: string | null;
  readonly fail_fast?: boolean;
  /** Steps that conditions decide, which this SDK does not evaluate. */
  readonly conditional?: readonly string[];
  /** Its runs are admitted before they begin, by workers of level full; those with levels are, too. */
  readonly gated?: boolean;
  readonly levels?: readonly string[];
  /** Steps that have places of limits for themselves, which workers of level full run. */
  readonly limited?: readonly string[];
}

/** The steps of a workflow, and what each comes after. It never changes under its version. */
export class Graph {
  readonly nodes: readonly Node[];
  readonly onFailure: string | null;
  readonly onSuccess: string | null;
  readonly failFast: boolean;
  readonly conditional: ReadonlySet<string>;
  readonly limited: ReadonlySet<string>;
  readonly firsts: readonly string[];
  readonly first: string;
  readonly lasts: readonly string[];
  private readonly byName: ReadonlyMap<string, Node>;
  private readonly before = new Map<string, Set<string>>();

  constructor(stored: StoredGraph) {
    this.nodes = stored.nodes;
    this.onFailure = stored.on_failure ?? null;
    this.onSuccess = stored.on_success ?? null;
    this.failFast = stored.fail_fast ?? false;
    this.conditional = new Set(stored.conditional ?? []);
    this.limited = new Set(stored.limited ?? []);
    this.byName = new Map(stored.nodes.map((node) => [node.name, node]));
    this.firsts = stored.nodes.filter((node) => node.after.length === 0).map((node) => node.name);
    const admitted = stored.gated === true || (stored.levels ?? []).length > 0;
    this.first = admitted ? ADMIT : this.firsts.length === 1 ? this.firsts[0]! : START;
    this.lasts = stored.nodes.filter(({ name }) => !stored.nodes.some((one) => one.after.includes(name))).map(({ name }) => name);
    for (const { name, after } of stored.nodes) {
      this.before.set(name, new Set(after.flatMap((one) => [one, ...(this.before.get(one) ?? [])])));
    }
  }

  /** Tell whether a step runs when its run has ended. */
  isSequel = (step: string): boolean => step === this.onFailure || step === this.onSuccess;
  has = (step: string): boolean => this.byName.has(step) || step === this.first || this.isSequel(step);
  after = (step: string): readonly string[] => this.byName.get(step)?.after ?? [];
  comesBefore = (one: string, step: string): boolean => this.before.get(step)?.has(one) ?? false;

  /** Tell whether a step may run while another one does. */
  hasBeside = (step: string): boolean =>
    this.nodes.some(({ name }) => name !== step && !this.comesBefore(name, step) && !this.comesBefore(step, name));

  /** The steps that wait for a step. */
  behind(step: string): readonly string[] {
    if (step === START) return this.firsts;
    return this.nodes.filter((node) => node.after.includes(step)).map((node) => node.name);
  }

  /** The steps that may wait for children of a step: all that do not end before it begins. */
  beside(step: string): readonly string[] {
    if (!this.byName.has(step)) return [];
    return this.nodes.filter(({ name }) => name !== step && !this.comesBefore(name, step)).map((node) => node.name);
  }
}

const FAILED: readonly Status[] = ["failed", "timed_out"];

export const hasFailed = (ended: Outcome): boolean => FAILED.includes(ended.status);

/** Return what becomes of a step, by how the steps before it have ended. One with conditions has its task in any case. */
export function decide(before: readonly Status[], conditional = false): "run" | "cancel" | "skip" {
  if (before.some((status) => FAILED.includes(status) || status === "cancelled")) return "cancel";
  return !conditional && before.every((status) => status === "skipped") ? "skip" : "run";
}

const SAID: Partial<Record<Status, string>> = { failed: "failed", timed_out: "timed out", cancelled: "was cancelled" };

/** Return the outcome of a step that is not run. */
export function leftOut(task: Task, step: string, how: "cancel" | "skip", before: ReadonlyMap<string, Outcome>): Outcome {
  const at = Math.max(...[...before.values()].map((one) => one.ended));
  const of = { workflow: task.workflow, step, key: task.key, attempt: 0, started: at, ended: at };
  if (how === "skip") return outcome("skipped", of);
  const why = [...before].filter(([, ended]) => SAID[ended.status]).map(([name, ended]) => `step '${name}' ${SAID[ended.status]}`);
  const error: Failure = { type: "Cancelled", message: `not run: ${why.join(" and ")}`, step, traceback: "", place: "" };
  return outcome("cancelled", { ...of, error });
}

const TEXT_OF_ERRORS = 100_000;

/** Return how a run ends by how its steps have: `outputs` are those of its last steps, none kept by reference. */
export function ending(task: Task, graph: Graph, steps: ReadonlyMap<string, Outcome>): Outcome {
  const all = graph.nodes.flatMap(({ name }) => (steps.has(name) ? [[name, steps.get(name)!] as const] : []));
  const lasts = all.filter(([name]) => graph.lasts.includes(name));
  const timed = (lasts.length > 0 ? lasts : all).map(([, ended]) => ended);
  const of = {
    workflow: task.workflow, key: task.key, started: Math.min(...timed.map((one) => one.started)),
    ended: Math.max(...timed.map((one) => one.ended)), worker: timed.at(-1)!.worker,
  };
  for (const status of ["failed", "timed_out", "cancelled"] as const) {
    if (!all.some(([, ended]) => ended.status === status)) continue;
    const told = status === "failed" ? FAILED : [status];
    const bad = all.filter(([, ended]) => told.includes(ended.status));
    const errors = shortened(bad.flatMap(([, ended]) => failuresOf(ended)));
    const [step, { attempt, worker }] = bad[0]!;
    return outcome(status, { ...of, step, attempt, worker, error: errors[0] ?? null, errors: errors.length > 1 ? errors : [] });
  }
  if (graph.lasts.length === 1) return outcome("succeeded", of); // it was skipped: there is no output
  const outputs = Object.fromEntries(lasts.filter(([, ended]) => ended.status !== "skipped").map(([name, ended]) => [name, ended.output]));
  return outcome("succeeded", { ...of, output: new Raw(canonical(outputs)) });
}

function shortened(errors: readonly Failure[]): readonly Failure[] {
  if (errors.length < 2) return errors;
  const share = Math.floor(TEXT_OF_ERRORS / errors.length);
  return errors.map((one) => ({ ...one, message: one.message.slice(0, share), traceback: one.traceback.slice(-share) }));
}
