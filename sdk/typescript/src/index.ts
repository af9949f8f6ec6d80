/**
 * Workflows on NATS JetStream: steps that spawn child workflows at run time, and join them durably.
 *
 * @packageDocumentation
 */

export { Client, connect, Run, type ConnectOptions, type Description, type TriggerOptions } from "./client.js";
export { Child, ChildResult, Children, type Context, type Joined, type JoinOptions } from "./context.js";
export {
  BrokerRefused, BrokerTimeout, Cancelled, ChildFailed, ChildrenFailed, DepthExceeded, InvalidConnection, InvalidDeclaration, InvalidInput,
  InvalidOutput, JetflowError, KeyConflict, LostValue, MalformedRecord, NonRetryable, PayloadTooLarge, PermissionDenied, RecentlyDeleted,
  ResultTimeout, RetryAfter, RunFailed, RunTimeout, StepOver, StepTimeout, TreeTooLarge, UnknownRun, UnknownStep, UnknownVersion, UnknownWorkflow,
} from "./errors.js";
export { collect, failFast, first, quorum, tolerate, within, type Policy } from "./policies.js";
export type { Failure, Status } from "./records.js";
export type { Logger } from "./reading.js";
export type { Spawnable } from "./spawning.js";
export { Worker, type WorkerOptions } from "./worker.js";
export { flow, workflow, type Flow, type Retry, type StandardSchema, type StepOptions, type Workflow, type WorkflowOptions } from "./workflow.js";
