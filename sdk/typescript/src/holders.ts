/** Whether another worker runs a task that was delivered again: asked for before it is begun beside that one. */

import type { Broker } from "./broker.js";
import { textOf } from "./broker.js";

const ANSWER_WITHIN = 500;
const GATHERED_FOR = 10;
const LARGEST = 200;

/** Asks, and answers. `name` is what this worker is called there: no other has it. */
export class Holders {
  readonly name = crypto.randomUUID().replaceAll("-", "").slice(0, 16);
  private readonly gathering = new Map<string, Map<string, (isHeld: boolean) => void>>();

  constructor(private readonly broker: Broker) {}

  /** Begin to answer those who ask whether anybody runs a workflow, or a task. Returns how to stop. */
  answer(workflows: { has(name: string): boolean }, holds: (subject: string, asker: string) => boolean, isLeaving: () => boolean): () => void {
    const { names, nc } = this.broker;
    const subscription = nc.subscribe(`${names.jf}.who.*`, {
      callback: (_, message) => {
        const [asker = "", ...tasks] = textOf(message.data).split("\n");
        if (!message.reply || !workflows.has(message.subject.slice(names.jf.length + 5)) || asker === this.name) return;
        if (asker !== "") this.broker.send(message.reply, [this.name, ...tasks.filter((one) => holds(one, asker))].join("\n"));
        else if (!isLeaving()) this.broker.send(message.reply, this.name);
      },
    });
    return () => subscription.unsubscribe();
  }

  /** Tell whether another worker runs the task on a subject. What is asked within a moment is one question. */
  async isHeld(workflow: string, subject: string): Promise<boolean> {
    let gathered = this.gathering.get(workflow);
    if (gathered === undefined || gathered.size >= LARGEST) {
      const asked = (gathered = new Map<string, (isHeld: boolean) => void>());
      this.gathering.set(workflow, asked);
      setTimeout(() => this.ask(workflow, asked), GATHERED_FOR);
    }
    return new Promise((resolve) => gathered.set(subject, resolve));
  }

  private ask(workflow: string, asked: Map<string, (isHeld: boolean) => void>): void {
    if (this.gathering.get(workflow) === asked) this.gathering.delete(workflow);
    const { broker } = this;
    const inbox = broker.newInbox();
    const settle = (subject: string, isHeld: boolean) => {
      asked.get(subject)?.(isHeld);
      asked.delete(subject);
    };
    const subscription = broker.nc.subscribe(inbox, {
      callback: (_, message) => {
        for (const subject of textOf(message.data).split("\n").slice(1)) settle(subject, true);
      },
    });
    const body = [this.name, ...asked.keys()].join("\n");
    broker.send(`${broker.names.jf}.who.${workflow}`, body, inbox);
    setTimeout(() => {
      subscription.unsubscribe();
      for (const subject of [...asked.keys()]) settle(subject, false);
    }, ANSWER_WITHIN);
  }
}
