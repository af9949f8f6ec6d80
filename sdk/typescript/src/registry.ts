/** Declarations and graphs. A graph never changes under its version, so it is read once. */

import type { Broker } from "./broker.js";
import { MalformedRecord, UnknownVersion, UnknownWorkflow } from "./errors.js";
import { Graph, type StoredGraph } from "./graph.js";
import { isName } from "./identity.js";
import { canonical } from "./json.js";
import { decode, type Declaration } from "./records.js";
import { subjects, type Task } from "./wire.js";

const FRESH = 3000;
const TOKEN = /^[A-Za-z0-9_-]{1,64}$/;

/** Reads the registry of one namespace. */
export class Registry {
  private readonly graphs = new Map<string, Graph>();
  private readonly newest = new Map<string, { at: number; declaration: Promise<Declaration> }>();

  constructor(private readonly broker: Broker) {}

  /** Declare a workflow: the graph of its version first. */
  async declare(declaration: Declaration): Promise<void> {
    const { graph, version } = declaration;
    await this.broker.publish(subjects.workflow(graph.workflow, version), canonical(graph));
    await this.broker.publish(subjects.workflow(graph.workflow), canonical(declaration));
    this.keep(graph.workflow, version, graph);
    this.newest.delete(graph.workflow);
  }

  /** Return the newest declaration of a workflow. Throws UnknownWorkflow, MalformedRecord. */
  declaration(workflow: string): Promise<Declaration> {
    const known = this.newest.get(workflow);
    if (known !== undefined && performance.now() - known.at < FRESH) return known.declaration;
    const declaration = this.read(workflow);
    this.newest.set(workflow, { at: performance.now(), declaration });
    declaration.catch(() => this.newest.delete(workflow));
    return declaration;
  }

  private async read(workflow: string): Promise<Declaration> {
    const stored = isName(workflow) ? await this.broker.last(subjects.workflow(workflow)) : null;
    if (stored === null) throw new UnknownWorkflow(`nobody has declared a workflow '${workflow}': start a worker that has it`);
    const declaration = decode("declaration", stored.body);
    if (declaration === undefined) throw new MalformedRecord(`the declaration of workflow '${workflow}' cannot be read`);
    return declaration;
  }

  /** Return a graph that is known already. */
  known = (workflow: string, version: string): Graph | undefined => this.graphs.get(`${workflow}.${version}`);

  /** Return a graph; without a version the newest. Throws UnknownVersion, MalformedRecord. */
  async graph(workflow: string, version: string): Promise<Graph> {
    const known = this.known(workflow, version);
    if (known !== undefined) return known;
    const unknown = new UnknownVersion(`version '${version}' of workflow '${workflow}' is not stored`);
    if (version === "") {
      const newest = await this.declaration(workflow).catch((error: unknown) => {
        throw error instanceof UnknownWorkflow ? unknown : error;
      });
      return this.keep(workflow, newest.version, newest.graph);
    }
    const stored = TOKEN.test(version) ? await this.broker.last(subjects.workflow(workflow, version)) : null;
    if (stored === null) throw unknown;
    const graph = decode("graph", stored.body);
    if (graph === undefined) throw new MalformedRecord(`version '${version}' of workflow '${workflow}' cannot be read`);
    return this.keep(workflow, version, graph);
  }

  /** Return the graph of a task's run; undefined where there is none that can be read. */
  graphIfAny = ({ workflow, version }: Task): Promise<Graph | undefined> => this.graph(workflow, version).catch((error: unknown) => {
    if (error instanceof UnknownVersion || error instanceof MalformedRecord) return undefined;
    throw error;
  });

  private keep(workflow: string, version: string, stored: StoredGraph): Graph {
    const graph = this.known(workflow, version) ?? new Graph(stored);
    this.graphs.set(`${workflow}.${version}`, graph);
    return graph;
  }
}
