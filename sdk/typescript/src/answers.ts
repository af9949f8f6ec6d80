/** What the server says of a publish or a request, and what that means. */

/** The error in an answer. */
export interface Refused {
  readonly code: number;
  readonly err_code: number;
  readonly description: string;
}

const PASSING = new Set([10158, 10163, 10164, 10167, 10008, 10009, 10023, 10043, 10047, 10028, 10064, 10118, 10206, 10208, 10210, 10211]);
const FINAL = new Set([10039, 10076]);

/** Tell whether a subject is taken, whether the same is to be sent again, or whether it never will be accepted. */
export function refusal({ code, err_code, description }: Refused): "taken" | "passing" | "final" {
  if (err_code === 10071) return "taken";
  if (err_code === 10077) return description === "maximum messages per subject exceeded" ? "taken" : "passing";
  return !FINAL.has(err_code) && (PASSING.has(err_code) || code >= 500 || code === 429) ? "passing" : "final";
}
