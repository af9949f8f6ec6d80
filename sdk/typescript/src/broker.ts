/**
 * The broker as the rules see it: publishing until it is known what became of a message, counting, and reading.
 *
 * Every message is write-once by its subject, or a counter that may be counted twice, so sending again is always right.
 * Write-once messages of one stream that are ready in the same turn of the event loop leave as one batch, and what is
 * added to one counter leaves as one increment.
 */

import { createInbox, type Msg, type NatsConnection } from "@nats-io/nats-core";

import { refusal, sendOn, type Refused } from "./answers.js";
import { Batches, LARGEST, type Item } from "./batches.js";
import { BrokerRefused, BrokerTimeout, PayloadTooLarge, PermissionDenied } from "./errors.js";
import { headerBlock, SEAL, type Names } from "./wire.js";

/** What became of a publish: `taken` if its subject held a message already. */
export interface Receipt {
  readonly taken: boolean;
  readonly value?: number;
}

/** One stored message. `time` is seconds since the epoch. */
export interface Stored {
  readonly subject: string;
  readonly seq: number;
  readonly headers: readonly [string, string][];
  readonly body: Uint8Array;
  readonly time: number;
}

interface Answer {
  readonly error?: Refused;
  readonly val?: string;
}

interface Pending extends Item {
  readonly resolve: (receipt: Receipt) => void;
  readonly reject: (error: Error) => void;
  at: number;
}

/** What the SDK says of itself: `console` fits. */
export interface Logger {
  info(text: string): void;
  warn(text: string): void;
  error(text: string): void;
}

const RESEND_AFTER = 5000;
const BUSY = 250;
const API_TIMEOUT = 30_000;
const NO_LIST = 2 ** 31;
const NOT_FOUND = 10037;
const UNDER_WAY = 8;
const WORTH_A_BATCH = 3;
export const EMPTY = new Uint8Array();
const encoder = new TextEncoder();
const decoder = new TextDecoder();

export const bytesOf = (text: string): Uint8Array => encoder.encode(text);
export const textOf = (body: Uint8Array): string => decoder.decode(body);
export const sleep = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

/** One connection to one namespace. */
export class Broker {
  private readonly inbox: string;
  private readonly pending = new Map<number, Pending>();
  private readonly batches: Batches;
  private readonly queues = new Map<string, Pending[]>();
  private readonly counts = new Map<string, { by: number; waiting: Pending[] }>();
  private readonly api_: string;
  private readonly checker: NodeJS.Timeout;
  private readonly onBack = new Set<() => void>();
  private outgoing: [string, string | Uint8Array, string | undefined, Uint8Array | undefined][] = [];
  /** Whether the server can be reached at this moment. */
  isConnected = true;
  private scheduled = false;
  private underWay = 0;
  private next = 0;

  constructor(readonly nc: NatsConnection, readonly names: Names, readonly log: Logger, domain?: string, private readonly inboxPrefix?: string) {
    this.api_ = domain === undefined ? "$JS.API." : `$JS.${domain}.API.`;
    this.inbox = this.newInbox();
    nc.subscribe(`${this.inbox}.*`, { callback: (_, message) => this.onAnswer(message) });
    this.batches = new Batches(nc, this.newInbox(), this.send);
    this.checker = setInterval(() => this.check(), BUSY);
    void this.watch();
  }

  apiSubject = (operation: string): string => this.api_ + operation;
  newInbox = (): string => createInbox(this.inboxPrefix);
  get maxPayload(): number {
    return this.nc.info?.max_payload ?? 1024 * 1024;
  }

  /** Call back whenever the connection is there again. Returns how to stop that. */
  onReconnect(callback: () => void): () => void {
    this.onBack.add(callback);
    return () => this.onBack.delete(callback);
  }

  async close(): Promise<void> {
    clearInterval(this.checker);
    this.flush();
    await this.nc.drain().catch(() => undefined);
    for (const one of this.pending.values()) one.reject(new BrokerTimeout(`not acknowledged before the end: ${one.subject}`));
  }

