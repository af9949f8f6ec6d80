/** Deleting all that is stored of a tree. */

import type { Broker } from "./broker.js";
import { firstTask } from "./cancelling.js";
import { BrokerRefused, UnknownRun } from "./errors.js";
import { DELETED, mark } from "./marks.js";
import type { Stored } from "./reading.js";
import { NONE, subjects } from "./wire.js";

const ALREADY_GONE = [10043, 10057];
const NO_STREAM = 10059;
const AT_ONCE = 64;
/** Beside the tasks, and the outcomes last: by its root's a tree is found again if whoever deletes it dies. */
const KINDS = ["counters.*", "value", "timer.wake.*.*", "entry.*.*", "gone", "step", "join", "mark", "try", "once", "run"];

/** Delete a root run with its descendants. A mark stays, which has what is still under way dropped. Throws UnknownRun. */
export async function deleteTree(broker: Broker, run: string): Promise<void> {
  const isThere = (await broker.last(`run.${run}.${NONE}.${NONE}.${run}`)) !== null || (await firstTask(broker, run))?.task.parent === NONE;
  if (!isThere) throw new UnknownRun(`no root run ${run} is stored`);
  for await (const page of broker.pages(subjects.cancel(run, "*"))) await remove(broker, page);
  await mark(broker, run, [run], DELETED);
  const tasks = subjects.tree("task", run);
  do for await (const page of broker.pages(tasks)) await remove(broker, page);
  while ((await broker.last(tasks)) !== null); // a replica may not have had it yet
  for (const kind of KINDS) await purge(broker, `${kind}.${run}.>`);
}

/** Purge what may be much in pieces: one of many messages holds up whoever writes. */
async function purge(broker: Broker, filter: string): Promise<void> {
  try {
    if (!/^(?:value|entry|gone)/.test(filter)) for await (const page of broker.pages(filter)) await broker.purge([filter], page.at(-1)!.seq + 1);
    await broker.purge([filter]);
  } catch (error) {
    if (!(error instanceof BrokerRefused) || error.code !== NO_STREAM) throw error; // an account may have none for values, and limits may be unused
  }
}

/** Remove tasks or marks one by one: a purge has the server count anew what is left for each consumer. */
async function remove(broker: Broker, page: readonly Stored[]): Promise<void> {
  const left = page.values();
  const removeSome = async () => {
    for (const { subject, seq } of left) {
      await broker.api(`STREAM.MSG.DELETE.${broker.namespace.stream(subject)}`, { seq, no_erase: true }).catch((error: unknown) => {
        if (!(error instanceof BrokerRefused) || !ALREADY_GONE.includes(error.code)) throw error;
      });
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, removeSome));
}
