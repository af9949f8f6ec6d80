/**
 * Fast ingest (ADR-50): many messages of one stream with one acknowledgement.
 *
 * A batch that is lost, or of which anything but a taken subject is said, is given up: its messages are then published
 * one by one, and what was stored of it is found to be there.
 */

import type { Msg, NatsConnection } from "@nats-io/nats-core";

import { refusal, type Refused } from "./answers.js";

/** One message to publish, its headers encoded. */
export interface Item {
  readonly subject: string;
  readonly body: Uint8Array;
  readonly headers: Uint8Array | undefined;
}

/** Messages in one batch, at most. */
export const LARGEST = 500;
const GIVE_UP_AFTER = 5000;
const [START, APPEND, COMMIT] = [0, 1, 2];

interface Open {
  readonly taken: Set<number>;
  readonly done: (again: Set<number> | "all") => void;
}

interface Answer {
  readonly type?: string;
  readonly seq?: number;
  readonly batch?: string;
  readonly error?: Refused;
}

type Send = (subject: string, body: Uint8Array, reply: string, headers: Uint8Array | undefined) => void;

/** Publishes batches on one connection. */
export class Batches {
  private readonly open = new Map<number, Open>();
  private readonly tokens: number;
  private readonly name: string;
  private next = 0;

  constructor(nc: NatsConnection, private readonly inbox: string, private readonly send: Send) {
    this.tokens = inbox.split(".").length;
    this.name = inbox.slice(inbox.lastIndexOf(".") + 1);
    nc.subscribe(`${inbox}.>`, { callback: (_, message) => this.onAnswer(message) });
  }

  /** Publish, and return which messages have to be published again: their places, or all of them. */
  publish(items: readonly Item[]): Promise<Set<number> | "all"> {
    const number = ++this.next;
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.open.get(number)?.done("all"), GIVE_UP_AFTER);
      const done = (again: Set<number> | "all") => {
        clearTimeout(timer);
        this.open.delete(number);
        resolve(again);
      };
      this.open.set(number, { taken: new Set(), done });
      // The server knows a batch by this one token, whoever sends it.
      const reply = `${this.inbox}.${this.name}-${number}.${LARGEST}.ok.`;
      items.forEach((item, at) => {
        const operation = at === items.length - 1 ? COMMIT : at === 0 ? START : APPEND;
        this.send(item.subject, item.body, `${reply}${at + 1}.${operation}.$FI`, item.headers);
      });
    });
  }

  /** Give up all batches: the connection was lost. */
  giveUp(): void {
    for (const one of [...this.open.values()]) one.done("all");
  }

  private onAnswer(message: Msg): void {
    const token = message.subject.split(".")[this.tokens] ?? "";
    const batch = this.open.get(Number(token.slice(token.lastIndexOf("-") + 1)));
    if (batch === undefined) return;
    const answer: Answer = message.data.length === 0 ? { type: "gap" } : message.json<Answer>();
    if (answer.type === "err" && answer.error !== undefined && answer.seq !== undefined) {
      batch.taken.add(answer.seq - 1);
      if (refusal(answer.error) !== "taken") batch.done("all");
    } else if (answer.type === "gap" || answer.error !== undefined) batch.done("all");
    else if (answer.batch !== undefined && answer.type === undefined) batch.done(batch.taken);
  }
}
