package jetflow

import (
	"context"
	"encoding/json"
	"fmt"

	"jetflow.dev/go/internal/broker"
	"jetflow.dev/go/internal/runs"
	"jetflow.dev/go/internal/wire"
)

// Ctx is the context of a running step. It is done when the run is cancelled, when the attempt's time or the run's
// deadline is over, or when the worker has to end: context.Cause tells which. A function must heed it, for nothing can
// stop one that does not.
type Ctx struct {
	context.Context
	x *execution
}

// RunID is the id of the run, RootID that of the root of its tree.
func (c *Ctx) RunID() string  { return c.x.task.Run }
func (c *Ctx) RootID() string { return c.x.task.Root }

// StepName is the name of the step.
func (c *Ctx) StepName() string { return c.x.task.Step }

// Attempt is the number of this attempt, from 1.
func (c *Ctx) Attempt() int { return c.x.attempt }

// Key is the key of the run as it is shown: one of more than 200 characters is cut. It is empty if there is none.
func (c *Ctx) Key() string {
	if key := c.x.task.ShownKey(); key != nil {
		return *key
	}
	return ""
}

// IdempotencyKey is the same for every attempt of this step of this run: hand it to a service that is called.
func (c *Ctx) IdempotencyKey() string { return c.x.task.Run + "." + c.x.task.Step }

// Traceparent is the W3C trace context of the run; empty if there is none.
func (c *Ctx) Traceparent() string { return c.x.task.Trace }

// Metadata reads the object that the run was triggered with.
func (c *Ctx) Metadata(into any) error {
	if c.x.task.Metadata == "" {
		return nil
	}
	return json.Unmarshal([]byte(c.x.task.Metadata), into)
}

// Errors returns the errors of a run that has failed, for its step on failure.
func (c *Ctx) Errors() ([]Failure, error) {
	outcome, _, err := c.x.w.engine.Outcome(c, c.x.w.engine.Names.TaskRun(c.x.task))
	if err != nil || outcome == nil {
		return nil, err
	}
	return outcome.Failures(), nil
}

// Output returns the output of a step that has ended before this one.
func Output[T any](ctx *Ctx, of StepOf[T]) (T, error) { return OutputByName[T](ctx, of.name) }

// OutputByName is Output, by the name of the step.
func OutputByName[T any](ctx *Ctx, step string) (T, error) {
	var none T
	e, t := ctx.x.w.engine, ctx.x.task
	outcome, _, err := e.Outcome(ctx, e.Names.Step(t.Root, t.Run, step))
	if err != nil {
		return none, err
	}
	if outcome == nil || outcome.Status != wire.Succeeded {
		return none, fmt.Errorf("jetflow: step %q has no output here: it must come before %q", step, t.Step)
	}
	text, err := e.Output(ctx, t.Root, outcome)
	if err != nil {
		return none, err
	}
	return decode[T](text, "InvalidOutput")
}

// Once records the value of a call under a name, and returns the recorded one in later attempts. A worker that dies
// between the call and the record calls again. Nothing is recorded of a call that fails.
func Once[T any](ctx *Ctx, name string, call func(context.Context) (T, error)) (T, error) {
	var none T
	e, t := ctx.x.w.engine, ctx.x.task
	subject := e.Names.Of("once", t.Root, t.Run, t.Step, wire.OnceToken(name))
	if !ctx.x.clean {
		stored, err := e.Last(ctx, e.Names.Records(), subject)
		if err != nil {
			return none, err
		}
		if stored != nil {
			return decode[T](stored.Body, "MalformedRecord")
		}
	}
	value, err := call(ctx)
	if err != nil {
		return none, err
	}
	text, err := encode(value)
	if err == nil && e.IsLarge(text) {
		err = fmt.Errorf("%w: %d bytes of JSON are recorded once", broker.ErrTooLarge, len(text))
	}
	if err != nil {
		return none, runs.Faultf("InvalidOutput", "the value of %q: %v", name, err)
	}
	told, err := e.Store(ctx, &broker.Write{Stream: e.Names.Records(), Subject: subject, Body: text})
	if err != nil || told.Taken == nil {
		return value, err
	}
	return decode[T](told.Taken.Body, "MalformedRecord")
}
