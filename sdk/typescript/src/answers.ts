/** What the server says of a publish, and what that means. */

import type { NatsConnection } from "@nats-io/nats-core";

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

/** Publish with headers that are encoded already. */
export function sendOn(nc: NatsConnection, subject: string, body: Uint8Array | string, reply?: string, headers?: Uint8Array): void {
  if (nc.isClosed()) return;
  const options: Record<string, unknown> = {};
  if (reply !== undefined) options["reply"] = reply;
  if (headers !== undefined) options["headers"] = { encode: () => headers };
  nc.publish(subject, body, options);
}
