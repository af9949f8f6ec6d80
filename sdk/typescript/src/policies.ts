/** Join policies: how many children must succeed before a step goes on, and when it is decided that they will not. */

/** When a join is decided, and how. Made by the functions below; without one all must succeed. */
export interface Policy {
  readonly quorum?: number | null;
  readonly tolerated?: number;
  readonly fraction?: number | null;
  readonly anything?: boolean;
  readonly early?: boolean;
  readonly cancel_rest?: boolean;
  readonly seconds?: number | null;
}

/** Every child must succeed; the first that does not decides, and the rest are cancelled. */
export const failFast = (): Policy => ({ early: true, cancel_rest: true });
/** All are waited for, however they end. */
export const collect = (): Policy => ({ anything: true });
/** At most so many children, or such a fraction (0 to 1) of them, may fail; all are waited for. */
export function tolerate(failures: number | { readonly fraction: number }): Policy {
  const most = typeof failures === "number" ? failures : failures.fraction;
  if (!(most >= 0) || (typeof failures !== "number" && most > 1)) throw new RangeError(`tolerate(${most}): not below 0, and a fraction not above 1`);
  return typeof failures === "number" ? { tolerated: Math.floor(most) } : { fraction: most };
}
/** So many children must succeed; the rest are cancelled when they have, or no longer can. */
export function quorum(successes: number, options: { readonly cancelRest?: boolean } = {}): Policy {
  if (!Number.isInteger(successes) || successes < 1) throw new RangeError(`quorum(${successes}): a whole number from 1`);
  return { quorum: successes, early: true, cancel_rest: options.cancelRest ?? true };
}
/** The first child that succeeds decides; the rest are cancelled. */
export const first = (): Policy => quorum(1);
/** The same policy, bounded: what has ended after `ms` milliseconds decides. */
export function within(policy: Policy, ms: number): Policy {
  if (!(ms > 0)) throw new RangeError(`within(${ms}): milliseconds above 0`);
  return { ...policy, seconds: ms / 1000 };
}

/** Return how many children must have ended before the policy can be met; 0 if it never can. */
export const threshold = (policy: Policy, total: number): number =>
  policy.quorum == null ? total : policy.quorum <= total ? policy.quorum : 0;

function allowed(policy: Policy, total: number): number {
  if (policy.anything === true) return total;
  return policy.fraction == null ? (policy.tolerated ?? 0) : Math.floor(policy.fraction * total + 1e-6);
}

/** Return how a join stands. */
export function verdict(policy: Policy, total: number, succeeded: number, ended: number): "open" | "met" | "missed" {
  const failed = ended - succeeded;
  if (policy.quorum != null) {
    return succeeded >= policy.quorum ? "met" : total - failed < policy.quorum ? "missed" : "open";
  }
  const most = allowed(policy, total);
  if (ended < total) return policy.early === true && failed > most ? "missed" : "open";
  return failed <= most ? "met" : "missed";
}

/** Return how many more children must end, at least, before an open verdict can change; 0 if it is decided. */
export function missing(policy: Policy, total: number, succeeded: number, ended: number): number {
  if (verdict(policy, total, succeeded, ended) !== "open") return 0;
  const failed = ended - succeeded;
  if (policy.quorum != null) return Math.max(1, Math.min(policy.quorum - succeeded, total - failed - policy.quorum + 1));
  if (policy.early === true) return Math.max(1, Math.min(total - ended, allowed(policy, total) - failed + 1));
  return Math.max(1, total - ended);
}
