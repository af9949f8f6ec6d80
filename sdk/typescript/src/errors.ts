/** Errors: one root, the wire's reserved name as `type`, and what another attempt would change. */

import type { Failure } from "./records.js";

/** The root of all errors of this SDK. `type` is the name that the wire knows it by. */
export class JetflowError extends Error {
  readonly type: string;
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.type = this.name = new.target.name;
  }
}

/** The broker refused a request, and will refuse it again. `code` is the server's number of the error. */
export class BrokerRefused extends JetflowError {
  constructor(message: string, readonly code: number) {
    super(message);
  }
}
/** The broker did not answer in time, or the connection is closed. */
export class BrokerTimeout extends JetflowError {}
/** This user may not publish, or listen, on a subject. */
export class PermissionDenied extends JetflowError {}
/** What was said of how to connect, or the server, does not do. */
export class InvalidConnection extends JetflowError {}
/** A workflow, a step or an option is not declared as it must be. */
export class InvalidDeclaration extends JetflowError {}
/** A value that cannot be an input: it is no JSON, or does not fit the schema. */
export class InvalidInput extends JetflowError {}
/** A value that cannot be an output: it is no JSON, or does not fit the schema. */
export class InvalidOutput extends JetflowError {}
/** A value above 64 MiB, metadata above 16 KiB, or a value that may not travel by reference. */
export class PayloadTooLarge extends JetflowError {}
/** Nobody has declared a workflow of this name. */
export class UnknownWorkflow extends JetflowError {}
/** No worker knows the step. */
export class UnknownStep extends JetflowError {}
/** The graph that a run is pinned to is not stored. */
export class UnknownVersion extends JetflowError {}
/** No run has this id. */
export class UnknownRun extends JetflowError {}
/** The key names a run that was started with another input. */
export class KeyConflict extends JetflowError {}
/** The key names a tree that was deleted within the last hour. */
export class RecentlyDeleted extends JetflowError {}
/** A run would be nested too deep. */
export class DepthExceeded extends JetflowError {}
/** A root run would have too many descendants. */
export class TreeTooLarge extends JetflowError {}
/** A record that is stored cannot be read. */
export class MalformedRecord extends JetflowError {}
/** A large value is gone, or was changed. */
export class LostValue extends JetflowError {}
/** A run has not ended in time; it goes on. */
export class ResultTimeout extends JetflowError {}
/** The run's deadline has passed. */
export class RunTimeout extends JetflowError {}
/** One attempt of a step took longer than its `timeoutMs`. */
export class StepTimeout extends JetflowError {}
/** The run was cancelled. */
export class Cancelled extends JetflowError {}
/** The step is over: it was parked, stopped, or has ended. Let it pass. */
export class StepOver extends JetflowError {}

/** Throw it in a step that no further attempt can mend. */
export class NonRetryable extends JetflowError {}

/** Throw it in a step that is to be tried again after `ms` milliseconds. */
export class RetryAfter extends JetflowError {
  constructor(readonly ms: number, message = `again after ${ms} ms`, options?: ErrorOptions) {
    super(message, options);
    if (!(ms >= 0)) throw new RangeError(`RetryAfter(${ms}): milliseconds, not below 0`);
  }
}

/** A run ended without an output; `failures` are the errors of its steps. */
export class RunFailed extends JetflowError {
  constructor(readonly runId: string, readonly status: string, readonly failures: readonly Failure[], what = "run") {
    const first = failures[0];
    super(`${what} ${runId} ${status === "timed_out" ? "timed out" : status}${first ? `: ${told(first)}` : ""}`);
  }
}
/** A child ended without an output. */
export class ChildFailed extends RunFailed {
  constructor(runId: string, status: string, failures: readonly Failure[], readonly key: string | null = null) {
    super(runId, status, failures, "child run");
  }
}
/** Children of a join failed; `errors` has an error for each. */
export class ChildrenFailed extends JetflowError {
  constructor(message: string, readonly errors: readonly ChildFailed[]) {
    super(message);
  }
}

const told = (failure: Failure): string => `${failure.type}: ${failure.message.slice(0, 500)}`;

const FINAL = new Set([
  "NonRetryable", "InvalidInput", "InvalidOutput", "PayloadTooLarge", "InvalidDeclaration", "KeyConflict",
  "DepthExceeded", "TreeTooLarge", "RunTimeout", "ChildrenFailed", "ChildFailed",
]);

/** Tell whether another attempt would only meet the same error. */
export const isFinal = (error: unknown): boolean => error instanceof JetflowError && FINAL.has(error.type);

/** Return what a record says of whatever a step has thrown. */
export function failureOf(error: unknown, step: string): Failure {
  if (!(error instanceof Error)) {
    return { type: "Error", message: `thrown: ${shown(error)}`, step, traceback: "", place: "" };
  }
  const cause = error.cause instanceof Error ? `\ncaused by ${error.cause.stack ?? String(error.cause)}` : "";
  const traceback = ((error.stack ?? "") + cause).toWellFormed().slice(0, 20_000);
  const frame = (error.stack ?? "").split("\n").find((line) => / at /.test(line) && !/node:|node_modules/.test(line));
  const found = /at (?:async )?(?:(\S+) \()?(?:.*[/\\])?([^/\\]+?):\d+:\d+\)?$/.exec(frame ?? "");
  const place = found ? `${found[2]}:${found[1] ?? "<anonymous>"}` : "";
  const message = error.message.toWellFormed().slice(0, 100_000);
  return { type: named(error), message, step, traceback, place: place.toWellFormed() };
}

function named(error: Error): string {
  if (error instanceof JetflowError) return error.type;
  return (error.name || error.constructor.name).toWellFormed().slice(0, 200);
}

function shown(value: unknown): string {
  try {
    return ((typeof value === "string" ? value : (JSON.stringify(value) as string | undefined)) ?? typeof value).toWellFormed().slice(0, 1000);
  } catch {
    return typeof value;
  }
}
