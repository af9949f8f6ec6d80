/** Reading what the streams hold, and asking the JetStream API. Reads that decide something go to the leader. */

import { createInbox, MsgHdrsImpl, PermissionViolationError, type Msg, type NatsConnection } from "@nats-io/nats-core";

import { refusal, type Refused } from "./answers.js";
import { BrokerRefused, BrokerTimeout, PermissionDenied } from "./errors.js";
import type { Namespace } from "./wire.js";

/** One stored message, and its subject without the namespace. `time` is seconds since the epoch. */
export interface Stored {
  readonly subject: string;
  readonly seq: number;
  readonly headers: ReadonlyMap<string, string>;
  readonly body: Uint8Array;
  readonly time: number;
}

/** What the SDK says of itself: `console` fits. */
export interface Logger {
  info(text: string): void;
  warn(text: string): void;
  error(text: string): void;
}

/** What is sent again waits so many ms for an answer, or for the server to be less busy. */
export const RESEND_AFTER = 5000;
export const BUSY = 250;
const API_TIMEOUT = 30_000;
const NO_LIST = 2 ** 31;
const NOT_FOUND = 10037;

export const sleep = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

/** Reads the streams of one namespace. */
export class Reader {
  /** Whether the server can be reached at this moment. */
  isConnected = true;
  protected readonly onBack = new Set<() => void>();
  private readonly prefix: string;

  constructor(
    readonly nc: NatsConnection, readonly namespace: Namespace, readonly log: Logger, domain?: string, private readonly inboxPrefix?: string,
  ) {
    this.prefix = domain === undefined ? "$JS.API." : `$JS.${domain}.API.`;
  }

  apiSubject = (operation: string): string => this.prefix + operation;
  newInbox = (): string => createInbox(this.inboxPrefix);
  get maxPayload(): number {
    return this.nc.info?.max_payload ?? 1024 * 1024;
  }

  /** Call back whenever the connection is there again. Returns how to stop that. */
  onReconnect(callback: () => void): () => void {
    this.onBack.add(callback);
    return () => this.onBack.delete(callback);
  }

  /** Listen to a subject of the namespace. Returns how to stop that. */
  listen(subject: string, callback: (subject: string, message: Msg) => void): () => void {
    const { namespace } = this;
    const heard = (_: Error | null, message: Msg) => callback(namespace.relative(message.subject), message);
    const subscription = this.nc.subscribe(namespace.absolute(subject), { callback: heard });
    return () => subscription.unsubscribe();
  }

  /** Do something whose failure is only told. */
  inBackground(what: string, work: Promise<unknown>): void {
    work.catch((error: unknown) => this.log.warn(`jetflow: ${what}: ${String(error)}`));
  }

  /** Ask the JetStream API. Throws BrokerRefused, BrokerTimeout. */
  async api<T = Record<string, unknown>>(operation: string, request: unknown = {}): Promise<T> {
    let until = performance.now() + API_TIMEOUT;
    for (let tries = 0; ; tries++) {
      if (tries > 0) await sleep(BUSY);
      if (!this.isConnected && !this.nc.isClosed()) {
        until = performance.now() + API_TIMEOUT; // an outage is waited through
        continue;
      }
      const isLast = this.nc.isClosed() || performance.now() > until;
      const asked = this.nc.request(this.prefix + operation, JSON.stringify(request), { timeout: RESEND_AFTER });
      const answer = await asked.then((message) => message.json<T & { readonly error?: Refused }>(), (error: unknown) => error as Error);
      if (answer instanceof Error) {
        if (answer.cause instanceof PermissionViolationError) throw denied(answer.cause.subject);
        if (isLast) throw new BrokerTimeout(`no answer to ${operation}: ${String(answer)}`);
      } else if (answer.error === undefined) return answer;
      else if (isLast || refusal(answer.error) !== "passing") throw new BrokerRefused(`${operation}: ${answer.error.description}`, answer.error.err_code);
    }
  }

  /** Return the newest message on a subject, which may have wildcards, as the leader has it. */
  async last(subject: string): Promise<Stored | null> {
    const request = { last_by_subj: this.namespace.absolute(subject) };
    try {
      const { message } = await this.api<{ message: { subject: string; seq: number; hdrs?: string; data?: string; time: string } }>(
        `STREAM.MSG.GET.${this.namespace.stream(subject)}`, request,
      );
      const body = Buffer.from(message.data ?? "", "base64");
      const headers = new Map(message.hdrs === undefined ? [] : headersFrom({ headers: MsgHdrsImpl.decode(Buffer.from(message.hdrs, "base64")) }));
      return { subject: this.namespace.relative(message.subject), seq: message.seq, headers, body, time: Date.parse(message.time) / 1000 };
    } catch (error) {
      if (error instanceof BrokerRefused && error.code === NOT_FOUND) return null;
      throw error;
    }
  }

