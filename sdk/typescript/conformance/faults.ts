/** Faults for the suite to catch: the kit with one rule broken, as an implementation might well break it. */

import type { Client } from "../src/index.js";

/** Break one rule of the kit's worker. */
export function plant(name: string | undefined, client: Client): void {
  if (name !== undefined) throw new Error(`no fault is called ${name}: ${client.rules.broker.names.namespace}`);
}
