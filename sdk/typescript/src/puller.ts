/** Pulling from one step's consumer: never for more than is wanted, and again where a request was lost. */

import type { Msg } from "@nats-io/nats-core";

import type { Broker } from "./broker.js";
import type { Consumer } from "./topology.js";

const EXPIRES = 30;
const HEARTBEAT = 5;
const RETRY_AFTER = 1000;

/** Asks for tasks. Nothing is asked for before `want`. */
export class Puller {
  lastDelivery = -Infinity;
  private readonly inbox: string;
  private readonly pulls = new Map<string, number>();
  private readonly subscription;
  private readonly watch: NodeJS.Timeout;
  private asked = 0;
  private wanted = 0;
  private next = 0;
  private heard = 0;
  private pausedUntil = 0;
  private isStopped = false;

  constructor(
    private readonly broker: Broker, private consumer: Consumer,
    private readonly deliver: (message: Msg, consumer: Consumer) => void, private readonly remake: (consumer: Consumer) => Promise<Consumer>,
  ) {
    this.inbox = broker.newInbox();
    this.subscription = broker.nc.subscribe(`${this.inbox}.*`, { callback: (_, message) => this.onMessage(message) });
    this.watch = setInterval(() => this.check(), 1000);
  }

  /** Keep about so many tasks asked for: again when half has come. */
  want(count: number): void {
    this.wanted = count;
    if (count <= 0 || this.asked > count / 2 || this.isStopped || performance.now() < this.pausedUntil) return;
    const batch = Math.min(count - this.asked, 1000);
    const token = String(++this.next);
    this.pulls.set(token, batch);
    this.asked += batch;
    this.heard = performance.now();
    const { broker, consumer } = this;
    const request = JSON.stringify({ batch, expires: EXPIRES * 1e9, idle_heartbeat: HEARTBEAT * 1e9, max_bytes: 0 });
    const operation = `CONSUMER.MSG.NEXT.${broker.namespace.called("tasks")}.${consumer.name}`;
    broker.send(broker.apiSubject(operation), request, `${this.inbox}.${token}`);
  }

  /** Ask anew: what was asked for is lost. */
  beginAgain(): void {
    this.pulls.clear();
    this.asked = 0;
    this.want(this.wanted);
  }

  /** Ask for nothing more. What is on its way is delivered before this returns. */
  async stop(): Promise<void> {
    this.isStopped = true;
    clearInterval(this.watch);
    if (!this.broker.nc.isClosed()) await this.subscription.drain().catch(() => undefined);
  }

  private onMessage(message: Msg): void {
    this.heard = performance.now();
    if (!message.reply?.startsWith("$JS.ACK.")) {
      this.onStatus(message);
      return;
    }
    const [token, left] = this.pulls.entries().next().value ?? ["", 0];
    if (left > 0) this.asked--;
    if (left > 1) this.pulls.set(token, left - 1);
    else this.pulls.delete(token);
    this.lastDelivery = this.heard;
    try {
      this.deliver(message, this.consumer);
    } catch (error) {
      this.broker.log.error(`jetflow: a message on ${message.subject}: ${String(error)}`);
    }
  }

  private onStatus(message: Msg): void {
    const code = message.headers?.code ?? 503;
    if (code === 100) return;
    const token = message.subject.slice(this.inbox.length + 1);
    this.asked -= this.pulls.get(token) ?? 0;
    this.pulls.delete(token);
    const description = message.headers?.description ?? "";
    if (code === 404 || code === 408 || (code === 409 && !/deleted|exceeded/i.test(description))) {
      this.want(this.wanted);
      return;
    }
    this.pausedUntil = performance.now() + RETRY_AFTER;
    if (code !== 503 && !/deleted/i.test(description)) return;
    this.broker.inBackground(`consumer ${this.consumer.name}`, this.remake(this.consumer).then((consumer) => (this.consumer = consumer)));
  }

  private check(): void {
    if (this.pulls.size > 0 && performance.now() - this.heard > 2500 * HEARTBEAT) this.beginAgain();
    else this.want(this.wanted);
  }
}
