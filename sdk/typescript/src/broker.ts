/**
 * The broker as the rules see it: publishing until it is known what became of a message, counting, and reading.
 *
 * Every message is write-once by its subject, or a counter that may be counted twice, so sending again is always right.
 * Write-once messages of one stream that are ready in the same turn of the event loop leave as one batch, and what is
 * added to one counter leaves as one increment.
 */

import { Empty, PermissionViolationError, type Msg, type NatsConnection } from "@nats-io/nats-core";

import { refusal, type Refused } from "./answers.js";
import { Batches, LARGEST, type Item } from "./batches.js";
import { BrokerRefused, BrokerTimeout, PayloadTooLarge } from "./errors.js";
import { BUSY, denied, Reader, RESEND_AFTER, sleep, type Logger, type Stored } from "./reading.js";
import { SEAL, type Namespace } from "./wire.js";

/** What became of a publish: `taken` if its subject held a message already. */
export interface Receipt {
  readonly taken: boolean;
  readonly value?: number;
}

interface Pending extends Item {
  readonly resolve: (receipt: Receipt) => void;
  readonly reject: (error: Error) => void;
  at: number;
}

interface Counting {
  by: number;
  readonly value: Promise<number | undefined>;
}

type Body = string | Uint8Array;
type Headers = Readonly<Record<string, string>>;

const UNDER_WAY = 8;
const WORTH_A_BATCH = 3;
const EXPECTED = "Nats-Expected-Last-Subject-Sequence";
const NOBODY: Refused = { code: 503, err_code: 0, description: "no stream answers" };
const encoder = new TextEncoder();
const decoder = new TextDecoder();

export const bytesOf = (text: string): Uint8Array => encoder.encode(text);
export const textOf = (body: Uint8Array): string => decoder.decode(body);
const endOfTurn = (): Promise<void> => new Promise((done) => setImmediate(done));

/** Return headers as they go over the wire. */
function headerBlock(headers: Headers): Uint8Array {
  let text = "NATS/1.0\r\n";
  for (const name in headers) text += `${name}: ${headers[name]!.replaceAll(/[\r\n]/g, " ")}\r\n`;
  return bytesOf(`${text}\r\n`);
}

/** One connection to one namespace. */
export class Broker extends Reader {
  private readonly inbox: string;
  private readonly pending = new Map<number, Pending>();
  private readonly batches: Batches;
  /** What waits for the end of the turn, of each stream that takes batches. */
  private readonly queues: ReadonlyMap<string, Pending[]>;
  private readonly counts = new Map<string, Counting>();
  private readonly checker: NodeJS.Timeout;
  private outgoing: [subject: string, body: Body, options: object][] = [];
  private scheduled = false;
  private underWay = 0;
  private next = 0;