  /** Return the subjects of a filter that hold a message, as the leader has them; some may be there twice. */
  async subjects(filter: string): Promise<string[]> {
    const found: string[] = [];
    for (;;) {
      const { total = 0, state } = await this.listing(filter, found.length);
      const page = Object.keys(state.subjects ?? {});
      for (const subject of page) found.push(this.namespace.relative(subject));
      if (page.length === 0 || found.length >= total) return found;
    }
  }

  /** Return how many subjects of a filter hold a message, as the leader has it. */
  async total(filter: string): Promise<number> {
    return (await this.listing(filter, NO_LIST)).total ?? 0;
  }

  private listing(filter: string, offset: number): Promise<{ total?: number; state: { subjects?: Record<string, number> } }> {
    return this.api(`STREAM.INFO.${this.namespace.stream(filter)}`, { subjects_filter: this.namespace.absolute(filter), offset });
  }

  /** Return those messages of some subjects of one stream that are stored. What a replica does not have, the leader is asked for. */
  async many(subjects: readonly string[]): Promise<Stored[]> {
    const found: Stored[] = [];
    const longest = Math.max(1, ...subjects.map((one) => this.namespace.absolute(one).length));
    const room = Math.max(1, Math.min(1000, Math.floor(this.maxPayload / 2 / (longest + 3))));
    for (let at = 0; at < subjects.length; at += room) {
      let part = subjects.slice(at, at + room);
      while (part.length > 0) {
        const { page } = await this.direct(part[0]!, { multi_last: part.map(this.namespace.absolute), batch: part.length });
        if (page.length === 0) break;
        found.push(...page);
        const seen = new Set(page.map((one) => one.subject));
        part = part.filter((one) => !seen.has(one));
      }
      for (const one of await Promise.all(part.map((subject) => this.last(subject)))) if (one !== null) found.push(one);
    }
    return found;
  }

  /** Yield pages of the messages of a filter in the order of the stream, with `since` (seconds) only the newest. */
  async *pages(filter: string, since?: number): AsyncGenerator<Stored[], void> {
    let from: object = since === undefined ? { seq: 1 } : { start_time: new Date(Date.now() - since * 1000).toISOString() };
    for (;;) {
      const { page, left } = await this.direct(filter, { next_by_subj: this.namespace.absolute(filter), batch: 1000, ...from });
      if (page.length > 0) yield page;
      if (page.length === 0 || left === 0) return;
      from = { seq: page.at(-1)!.seq + 1 };
    }
  }

  /** Read a page of a stream from any replica, and how many messages are left. */
  private async direct(of: string, request: object): Promise<{ page: Stored[]; left: number }> {
    const stream = this.namespace.stream(of);
    const asked = JSON.stringify({ ...request, max_bytes: 2 ** 23 });
    for (let tries = 0; tries < 6 && !this.nc.isClosed(); tries++) {
      if (tries > 0) await sleep(BUSY);
      const page: Stored[] = [];
      try {
        for await (const message of await this.nc.requestMany(`${this.prefix}DIRECT.GET.${stream}`, asked, { maxWait: RESEND_AFTER })) {
          const { headers } = message;
          if (headers?.get("Nats-Sequence")) page.push(this.fromReplica(message));
          else if (headers?.code === 204 || headers?.code === 404) return { page, left: Number(headers.get("Nats-Num-Pending") || 0) };
          else break;
        }
      } catch (error) {
        this.log.warn(`jetflow: a read of ${stream}: ${String(error)}`);
      }
    }
    throw new BrokerTimeout(`no answer to a read of ${stream}`);
  }

  private fromReplica(message: Msg): Stored {
    const get = (name: string) => message.headers?.get(name) ?? "";
    const [subject, time] = [this.namespace.relative(get("Nats-Subject")), Date.parse(get("Nats-Time-Stamp")) / 1000];
    return { subject, seq: Number(get("Nats-Sequence")), headers: new Map(headersFrom(message)), body: message.data.slice(), time };
  }

  /** Remove all messages of some filters, or those before a sequence. */
  async purge(filters: Iterable<string>, seq?: number): Promise<void> {
    for (const filter of filters) await this.api(`STREAM.PURGE.${this.namespace.stream(filter)}`, { filter: this.namespace.absolute(filter), seq });
  }
}

export const denied = (subject: string): PermissionDenied => new PermissionDenied(`this user may not publish on ${subject}`);

/** Return the headers of a message, the first of each name. */
export function* headersFrom(message: Pick<Msg, "headers">): Generator<[string, string], void> {
  for (const [name, values] of message.headers ?? []) yield [name, values[0] ?? ""];
}
