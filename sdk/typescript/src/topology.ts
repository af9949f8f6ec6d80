/** The streams and consumers of a namespace: made by whoever comes first, and left as they are. */

import { BrokerRefused, InvalidConnection } from "./errors.js";
import type { Broker } from "./broker.js";
import type { Names } from "./wire.js";

const SECOND = 1e9;
const MONTH = 30 * 24 * 3600 * SECOND;
const EDITION = { jetflow_edition: "2", jetflow_layout: "1" };
const [STREAM_EXISTS, CONSUMER_EXISTS, NO_CONSUMER, NO_ROOM] = [10058, 10148, 10014, 10027];

interface StreamConfig {
  readonly name: string;
  readonly subjects: readonly string[];
  readonly republish?: { readonly src: string; readonly dest: string };
  readonly metadata?: Readonly<Record<string, string>>;
}

function streams(names: Names): StreamConfig[] {
  const { jf, namespace } = names;
  const stored = { retention: "limits", storage: "file", num_replicas: 1, metadata: EDITION };
  const batched = { allow_direct: true, allow_batched: true, allow_atomic: true };
  const once = {
    ...stored, ...batched, max_msgs_per_subject: 1, max_age: MONTH, discard: "new", discard_new_per_subject: true, duplicate_window: 120 * SECOND,
  };
  const bucket = { ...stored, max_msgs_per_subject: 1, allow_direct: true };
  const queue = { ...stored, retention: "workqueue" };
  const roots = { src: `${jf}.run.*.-.-.*`, dest: `${jf}.live.run.{{wildcard(1)}}.-.-.{{wildcard(2)}}` };
  const cancels = { src: `${jf}.cancel.>`, dest: `${jf}.live.cancel.>` };
  const kinds = ["run", "step", "join", "mark", "try", "once"];
  return [
    { name: names.tasks, subjects: [`${jf}.task.>`, `${jf}.cancel.>`], ...once, max_consumers: 100_000, republish: cancels } as StreamConfig,
    { name: names.records, subjects: kinds.map((kind) => `${jf}.${kind}.>`), ...once, republish: roots },
    { name: names.timers, subjects: [`${jf}.timer.>`, `${jf}.due.>`], ...queue, ...batched, discard: "old", allow_msg_schedules: true, allow_msg_ttl: true } as StreamConfig,
    { name: names.counters, subjects: [`$KV.jf_${namespace}_counters.>`], ...bucket, max_age: MONTH, allow_msg_counter: true } as StreamConfig,
    { name: names.workflows, subjects: [`$KV.jf_${namespace}_workflows.>`], ...bucket, max_age: 0 } as StreamConfig,
    { name: names.inbox, subjects: [`${jf}.in.>`], ...queue, discard: "new" } as StreamConfig,
    { name: names.values, subjects: [`${jf}.value.>`], ...once },
  ];
}

/** Make the streams that are missing. Throws InvalidConnection for those of another edition, or with other subjects. */
export async function ensureStreams(broker: Broker): Promise<void> {
  for (const wanted of streams(broker.names)) {
    try {
      await broker.api(`STREAM.CREATE.${wanted.name}`, wanted);
    } catch (error) {
      if (!(error instanceof BrokerRefused)) throw error;
      if (error.code === NO_ROOM && wanted.name === broker.names.values) continue;
      const found = await broker.api<{ config: StreamConfig }>(`STREAM.INFO.${wanted.name}`).catch(() => undefined);
      if (found === undefined) throw error;
      check(found.config, wanted);
    }
  }
}

function check(found: StreamConfig, wanted: StreamConfig): void {
  const edition = found.metadata?.["jetflow_edition"];
  if (edition !== EDITION.jetflow_edition) {
    const own = EDITION.jetflow_edition;
    throw new InvalidConnection(`stream ${found.name} is of edition ${edition ?? "unknown"}, and this SDK is of ${own}: use another namespace`);
  }
  const same = (one: StreamConfig) => JSON.stringify([[...one.subjects].sort(), one.republish?.src, one.republish?.dest]);
  if (same(found) !== same(wanted)) throw new InvalidConnection(`stream ${found.name} has other subjects, or another republish, than jetflow's`);
}

interface ConsumerConfig {
  readonly ack_wait: number;
  readonly max_ack_pending: number;
  readonly backoff?: readonly number[];
}

/** A step's consumer: its name, when it was made (seconds since the epoch), and after how many ms of silence it acts. */
export interface Consumer {
  readonly name: string;
  readonly created: number;
  readonly ackWait: number;
}

/** Make a step's consumer if it is missing; `ackWait` is ms. One that is there is only ever made more patient. */
export async function ensureConsumer(broker: Broker, workflow: string, step: string, ackWait: number, maxRunning?: number): Promise<Consumer> {
  const stream = broker.names.tasks;
  const name = `${workflow}=${step}`;
  const filter = `${broker.names.jf}.task.${workflow}.${step}.>`;
  const wanted = {
    durable_name: name, name, filter_subject: filter, ack_policy: "explicit", deliver_policy: "all", ack_wait: ackWait * 1e6,
    max_ack_pending: maxRunning ?? -1, max_deliver: -1, max_waiting: 4096,
  };
  const ask = (action: string, config: object) =>
    broker.api<{ config: ConsumerConfig; created: string }>(`CONSUMER.CREATE.${stream}.${name}.${filter}`, { stream_name: stream, config, action });
  let found = await broker.api<{ config: ConsumerConfig; created: string }>(`CONSUMER.INFO.${stream}.${name}`).catch(async (error: unknown) => {
    if (!(error instanceof BrokerRefused) || error.code !== NO_CONSUMER) throw error;
    return ask("create", wanted).catch((refused: unknown) => {
      if (refused instanceof BrokerRefused && [STREAM_EXISTS, CONSUMER_EXISTS].includes(refused.code)) return ask("", wanted);
      throw refused;
    });
  });
  const { config } = found;
  if (config.max_ack_pending !== wanted.max_ack_pending || config.ack_wait < wanted.ack_wait) {
    const change = { max_ack_pending: wanted.max_ack_pending, ack_wait: Math.max(config.ack_wait, wanted.ack_wait) };
    found = await ask("update", { ...config, ...change }).catch(() => found);
  }
  const patience = Math.min(found.config.ack_wait, ...(found.config.backoff ?? []));
  return { name, created: Date.parse(found.created) / 1000, ackWait: patience / 1e6 };
}

/** Return the steps of workflows whose consumers are there: of older code, perhaps. */
export async function consumersOf(broker: Broker, workflows: ReadonlySet<string>): Promise<[workflow: string, step: string][]> {
  const found: [string, string][] = [];
  for (let offset = 0; ; ) {
    const page = await broker.api<{ consumers: string[] | null; total: number }>(`CONSUMER.NAMES.${broker.names.tasks}`, { offset });
    const names = page.consumers ?? [];
    for (const name of names) {
      const [workflow = "", step = ""] = name.split("=");
      if (step && workflows.has(workflow)) found.push([workflow, step]);
    }
    offset += names.length;
    if (names.length === 0 || offset >= page.total) return found;
  }
}
