/**
 * The broker as the rules see it: publishing until it is known what became of a message, counting, and reading.
 *
 * Every message is write-once by its subject, or a counter that may be counted twice, so sending again is always right.
 * Write-once messages of one stream that are ready in the same turn of the event loop leave as one batch, and what is
 * added to one counter leaves as one increment.
 */

import type { Msg, NatsConnection } from "@nats-io/nats-core";

import { refusal, sendOn, type Refused } from "./answers.js";
import { Batches, LARGEST, type Item } from "./batches.js";
import { BrokerRefused, BrokerTimeout, PayloadTooLarge, PermissionDenied } from "./errors.js";
import { BUSY, Reader, RESEND_AFTER, sleep, type Logger, type Stored } from "./reading.js";
import { headerBlock, SEAL, type Names } from "./wire.js";

/** What became of a publish: `taken` if its subject held a message already. */
export interface Receipt {
  readonly taken: boolean;
  readonly value?: number;
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

const UNDER_WAY = 8;
const WORTH_A_BATCH = 3;
export const EMPTY = new Uint8Array();
const encoder = new TextEncoder();
const decoder = new TextDecoder();

export const bytesOf = (text: string): Uint8Array => encoder.encode(text);
export const textOf = (body: Uint8Array): string => decoder.decode(body);

/** One connection to one namespace. */
export class Broker extends Reader {
  private readonly inbox: string;
  private readonly pending = new Map<number, Pending>();
  private readonly batches: Batches;
  private readonly queues = new Map<string, Pending[]>();
  private readonly counts = new Map<string, { by: number; waiting: Pick<Pending, "resolve" | "reject">[] }>();
  private readonly checker: NodeJS.Timeout;
  private outgoing: [string, string | Uint8Array, string | undefined, Uint8Array | undefined][] = [];
  private scheduled = false;
  private underWay = 0;
  private next = 0;

  constructor(nc: NatsConnection, names: Names, log: Logger, domain?: string, inboxPrefix?: string) {
    super(nc, names, log, domain, inboxPrefix);
    this.inbox = this.newInbox();
    nc.subscribe(`${this.inbox}.*`, { callback: (_, message) => this.onAnswer(message) });
    this.batches = new Batches(nc, this.newInbox(), this.send);
    this.checker = setInterval(() => this.check(), BUSY);
    void this.watch();
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
  store(stream: string, subject: string, body?: string | Uint8Array, headers?: Readonly<Record<string, string>>): Promise<Stored | null> {
    return this.publish(subject, body, headers).then(async ({ taken }) => {
      if (!taken) return null;
      const found = await this.last(stream, subject);
      if (found !== null) return found;
      await sleep(50); // it was refused for the sake of one that is not there
      return this.store(stream, subject, body, headers);
    });
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
  count(subject: string, by: number, alone = false): Promise<number | undefined> {
    return new Promise((done, reject) => {
      const resolve = ({ value }: Receipt) => done(value);
      const merged = alone ? undefined : this.counts.get(subject);
      if (alone) this.sendNew({ subject, body: EMPTY, headers: headerBlock({ "Nats-Incr": `+${by}` }), resolve, reject, at: 0 });
      else if (merged === undefined) this.counts.set(subject, { by, waiting: [{ resolve, reject }] });
      else {
        merged.by += by;
        merged.waiting.push({ resolve, reject });
      }
      this.schedule();
    });
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
}

function streamOf(kind: string): string | undefined {
  return kind === "task" || kind === "cancel" ? "tasks" : ["run", "step", "join", "mark", "try", "once"].includes(kind) ? "records" : undefined;
}
