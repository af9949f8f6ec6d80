/** Reading what the streams hold, and asking the JetStream API. Reads that decide something go to the leader. */

import { createInbox, type Msg, type NatsConnection } from "@nats-io/nats-core";

import { refusal, type Refused } from "./answers.js";
import { BrokerRefused, BrokerTimeout } from "./errors.js";
import type { Names } from "./wire.js";

/** One stored message. `time` is seconds since the epoch. */
export interface Stored {
  readonly subject: string;
  readonly seq: number;
  readonly headers: readonly [string, string][];
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

  constructor(readonly nc: NatsConnection, readonly names: Names, readonly log: Logger, domain?: string, private readonly inboxPrefix?: string) {
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

  /** Ask the JetStream API. Throws BrokerRefused, BrokerTimeout. */
  async api<T = Record<string, unknown>>(operation: string, request: unknown = {}): Promise<T> {
    let until = performance.now() + API_TIMEOUT;
    for (;;) {
      while (!this.isConnected && !this.nc.isClosed()) {
        await sleep(BUSY); // an outage is waited through
        until = performance.now() + API_TIMEOUT;
      }
      let answer: T & { readonly error?: Refused };
      try {
        answer = (await this.nc.request(this.prefix + operation, JSON.stringify(request), { timeout: RESEND_AFTER })).json();
      } catch (error) {
        if (this.nc.isClosed() || performance.now() > until) throw new BrokerTimeout(`no answer to ${operation}: ${String(error)}`);
        await sleep(BUSY);
        continue;
      }
      if (answer.error === undefined) return answer;
      const { description, err_code } = answer.error;
      if (refusal(answer.error) !== "passing" || performance.now() > until) throw new BrokerRefused(`${operation}: ${description}`, err_code);
      await sleep(BUSY);
    }
  }

  /** Return the newest message on a subject, which may have wildcards, as the leader has it. */
  async last(stream: string, subject: string): Promise<Stored | null> {
    try {
      const { message } = await this.api<{ message: { subject: string; seq: number; hdrs?: string; data?: string; time: string } }>(
        `STREAM.MSG.GET.${stream}`, { last_by_subj: subject },
      );
      const { hdrs = "", data = "", time, ...rest } = message;
      const headers = headersOf(Buffer.from(hdrs, "base64").toString());
      return { subject: rest.subject, seq: rest.seq, headers, body: Buffer.from(data, "base64"), time: Date.parse(time) / 1000 };
    } catch (error) {
      if (error instanceof BrokerRefused && error.code === NOT_FOUND) return null;
      throw error;
    }
  }

  /** Return the subjects of a filter that hold a message, as the leader has them; some may be there twice. */
  async subjects(stream: string, filter: string): Promise<string[]> {
    const found: string[] = [];
    for (let offset = 0; ; ) {
      const request = { subjects_filter: filter, offset };
      const page = await this.api<{ total?: number; state: { subjects?: Record<string, number> } }>(`STREAM.INFO.${stream}`, request);
      const names = Object.keys(page.state.subjects ?? {});
      for (const name of names) found.push(name);
      offset += names.length;
      if (names.length === 0 || offset >= (page.total ?? 0)) return found;
    }
  }

  /** Return how many subjects of a filter hold a message, as the leader has it. */
  async total(stream: string, filter: string): Promise<number> {
    return (await this.api<{ total?: number }>(`STREAM.INFO.${stream}`, { subjects_filter: filter, offset: NO_LIST })).total ?? 0;
  }

  /** Return those messages of some subjects that are stored. What a replica does not have, the leader is asked for. */
  async many(stream: string, subjects: readonly string[]): Promise<Stored[]> {
    const found: Stored[] = [];
    const room = Math.max(1, Math.min(1000, Math.floor(this.maxPayload / 2 / (Math.max(1, ...subjects.map((one) => one.length)) + 3))));
    for (let at = 0; at < subjects.length; at += room) {
      let part = subjects.slice(at, at + room);
      for (let page: Stored[]; part.length > 0; ) {
        page = (await this.direct(stream, { multi_last: part, batch: part.length, max_bytes: 2 ** 23 })).page;
        found.push(...page);
        const seen = new Set(page.map((one) => one.subject));
        part = part.filter((one) => !seen.has(one));
        if (page.length === 0) break;
      }
      for (const one of await Promise.all(part.map((subject) => this.last(stream, subject)))) if (one !== null) found.push(one);
    }
    return found;
  }

  /** Yield pages of the messages of a filter in the order of the stream, with `since` (seconds) only the newest. */
  async *pages(stream: string, filter: string, since?: number): AsyncGenerator<Stored[], void> {
    for (let after = 0; ; ) {
      const from = since !== undefined && after === 0 ? { start_time: new Date(Date.now() - since * 1000).toISOString() } : { seq: after + 1 };
      const { page, left } = await this.direct(stream, { next_by_subj: filter, batch: 1000, max_bytes: 2 ** 23, ...from });
      if (page.length > 0) yield page;
      if (page.length === 0 || left === 0) return;
      after = page.at(-1)!.seq;
    }
  }

  private async direct(stream: string, request: unknown): Promise<{ page: Stored[]; left: number }> {
    for (let tries = 0; ; tries++) {
      const inbox = this.newInbox();
      const page: Stored[] = [];
      let done: (left: number) => void;
      const ended = new Promise<number>((resolve) => (done = resolve));
      const listening = this.nc.subscribe(inbox, {
        callback: (_, message) => {
          const { headers } = message;
          if (headers?.get("Nats-Sequence")) page.push(fromReplica(message));
          else done(headers?.code === 204 || headers?.code === 404 ? Number(headers.get("Nats-Num-Pending") || 0) : -1);
        },
      });
      const forget = this.onReconnect(() => done(-1));
      const timer = setTimeout(() => done(-1), RESEND_AFTER);
      this.nc.publish(`${this.prefix}DIRECT.GET.${stream}`, JSON.stringify(request), { reply: inbox });
      const left = await ended;
      clearTimeout(timer);
      forget();
      listening.unsubscribe();
      if (left >= 0) return { page, left };
      if (tries === 5 || this.nc.isClosed()) throw new BrokerTimeout(`no answer to a read of ${stream}`);
      await sleep(BUSY);
    }
  }

  /** Remove all messages of some filters, or those before a sequence. */
  async purge(stream: string, filters: Iterable<string>, seq?: number): Promise<void> {
    for (const filter of filters) await this.api(`STREAM.PURGE.${stream}`, { filter, seq });
  }
}

function headersOf(block: string): [string, string][] {
  return block.split("\r\n").slice(1).filter(Boolean).map((line) => {
    const at = line.indexOf(":");
    return [line.slice(0, at), line.slice(at + 1).trim()];
  });
}

/** Return the headers of a message, the first of each name. */
export function* headersFrom(message: Msg): Generator<[string, string], void> {
  for (const [name, values] of message.headers ?? []) yield [name, values[0] ?? ""];
}

function fromReplica(message: Msg): Stored {
  const { headers } = message;
  const get = (name: string) => headers?.get(name) ?? "";
  return {
    subject: get("Nats-Subject"), seq: Number(get("Nats-Sequence")), headers: [...headersFrom(message)], body: message.data.slice(),
    time: Date.parse(get("Nats-Time-Stamp")) / 1000,
  };
}
