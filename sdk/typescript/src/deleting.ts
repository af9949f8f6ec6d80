/** Deleting all that is stored of a tree. */

import { BrokerRefused, UnknownRun } from "./errors.js";
import { firstTask } from "./cancelling.js";
import type { Broker } from "./broker.js";
import type { Stored } from "./reading.js";
import { NONE } from "./wire.js";

const DELETED = '"deleted"';
const ALREADY_GONE = [10043, 10057];
const NO_STREAM = 10059;
const AT_ONCE = 64;

/**
 * Delete a root run with its descendants. A mark stays for an hour, which has what is still under way dropped. The
 * outcomes go last, for by its root's a tree is found again if whoever deletes it dies. Throws UnknownRun.
 */
export async function deleteTree(broker: Broker, run: string): Promise<void> {
  const { names } = broker;
  const { jf, tasks, records } = names;
  if ((await broker.last(records, `${jf}.run.${run}.-.-.${run}`)) === null && (await firstTask(broker, run, run))?.task.parent !== NONE) {
    throw new UnknownRun(`no root run ${run} is stored`);
  }
  for await (const page of broker.pages(tasks, `${jf}.cancel.${run}.*`)) await remove(broker, page);
  await broker.store(tasks, names.cancel(run, run), DELETED);
  const all = `${jf}.task.*.*.${run}.>`;
  do for await (const page of broker.pages(tasks, all)) await remove(broker, page);
  while ((await broker.last(tasks, all)) !== null); // a replica may not have had it yet
  await broker.purge(names.counters, [`$KV.jf_${names.namespace}_counters.*.${run}.>`]);
  await broker.purge(names.values, [`${jf}.value.${run}.>`]).catch((error: unknown) => {
    if (!(error instanceof BrokerRefused) || error.code !== NO_STREAM) throw error;
  });
  await broker.purge(names.timers, [`${jf}.timer.wake.*.*.${run}.>`]);
  for (const kind of ["step", "join", "mark", "try", "once", "run"]) {
    const filter = `${jf}.${kind}.${run}.>`;
    // A purge of many holds up whoever writes.
    for await (const page of broker.pages(records, filter)) await broker.purge(records, [filter], page.at(-1)!.seq + 1);
    await broker.purge(records, [filter]);
  }
}

/** Remove tasks or marks one by one: a purge has the server count anew what is left for each consumer. */
async function remove(broker: Broker, page: readonly Stored[]): Promise<void> {
  const { tasks } = broker.names;
  const left = page.values();
  const removeSome = async () => {
    for (const { seq } of left) {
      await broker.api(`STREAM.MSG.DELETE.${tasks}`, { seq, no_erase: true }).catch((error: unknown) => {
        if (!(error instanceof BrokerRefused) || !ALREADY_GONE.includes(error.code)) throw error;
      });
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, removeSome));
}