  private async watch(): Promise<void> {
    for await (const status of this.nc.status()) {
      if (status.type === "disconnect") this.isConnected = false;
      else if (status.type === "reconnect") {
        this.isConnected = true;
        this.batches.giveUp();
        for (const [token, one] of this.pending) this.sendAs(token, one);
        for (const callback of this.onBack) callback();
      } else if (status.type === "error") {
        const denied = /Permissions Violation for (?:Publish|Subscription) to "([^"]+)"/i.exec(status.error.message)?.[1];
        this.log.warn(`jetflow: ${status.error.message}`);
        for (const [token, one] of this.pending) {
          if (denied !== undefined && one.subject.toLowerCase() === denied.toLowerCase()) {
            this.pending.delete(token);
            one.reject(new PermissionDenied(`this user may not publish on ${one.subject}`));
          }
        }
      }
    }
  }

  // --- publishing

  /** Publish, and tell what became of it. It is tried until the server has said so. */
  publish(subject: string, body: string | Uint8Array = EMPTY, headers?: Readonly<Record<string, string>>): Promise<Receipt> {
    return new Promise((resolve, reject) => {
      const item: Pending = {
        subject, body: typeof body === "string" ? bytesOf(body) : body, headers: headers && headerBlock(headers), resolve, reject, at: 0,
      };
      const size = item.body.length + (item.headers?.length ?? 0);
      const stream = subject.startsWith(`${this.names.jf}.`) ? streamOf(subject.split(".", 3)[2]!) : undefined;
      if (size > this.maxPayload) reject(new PayloadTooLarge(`the message on ${subject} has ${size} bytes, and the server takes ${this.maxPayload}`));
      else if (this.nc.isClosed()) reject(new BrokerTimeout(`the connection is closed: ${subject}`));
      else if (stream === undefined) this.sendNew(item);
      else {
        const queue = this.queues.get(stream);
        if (queue === undefined) this.queues.set(stream, [item]);
        else queue.push(item);
        this.schedule();
      }
    });
  }

  /** Publish a write-once message; return what stands there instead, if its subject was taken. */
  async store(stream: string, subject: string, body?: string | Uint8Array, headers?: Readonly<Record<string, string>>): Promise<Stored | null> {
    for (;;) {
      const { taken } = await this.publish(subject, body, headers);
      if (!taken) return null;
      const found = await this.last(stream, subject);
      if (found !== null) return found;
      await sleep(50); // it was refused for the sake of one that is not there
    }
  }

  /** Publish, and do not wait for an answer. What is sent in one turn of the event loop leaves with one write. */
  send = (subject: string, body: string | Uint8Array, reply?: string, headers?: Uint8Array): void => {
    this.outgoing.push([subject, body, reply, headers]);
    this.schedule();
  };

  /**
   * Add to a counter, and return its new value. Of those whose increments left as one, one is told a value that asks
   * for a look, and the others undefined; at a gate each is to know its own, so there none are merged.
   */
  async count(subject: string, by: number, alone = false): Promise<number | undefined> {
    const { value } = await new Promise<Receipt>((resolve, reject) => {
      if (alone) {
        this.sendNew({ subject, body: EMPTY, headers: headerBlock({ "Nats-Incr": `+${by}` }), resolve, reject, at: 0 });
        return;
      }
      const merged = this.counts.get(subject) ?? { by: 0, waiting: [] };
      merged.by += by;
      merged.waiting.push({ subject, body: EMPTY, headers: undefined, resolve, reject, at: 0 });
      this.counts.set(subject, merged);
      this.schedule();
    });
    return value;
  }

  /** Wait until the server has got all that was sent. */
  async flushed(): Promise<void> {
    this.flush();
    if (!this.nc.isClosed()) await this.nc.flush().catch(() => undefined);
  }

  private schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    setImmediate(() => this.flush());
  }

  private flush(): void {
    for (const [subject, { by, waiting }] of this.counts) {
      const resolve = (receipt: Receipt) =>
        waiting.forEach((one, at) => one.resolve(at > 0 && (receipt.value ?? SEAL) >= SEAL ? { taken: false } : receipt));
      const reject = (error: Error) => waiting.forEach((one) => one.reject(error));
      this.sendNew({ subject, body: EMPTY, headers: headerBlock({ "Nats-Incr": `+${by}` }), resolve, reject, at: 0 });
    }
    this.counts.clear();
    for (const [stream, queue] of this.queues) {
      this.queues.delete(stream);
      if (queue.length < WORTH_A_BATCH) queue.forEach((one) => this.sendNew(one));
      else if (this.underWay < UNDER_WAY) this.sendBatch(stream, queue);
      else this.queues.set(stream, queue);
    }
    this.scheduled = false;
    const { outgoing, nc } = this;
    this.outgoing = [];
    for (const [subject, body, reply, headers] of outgoing) {
      try {
        sendOn(nc, subject, body, reply, headers);
      } catch (error) {
        this.log.error(`jetflow: not sent on ${subject}: ${String(error)}`);
      }
    }
  }

  private sendBatch(stream: string, queue: Pending[]): void {
    let [count, size] = [0, 0];
    while (count < queue.length && count < LARGEST && size < 2 ** 21) size += queue[count++]!.body.length;
    const items = queue.splice(0, count);
    if (queue.length > 0) this.queues.set(stream, queue);
    this.underWay++;
    void this.batches.publish(items).then((again) => {
      this.underWay--;
      // What was there already, or not taken, is published again alone: that finds out about each.
      items.forEach((one, at) => (again === "all" || again.has(at) ? this.sendNew(one) : one.resolve({ taken: false })));
      this.schedule();
    });
    if (queue.length > 0) this.schedule();
  }

  private sendNew(one: Pending): void {
    this.pending.set(++this.next, one);
    this.sendAs(this.next, one);
  }

  private sendAs(token: number, one: Pending): void {
    one.at = performance.now();
    this.send(one.subject, one.body, `${this.inbox}.${token}`, one.headers);
  }

  private onAnswer(message: Msg): void {
    const token = Number(message.subject.slice(message.subject.lastIndexOf(".") + 1));
    const one = this.pending.get(token);
    if (one === undefined) return;
    const answer = message.data.length === 0 ? { error: { code: 503, err_code: 0, description: "no stream answers" } } : message.json<Answer>();
    const means = answer.error === undefined ? "stored" : refusal(answer.error);
    if (means === "passing") {
      one.at = performance.now() + BUSY - RESEND_AFTER;
      return;
    }
    this.pending.delete(token);
    const value = answer.error === undefined && answer.val !== undefined ? { value: Number(answer.val) } : {};
    if (means === "final") one.reject(new BrokerRefused(`${one.subject}: ${answer.error!.description}`, answer.error!.err_code));
    else one.resolve({ taken: means === "taken", ...value });
  }

  private check(): void {
    if (!this.isConnected) return; // what has not left yet is not sent again
    const late = performance.now() - RESEND_AFTER;
    for (const [token, one] of this.pending) if (one.at <= late) this.sendAs(token, one);
  }

  // --- reading

  /** Ask the JetStream API. Throws BrokerRefused, BrokerTimeout. */
  async api<T = Record<string, unknown>>(operation: string, request: unknown = {}): Promise<T> {
    let until = performance.now() + API_TIMEOUT;
    for (;;) {
      while (!this.isConnected && !this.nc.isClosed()) {
        await sleep(BUSY); // an outage is waited through
        until = performance.now() + API_TIMEOUT;
      }
      let answer: T & Answer;
      try {
        answer = (await this.nc.request(this.api_ + operation, JSON.stringify(request), { timeout: RESEND_AFTER })).json();
      } catch (error) {
        if (this.nc.isClosed() || performance.now() > until) throw new BrokerTimeout(`no answer to ${operation}: ${String(error)}`);
        await sleep(BUSY);
        continue;
      }
      if (answer.error === undefined) return answer;
      if (refusal(answer.error) !== "passing" || performance.now() > until) throw new BrokerRefused(`${operation}: ${answer.error.description}`, answer.error.err_code);
      await sleep(BUSY);
    }
  }

  /** Return the newest message on a subject, which may have wildcards, as the leader has it. */
  async last(stream: string, subject: string): Promise<Stored | null> {
    try {
      const { message } = await this.api<{ message: { subject: string; seq: number; hdrs?: string; data?: string; time: string } }>(
        `STREAM.MSG.GET.${stream}`, { last_by_subj: subject },
      );
      const { seq, hdrs = "", data = "", time } = message;
      return { subject: message.subject, seq, headers: headersOf(Buffer.from(hdrs, "base64").toString()), body: Buffer.from(data, "base64"), time: Date.parse(time) / 1000 };
    } catch (error) {
      if (error instanceof BrokerRefused && error.code === NOT_FOUND) return null;
      throw error;
    }
  }

  /** Return the subjects of a filter that hold a message, as the leader has them; some may be there twice. */
  async subjects(stream: string, filter: string): Promise<string[]> {
    const found: string[] = [];
    for (let offset = 0; ; ) {
      const page = await this.api<{ total?: number; state: { subjects?: Record<string, number> } }>(`STREAM.INFO.${stream}`, { subjects_filter: filter, offset });
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
      this.nc.publish(`${this.api_}DIRECT.GET.${stream}`, JSON.stringify(request), { reply: inbox });
      const left = await ended;
      clearTimeout(timer);
      forget();
      listening.unsubscribe();
      if (left >= 0) return { page, left };
      if (tries === 5 || this.nc.isClosed()) throw new BrokerTimeout(`no answer to a read of ${stream}`);
      await sleep(BUSY);
    }
  }

  /** Remove all messages of some filters. */
  async purge(stream: string, filters: Iterable<string>): Promise<void> {
    for (const filter of filters) await this.api(`STREAM.PURGE.${stream}`, { filter });
  }
}

function streamOf(kind: string): string | undefined {
  return kind === "task" || kind === "cancel" ? "tasks" : ["run", "step", "join", "mark", "try", "once"].includes(kind) ? "records" : undefined;
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
