/** Starting root runs: by a client, or detached from a step. */

import { textOf } from "./broker.js";
import { InvalidInput, KeyConflict, PayloadTooLarge, RecentlyDeleted } from "./errors.js";
import { Graph } from "./graph.js";
import { canonicalOr, shownKey } from "./identity.js";
import { DELETED, REMEMBERED } from "./marks.js";
import type { Declaration } from "./records.js";
import type { Rules } from "./rules.js";
import { putLarge } from "./values.js";
import { NONE, subjects } from "./wire.js";

const MOST_METADATA = 16 * 1024;

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
  const { run, digest, key, metadata, trace } = root;
  const { workflow } = declaration.graph;
  if (key !== undefined) {
    const mark = await broker.last(subjects.cancel(run, run));
    if (mark !== null && textOf(mark.body) === DELETED && Date.now() / 1000 - mark.time < REMEMBERED) {
      throw new RecentlyDeleted(`run ${run}, which key ${JSON.stringify(key)} of '${workflow}' names, was deleted within the last hour`);
    }
  }
  const value = await putLarge(broker, run, root.text, `the input of '${workflow}'`);
  const headers = {
    "Nats-Msg-Id": `${run}.${digest}`, "Jf-Parent-Step": NONE, "Jf-Version": declaration.version, "Jf-Depth": String(root.depth), "Jf-Digest": digest,
    ...(key !== undefined && { "Jf-Key": shownKey(key) }), ...(metadata !== null && { "Jf-Metadata": metadata }),
    ...(trace !== null && { traceparent: trace }), ...(value !== null && { "Jf-Value": value }),
    ...(declaration.deadline !== null && { "Jf-Deadline": (Date.now() / 1000 + declaration.deadline).toFixed(3) }),
  };
  const task = { workflow, step: new Graph(declaration.graph).first, root: run, parent: NONE, run, turn: 0 };
  const there = await broker.store(subjects.task(task), value === null ? root.text : "", headers);
  if (there !== null && there.headers.get("Jf-Digest") !== digest) {
    throw new KeyConflict(`key ${JSON.stringify(key ?? run)} of '${workflow}' names run ${run}, which was started with another input`);
  }
}

/** Return metadata as tasks carry them. Throws InvalidInput, and PayloadTooLarge above 16 KiB. */
export function metadataText(metadata: Readonly<Record<string, unknown>> | undefined): string | null {
  if (metadata === undefined) return null;
  const text = canonicalOr(InvalidInput, "metadata", metadata);
  if (Buffer.byteLength(text) > MOST_METADATA) throw new PayloadTooLarge("metadata have more than 16 KiB of JSON");
  return text;
}
