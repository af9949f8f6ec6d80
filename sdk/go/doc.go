// Package jetflow runs workflows on NATS JetStream. It is the Go SDK of jetflow: runs, parents and children may be in
// Go, in Python and in any other language, in one namespace.
//
// A workflow is a graph of steps, and a step is a function. [Define] declares a workflow of one step, [NewFlow] and
// [Step] one of several. A [Worker] runs them; a [Client] starts runs by [Trigger], waits for their ends, and cancels
// them.
//
// A running step may spawn any number of child runs by [Spawn]. It is complete when its function has returned and its
// children are done, so the cheapest join is to return, and to have the next step read [ChildrenOf]. In the step,
// [Children.Join], [Children.Settle] and [Children.AsCompleted] wait; the step's slot is free meanwhile. What waits for
// long is dropped from memory, and begins again at its top: its spawns find the children that exist, and its joins
// return at once. Then they return [ErrParked], and the function returns that.
//
// # What is guaranteed
//
// The body of a step runs at least once; its outcome is recorded exactly once. A worker that dies loses its tasks to
// another one after five seconds. [Ctx.IdempotencyKey] and [Once] are for side effects.
//
// # Errors
//
// A step that returns an error is tried again, as its [Retry] says. [NonRetryable] fails it at once, [RetryAfter] names
// the pause. A panic fails that attempt, and nothing else. What is refused by name is compared by errors.Is with
// [ErrKeyConflict] and its like; how runs and children failed is a [RunFailed] or [ChildrenFailed], by errors.As.
//
// # Types
//
// Inputs and outputs are JSON, as encoding/json writes them. The type of an input decides which inputs are one run: a
// field with omitempty has its zero value for a default, so one can be added to a type that is in use. A field without
// it counts as given even if it is zero. Integers and floats are told apart: 1 and 1.0 are one float64.
//
// # Levels
//
// A worker of this SDK is of level parent of the wire format: it neither takes triggers from the inbox nor wakes what
// waits for a time, so a namespace needs a worker of jetflow itself beside it (`jetflow worker`, with any workflow).
package jetflow
