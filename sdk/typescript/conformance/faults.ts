/** Faults for the suite to catch: the kit with one rule broken, as an implementation might well break it. */

import { Broker } from "../src/broker.js";
import { type Stored } from "../src/reading.js";
import { Execution } from "../src/execution.js";
import { Marks } from "../src/marks.js";
import { Rules } from "../src/rules.js";
import type { Graph } from "../src/graph.js";
import { Runner, type Delivery } from "../src/runner.js";
import { Spawner } from "../src/spawning.js";
import { Worker } from "../src/worker.js";

/** One planted fault, and the cases that must catch it. */
export interface Fault {
  readonly about: string;
  readonly caughtBy: readonly string[];
  readonly plant: () => void;
}

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- a fault reaches into what is private
type Method = (this: any, ...given: any[]) => any;

/** Put something wrong in the place of a method. */
function put(owner: { readonly prototype: object }, name: string, wrong: (right: Method) => Method): void {
  const methods = owner.prototype as Record<string, Method>;
  if (typeof methods[name] !== "function") throw new Error(`there is no method ${name} to break`);
  methods[name] = wrong(methods[name]);
}

const nothing: Method = () => Promise.resolve();

export const FAULTS: Readonly<Record<string, Fault>> = {
  "mark-after-outcome": {
    about: "The mark stands behind the outcome: a join in between takes the child for a success.",
    caughtBy: ["W11", "W19"],
    plant: () => {
      let mark: (() => Promise<unknown>) | undefined;
      put(Broker, "store", (right) => async function (subject: string, ...more: unknown[]) {
        if (subject.startsWith("mark.")) {
          mark = () => right.call(this, subject, ...more) as Promise<unknown>;
          return null;
        }
        const stored = (await right.call(this, subject, ...more)) as Stored | null;
        if (subject.startsWith("run.")) await mark?.();
        return stored;
      });
    },
  },
  "no-mark": {
    about: "A run that failed stores no mark.",
    caughtBy: ["F01", "P06"],
    plant: () => put(Broker, "store", (right) => function (subject: string, ...more: unknown[]): unknown {
      return subject.startsWith("mark.") ? Promise.resolve(null) : right.call(this, subject, ...more);
    }),
  },
  "count-before-outcome": {
    about: "A child is counted before its outcome is stored.",
    caughtBy: ["W10"],
    plant: () => put(Broker, "store", (right) => async function (this: Broker, subject: string, ...more: unknown[]) {
      const [kind, root, parent, step] = subject.split(".");
      if (kind === "run" && parent !== "-") await this.count(`counters.join.${root}.${parent}.${step}`, 1);
      return (await right.call(this, subject, ...more)) as unknown;
    }),
  },
  "no-look": {
    about: "Nobody looks at a join, whatever its counter says.",
    caughtBy: ["J01", "J02", "J03"],
    plant: () => put(Rules, "settle", () => nothing),
  },
  "taken-is-stored": {
    about: "A subject that was taken is not read: what was lost meanwhile is not published again.",
    caughtBy: ["W29"],
    plant: () => put(Broker, "store", () => async function (this: Broker, ...given: Parameters<Broker["publish"]>) {
      const { taken } = await this.publish(...given);
      return taken ? ((await this.last(given[0])) ?? { subject: "", seq: 0, headers: new Map(), body: Buffer.from("{}"), time: 0 }) : null;
    }),
  },
  "beside-uncompared": {
    about: "The outcome of a child that steps share is compared with that under its own step alone.",
    caughtBy: ["J19"],
    plant: () => put(Broker, "store", (right) => function (subject: string, body: unknown, headers: unknown): unknown {
      return right.call(this, subject, body, headers);
    }),
  },
  "handing-back-counts": {
    about: "A delivery that was handed back counts as an attempt.",
    caughtBy: ["W16"],
    plant: () => put(Runner, "tried", (right) => async function (...given: unknown[]) {
      const found = (await right.apply(this, given)) as Map<string, object>;
      return new Map([...found].map(([token, one]) => [token, { ...one, returned: false }]));
    }),
  },
  "begun-unrecorded": {
    about: "That the body of a redelivery begins is not recorded: a task that ends its workers goes on for ever.",
    caughtBy: ["P09d"],
    plant: () => put(Runner, "store", (right) => function (task: unknown, token: string, ...more: unknown[]): unknown {
      return token.startsWith("begun-") ? Promise.resolve() : right.call(this, task, token, ...more);
    }),
  },
  "no-heartbeat": {
    about: "A task that runs long is not kept alive.",
    caughtBy: ["W18", "W24"],
    plant: () => put(Worker, "beat", () => () => undefined),
  },
  "deadline-unread": {
    about: "A task whose deadline has passed is run.",
    caughtBy: ["W19"],
    plant: () => put(Runner, "tooLate", () => () => undefined),
  },
  "alone-covers": {
    about: "A mark that says \"alone\" cancels what the run has spawned.",
    caughtBy: ["C02"],
    plant: () => put(Marks, "of", (right) => function (run: string): unknown {
      const body = right.call(this, run) as string | undefined;
      return body === '"alone"' ? "" : body;
    }),
  },
  "marks-unread": {
    about: "Marks are heard, and not heeded.",
    caughtBy: ["C01", "C04", "C07"],
    plant: () => put(Marks, "covers", () => () => false),
  },
  "no-members": {
    about: "A later attempt seals without naming its children: those of the one before count.",
    caughtBy: ["P03", "P07"],
    plant: () => put(Execution, "record", (right) => function (kind: string, of: object): unknown {
      return { ...(right.call(this, kind, of) as object), members: null };
    }),
  },
  "no-total": {
    about: "A record does not say over how many children its policy decides: one that failed counts as ended.",
    caughtBy: ["P06"],
    plant: () => put(Execution, "record", (right) => function (kind: string, of: object): unknown {
      return { ...(right.call(this, kind, of) as object), total: 0 };
    }),
  },
  "borrowed-is-own": {
    about: "A child that another step has spawned is taken for one's own, and its count waited for in vain.",
    caughtBy: ["P05"],
    plant: () => put(Spawner, "attach", (right) => async function (this: Spawner, ...given: unknown[]) {
      await right.apply(this, given);
      for (const child of this.borrowed.keys()) this.owned.add(child);
      this.borrowed.clear();
    }),
  },
  "places-not-repeated": {
    about: "Later tasks of a run have lost its places.",
    caughtBy: ["W35"],
    plant: () => put(Broker, "store", (right) => function (subject: string, body: unknown, headers: Record<string, string> = {}, ...more: unknown[]): unknown {
      const { "Jf-Places": _, ...left } = headers;
      return right.call(this, subject, body, subject.startsWith("task.") ? left : headers, ...more);
    }),
  },
  "places-not-told": {
    about: "Children are not told of the places that their parent, and those above it, have.",
    caughtBy: ["P01", "M06"],
    plant: () => put(Spawner, "headersOf", (right) => function (...given: unknown[]) {
      const { "Jf-Held": _, ...headers } = right.apply(this, given) as Record<string, string>;
      return headers;
    }),
  },
  "never-left": {
    about: "Nobody gives places back.",
    caughtBy: ["L01", "L03", "M07"],
    plant: () => put(Rules, "leave", () => nothing),
  },
  "limits-unheeded": {
    about: "A step that is limited runs as any other.",
    caughtBy: ["L02"],
    plant: () => put(Runner, "stepOf", (right) => function (task: unknown, graph: object) {
      return right.call(this, task, Object.assign(Object.create(Object.getPrototypeOf(graph) as object) as object, graph, { limited: new Set() })) as unknown;
    }),
  },
  "admits-all": {
    about: "A task of _admit begins its run.",
    caughtBy: ["L04"],
    plant: () => put(Runner, "unknown", (right) => async function (this: { rules: Rules }, delivery: Delivery, graph: Graph) {
      if (delivery.task.step !== "_admit") return (await right.call(this, delivery, graph)) as unknown;
      await this.rules.begin(delivery.task, graph);
      return "done";
    }),
  },
  "seal-uncounted": {
    about: "A record is stored, and not counted.",
    caughtBy: ["P01", "P09b"],
    plant: () => put(Rules, "awaitWakers", () => nothing),
  },
};

/** Break one rule. */
export function plant(name: string | undefined): void {
  if (name === undefined) return;
  const fault = FAULTS[name];
  if (fault === undefined) throw new Error(`no fault is called ${name}: there are ${Object.keys(FAULTS).join(", ")}`);
  fault.plant();
}
