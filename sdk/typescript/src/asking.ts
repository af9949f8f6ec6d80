/** Answering whoever asks what a worker does: docs/wire.md, Asking workers. It costs nothing while nobody does. */

import { hostname } from "node:os";

import type { Msg } from "@nats-io/nats-core";

import type { Broker } from "./broker.js";
import type { Execution } from "./execution.js";
import { lastToken } from "./looks.js";

/** What a worker can tell of itself. */
export interface Asked {
  readonly name: string;
  readonly slots: number;
  readonly used: number;
  readonly waiting: number;
  readonly isStopping: boolean;
  readonly workflows: ReadonlyMap<string, unknown>;
  /** The steps that are under way, the oldest first. */
  executions(): Execution[];
}

const SHOWN = 200;

/** Begin to answer. Returns how to stop. */
export function answerQuestions(broker: Broker, worker: Asked): () => void {
  const started = Date.now() / 1000;
  const row = ({ task, attempt, started, holdsSlot }: Execution) => ({
    run: task.run, root: task.root, workflow: task.workflow, step: task.step, worker: worker.name, attempt, turn: task.turn, started,
    state: holdsSlot ? "running" : "waiting",
  });
  const self = () => ({
    name: worker.name, host: hostname(), pid: process.pid, started, workflows: [...worker.workflows.keys()].sort(), slots: worker.slots,
    used: worker.used, waiting: worker.waiting, leaving: worker.isStopping, running: worker.executions().slice(-SHOWN).map(row),
  });
  const stepsOf = (run: string) => {
    const rows = worker.executions().filter(({ task }) => task.run === run).slice(-SHOWN).map(row);
    return rows.length === 0 ? undefined : rows; // who holds no step of the run keeps silent
  };
  const answer = (subject: string, make: (message: Msg) => object | undefined) => broker.nc.subscribe(`${broker.names.jf}.ask.${subject}`, {
    callback: (_, message) => {
      const answer = message.reply ? make(message) : undefined;
      if (answer !== undefined) broker.send(message.reply!, JSON.stringify(answer));
    },
  });
  const listening = [answer("workers", self), answer("run.*", (message) => stepsOf(lastToken(message.subject)))];
  return () => listening.forEach((one) => one.unsubscribe());
}
