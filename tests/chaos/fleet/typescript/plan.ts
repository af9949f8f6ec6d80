/** What tests/chaos/plan.py says, which the checker goes by. */

import { createHash } from "node:crypto";

export interface Leaf {
  readonly seed: number;
}

export interface Node {
  readonly seed: number;
  readonly depth?: number;
  readonly poisoned?: boolean;
}

export interface Total {
  total: number;
  failed: number;
}

const KINDS = ["branch", "scatter", "diamond", "narrow", "several", "hasty", "timely"];
const FAR = 2 ** 40;

export function draw(seed: number, what: string, below: number): number {
  return Number(createHash("sha256").update(`${seed}/${what}`).digest().readBigUInt64BE() % BigInt(below));
}

export const leafValue = (seed: number): number => draw(seed, "value", 1000);
export const sharedLeaf = (seed: number): number => draw(seed, "shared", FAR);
export const failsBefore = (seed: number): number => Math.max(0, draw(seed, "fails", 14) - 11);
export const lateAttempts = (seed: number): number => 1 + draw(seed, "late attempts", 2);
export const joinStyle = (seed: number): number => draw(seed, "join", 3);
export const bound = (seed: number): number => 1.2 + draw(seed, "bound", 300) / 100;

export function pause(seed: number, what: string, attempt: number): number {
  const number = draw(seed, `pause ${what} ${attempt}`, 1000) / 1000;
  return draw(seed, `held ${what} ${attempt}`, 2) ? 0.05 + number / 2 : 1.5 + 2.5 * number;
}

const seeds = (seed: number, what: string, count: number): number[] =>
  Array.from({ length: count }, (_, at) => draw(seed, `${what} ${at}`, FAR));

export const secondBatch = (seed: number, total: number): number[] => seeds(seed, `second ${total}`, (total + seed) % 4);

/** The leaves of a node: workflow, seeds, and whether they are spawned with keys. */
export function leaves(kind: string, { seed, poisoned }: Node): (readonly [string, number[], boolean])[] {
  const groups: (readonly [string, number[], boolean])[] = [
    ["leaf", seeds(seed, "keyed", 1 + draw(seed, "keyed", 6)), true],
    ["leaf", seeds(seed, "hashed", draw(seed, "hashed", 5)), false],
    ["sync-leaf", seeds(seed, "sync", draw(seed, "sync", 3)), false],
    ["apart-leaf", seeds(seed, "apart", draw(seed, "apart", 2)), false],
  ];
  if (kind === "timely" || draw(seed, "late", 6) === 0) {
    groups.push(["late", seeds(seed, "late", draw(seed, "late ones", 3)), false]);
  }
  if (poisoned) groups.push(["poison", seeds(seed, "poison", 1), true]);
  else if (draw(seed, "doom", kind === "scatter" ? 12 : 4) === 0 && ["branch", "timely", "scatter"].includes(kind)) {
    groups.push(["doomed", seeds(seed, "doomed", 1 + draw(seed, "doomed", 2)), false]);
  }
  return groups;
}

/** The trees below a node: workflow and input. */
export function subtrees(kind: string, { seed, depth = 0 }: Node): (readonly [string, Node])[] {
  if (depth === 0) return [];
  const most = { branch: 3, scatter: 2 }[kind] ?? 1;
  return seeds(seed, "tree", 1 + draw(seed, "trees", most)).map((below) => [KINDS[draw(below, "kind", KINDS.length)]!, { seed: below, depth: depth - 1 }]);
}