  constructor(nc: NatsConnection, namespace: Namespace, log: Logger, domain?: string, inboxPrefix?: string) {
    super(nc, namespace, log, domain, inboxPrefix);
    this.inbox = this.newInbox();
    this.queues = new Map(["tasks", "records"].map((stream) => [namespace.called(stream), []]));
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
        this.log.warn(`jetflow: ${status.error.message}`);
        if (!(status.error instanceof PermissionViolationError)) continue;
        const subject = status.error.subject.toLowerCase();
        for (const [token, one] of this.pending) {
          if (one.subject.toLowerCase() !== subject) continue;
          this.pending.delete(token);
          one.reject(denied(one.subject));
        }
      }
    }
  }

  // --- publishing

  /** Publish, and tell what became of it. It is tried until the server has said so. */
  publish(subject: string, body: Body = Empty, headers?: Headers): Promise<Receipt> {
    return new Promise((resolve, reject) => {
      const item: Pending = {
        subject: this.namespace.absolute(subject), body: typeof body === "string" ? bytesOf(body) : body,
        headers: headers && headerBlock(headers), resolve, reject, at: 0,
      };
      const size = item.body.length + (item.headers?.length ?? 0);
      const queue = this.queues.get(this.namespace.stream(subject));
      if (size > this.maxPayload) reject(new PayloadTooLarge(`the message on ${subject} has ${size} bytes, and the server takes ${this.maxPayload}`));
      else if (this.nc.isClosed()) reject(new BrokerTimeout(`the connection is closed: ${subject}`));
      else if (queue === undefined || (headers && EXPECTED in headers)) this.sendNew(item);
      else {
        queue.push(item);
        this.schedule();
      }
    });
  }

  /** Publish a write-once message; return what stands there, or at a filter, instead if its subject was taken. */
  async store(subject: string, body?: Body, headers?: Headers, filter = subject): Promise<Stored | null> {
    if (filter !== subject) headers = { ...headers, [EXPECTED]: "0", [`${EXPECTED}-Subject`]: this.namespace.absolute(filter) };
    while ((await this.publish(subject, body, headers)).taken) {
      const found = await this.last(filter);
      if (found !== null) return found;
      await sleep(50); // it was refused for the sake of one that is not there
    }
    return null;
  }

  /** Publish on a subject of the wire, and wait for no answer. What is sent in one turn of the event loop leaves with one write. */
  send = (subject: string, body: Body, reply?: string, headers?: Uint8Array): void => {
    this.outgoing.push([subject, body, { reply, headers: headers && { encode: () => headers } }]);
    this.schedule();
  };

  /**
   * Add to a counter, and return its new value. Of those whose increments left as one, one is told a value that asks
   * for a look, and the others undefined; at a gate each is to know its own, so there none are merged.
   */
  count(subject: string, by: number, alone = false): Promise<number | undefined> {
    if (alone) return this.add(subject, by);
    const open = this.counts.get(subject);
    if (open !== undefined) {
      open.by += by;
      return open.value.then((value) => ((value ?? SEAL) >= SEAL ? undefined : value));
    }
    const value = endOfTurn().then(() => {
      this.counts.delete(subject);
      return this.add(subject, counting.by);
    });
    const counting: Counting = { by, value };
    this.counts.set(subject, counting);
    return value;
  }

  private add = (subject: string, by: number): Promise<number | undefined> =>
    this.publish(subject, Empty, { "Nats-Incr": `+${by}` }).then(({ value }) => value);

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
    for (const queue of this.queues.values()) {
      while (queue.length >= WORTH_A_BATCH && this.underWay < UNDER_WAY) this.sendBatch(queue);
      if (queue.length < WORTH_A_BATCH) queue.splice(0).forEach((one) => this.sendNew(one));
    }
    this.scheduled = false;
    const { outgoing } = this;
    this.outgoing = [];
    for (const [subject, body, options] of outgoing) {
      try {
        if (!this.nc.isClosed()) this.nc.publish(subject, body, options);
      } catch (error) {
        this.log.error(`jetflow: not sent on ${subject}: ${String(error)}`);
      }
    }
  }

  private sendBatch(queue: Pending[]): void {
    let [count, size] = [0, 0];
    while (count < queue.length && count < LARGEST && size < 2 ** 21) size += queue[count++]!.body.length;
    const items = queue.splice(0, count);
    this.underWay++;
    void this.batches.publish(items).then((again) => {
      this.underWay--;
      // What was there already, or not taken, is published again alone: that finds out about each.
      items.forEach((one, at) => (again === "all" || again.has(at) ? this.sendNew(one) : one.resolve({ taken: false })));
      this.schedule();
    });
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
    const { error, val } = message.data.length === 0 ? { error: NOBODY } : message.json<{ readonly error?: Refused; readonly val?: string }>();
    const means = error && refusal(error);
    if (means === "passing") {
      one.at = performance.now() + BUSY - RESEND_AFTER;
      return;
    }
    this.pending.delete(token);
    if (means === "final") one.reject(new BrokerRefused(`${one.subject}: ${error!.description}`, error!.err_code));
    else one.resolve({ taken: means === "taken", ...(val !== undefined && { value: Number(val) }) });
  }

  private check(): void {
    if (!this.isConnected) return; // what has not left yet is not sent again
    const late = performance.now() - RESEND_AFTER;
    for (const [token, one] of this.pending) if (one.at <= late) this.sendAs(token, one);
  }
}
