/** The streams and consumers of a namespace: made by whoever comes first, and left as they are. */

import { BrokerRefused, InvalidConnection, PermissionDenied } from "./errors.js";
import type { Broker } from "./broker.js";
import type { Namespace } from "./wire.js";

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

const STORED = { retention: "limits", storage: "file", num_replicas: 1, metadata: EDITION };
const BATCHED = { allow_direct: true, allow_batched: true, allow_atomic: true };
const ONCE = {
  ...STORED, ...BATCHED, max_msgs_per_subject: 1, max_age: MONTH, discard: "new", discard_new_per_subject: true, duplicate_window: 120 * SECOND,
};
const BUCKET = { ...STORED, max_msgs_per_subject: 1, allow_direct: true };
const QUEUE = { ...STORED, retention: "workqueue" };

function streams({ called, absolute }: Namespace): StreamConfig[] {
  const stream = (name: string, kinds: string[], more: object): StreamConfig =>
    ({ name: called(name), subjects: kinds.map((kind) => absolute(`${kind}.>`)), ...more });
  const republish = (src: string, dest: string) => ({ republish: { src: absolute(src), dest: absolute(dest) } });
  const roots = republish("run.*.-.-.*", "live.run.{{wildcard(1)}}.-.-.{{wildcard(2)}}");
  return [
    stream("tasks", ["task", "cancel"], { ...ONCE, max_consumers: 100_000, ...republish("cancel.>", "live.cancel.>") }),
    stream("records", ["run", "step", "join", "mark", "try", "once"], { ...ONCE, ...roots }),
    stream("timers", ["timer", "due"], { ...QUEUE, ...BATCHED, discard: "old", allow_msg_schedules: true, allow_msg_ttl: true }),
    stream("counters", ["counters"], { ...BUCKET, max_age: MONTH, allow_msg_counter: true }),
    stream("workflows", ["workflows"], { ...BUCKET, max_age: 0 }),
    stream("inbox", ["in"], { ...QUEUE, discard: "new" }),
    stream("values", ["value"], ONCE),
  ];
}

/** Make the streams that are missing. Throws InvalidConnection for those of another edition, or with other subjects. */
export async function ensureStreams(broker: Broker): Promise<void> {
  for (const wanted of streams(broker.namespace)) {
    try {
      await broker.api(`STREAM.CREATE.${wanted.name}`, wanted);
    } catch (error) {
      if (hasCode(error, [NO_ROOM]) && wanted.name === broker.namespace.called("values")) continue;
      if (!(error instanceof BrokerRefused || error instanceof PermissionDenied)) throw error;
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

interface ConsumerInfo {
  readonly config: { readonly ack_wait: number; readonly max_ack_pending: number; readonly backoff?: readonly number[] };
  readonly created: string;
}

/** A step's consumer: when it was made (seconds since the epoch), and after how many ms of silence it acts. */
export interface Consumer {
  readonly workflow: string;
  readonly step: string;
  readonly name: string;
  readonly created: number;
  readonly ackWait: number;
}

const hasCode = (error: unknown, codes: readonly number[]): boolean => error instanceof BrokerRefused && codes.includes(error.code);

/**
 * Make a step's consumer if it is missing; `ackWait` is ms. One that is there is only ever made more patient, and lets as
 * many run as whoever has the step says: `maxRunning`.
 */
export async function ensureConsumer(broker: Broker, workflow: string, step: string, ackWait: number, maxRunning?: number): Promise<Consumer> {
  const stream = broker.namespace.called("tasks");
  const name = `${workflow}=${step}`;
  const filter = broker.namespace.absolute(`task.${workflow}.${step}.>`);
  const wanted = {
    durable_name: name, name, filter_subject: filter, ack_policy: "explicit", deliver_policy: "all", ack_wait: ackWait * 1e6,
    max_ack_pending: maxRunning ?? -1, max_deliver: -1, max_waiting: 4096,
  };
  const ask = (action: string, config: object) =>
    broker.api<ConsumerInfo>(`CONSUMER.CREATE.${stream}.${name}.${filter}`, { stream_name: stream, config, action });
  const otherwise = (codes: number[], next: () => Promise<ConsumerInfo>) => (error: unknown) => {
    if (!hasCode(error, codes)) throw error;
    return next();
  };
  const create = () => ask("create", wanted).catch(otherwise([STREAM_EXISTS, CONSUMER_EXISTS], () => ask("", wanted)));
  let found = await broker.api<ConsumerInfo>(`CONSUMER.INFO.${stream}.${name}`).catch(otherwise([NO_CONSUMER], create));
  const { config } = found;
  const most = maxRunning ?? config.max_ack_pending;
  if (config.max_ack_pending !== most || config.ack_wait < wanted.ack_wait) {
    const change = { max_ack_pending: most, ack_wait: Math.max(config.ack_wait, wanted.ack_wait) };
    found = await ask("update", { ...config, ...change }).catch(() => found);
  }
  const patience = Math.min(found.config.ack_wait, ...(found.config.backoff ?? []));
  return { workflow, step, name, created: Date.parse(found.created) / 1000, ackWait: patience / 1e6 };
}

/** Return the names of the consumers of steps that are there: of older code, too. */
export async function consumersOf(broker: Broker): Promise<string[]> {
  const found: string[] = [];
  for (;;) {
    const request = { offset: found.length };
    const page = await broker.api<{ consumers: string[] | null; total: number }>(`CONSUMER.NAMES.${broker.namespace.called("tasks")}`, request);
    found.push(...(page.consumers ?? []));
    if (!page.consumers?.length || found.length >= page.total) return found;
  }
}
