/** Starting root runs: by a client, or detached from a step. */

import { KeyConflict, PayloadTooLarge, RecentlyDeleted } from "./errors.js";
import { textOf } from "./broker.js";
import { Graph } from "./graph.js";
import { shownKey } from "./identity.js";
import { canonical } from "./json.js";
import type { Declaration } from "./records.js";
import type { Rules } from "./rules.js";
import { putLarge } from "./values.js";
import { NONE } from "./wire.js";

/** A root run that is asked for: its id, input and digest, and what else its tasks say. */
export interface Root {
  readonly run: string;
  readonly text: string;
  readonly digest: string;
  readonly key: string | undefined;
  readonly depth: number;
  readonly metadata: string | null;
  readonly trace: string | null;
}

/** Start a root run, once. Throws KeyConflict, RecentlyDeleted, PayloadTooLarge. */
export async function startRoot({ broker }: Rules, declaration: Declaration, root: Root): Promise<void> {
  const { names } = broker;
  const { run, digest, key, metadata, trace } = root;
  const { workflow } = declaration.graph;
  if (key !== undefined) {
    const mark = await broker.last(names.tasks, names.cancel(run, run));
    if (mark !== null && textOf(mark.body) === '"deleted"' && Date.now() / 1000 - mark.time < 3600) {
      throw new RecentlyDeleted(`run ${run}, which key ${JSON.stringify(key)} of '${workflow}' names, was deleted within the last hour`);
    }
  }
  const value = await putLarge(broker, run, root.text, `the input of '${workflow}'`);
  const headers: Record<string, string> = {
    "Nats-Msg-Id": `${run}.${digest}`, "Jf-Parent-Step": NONE, "Jf-Version": declaration.version, "Jf-Depth": String(root.depth), "Jf-Digest": digest,
  };
  if (key !== undefined) headers["Jf-Key"] = shownKey(key);
  if (metadata !== null) headers["Jf-Metadata"] = metadata;
  if (trace !== null) headers["traceparent"] = trace;
  if (value !== null) headers["Jf-Value"] = value;
  if (declaration.deadline !== null) headers["Jf-Deadline"] = (Date.now() / 1000 + declaration.deadline).toFixed(3);
  const subject = names.childTask(workflow, new Graph(declaration.graph).first, run, NONE, run);
  const there = await broker.store(names.tasks, subject, value === null ? root.text : "", headers);
  if (there !== null && new Map(there.headers).get("Jf-Digest") !== digest) {
    throw new KeyConflict(`key ${JSON.stringify(key ?? run)} of '${workflow}' names run ${run}, which was started with another input`);
  }
}

/** Return metadata as tasks carry them. Throws PayloadTooLarge above 16 KiB. */
export function metadataText(metadata: Readonly<Record<string, unknown>> | undefined): string | null {
  if (metadata === undefined) return null;
  const text = canonical(metadata);
  if (Buffer.byteLength(text) > 16 * 1024) throw new PayloadTooLarge("metadata have more than 16 KiB of JSON");
  return text;
}
