package jetflow

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"

	"github.com/nats-io/nats.go"

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
	o := c.op()
	outcome, _ := o.Outcome(o.TaskRun(c.x.task))
	if outcome == nil {
		return nil, o.Err
	}
	return outcome.Failures(), nil
}

func (c *Ctx) op() *runs.Op { return c.x.w.engine.Op(c) }

// Output returns the output of a step that has ended before this one.
func Output[T any](ctx *Ctx, of StepOf[T]) (T, error) { return OutputByName[T](ctx, of.name) }

// OutputByName is Output, by the name of the step.
func OutputByName[T any](ctx *Ctx, step string) (output T, err error) {
	o, t := ctx.op(), ctx.x.task
	outcome, _ := o.Outcome(o.Step(t.At(step)))
	if o.Err != nil {
		return output, o.Err
	}
	if outcome == nil || outcome.Status != wire.Succeeded {
		return output, fmt.Errorf("jetflow: step %q has no output here: it must come before %q", step, t.Step)
	}
	return outputOf[T](o, t.Root, outcome)
}

func outputOf[T any](o *runs.Op, root string, outcome *wire.Outcome) (output T, err error) {
	text := o.Output(root, outcome)
	if fault := runs.FaultOf(o.Err); fault != nil {
		return output, fault
	}
	if o.Err != nil {
		return output, o.Err
	}
	return decode[T](text, "InvalidOutput")
}

// ChildrenOf yields the children of a step before this one, in the order in which they ended. They are read while they
// are asked for, so that a step may have a million. An error ends it.
func ChildrenOf[Out any](ctx *Ctx, of Named) iter.Seq2[Child[Out], error] {
	return func(yield func(Child[Out], error) bool) {
		o := ctx.op()
		for id, outcome := range o.Children(runs.JoinOf(ctx.x.task.At(of.StepName()))) {
			if !yield(read[Out](ctx, id, outcome), nil) {
				return
			}
		}
		if o.Err != nil {
			yield(Child[Out]{}, o.Err)
		}
	}
}

// Once records the value of a call under a name, and returns the recorded one in later attempts. A worker that dies
// between the call and the record calls again. Nothing is recorded of a call that fails.
func Once[T any](ctx *Ctx, name string, call func(context.Context) (T, error)) (value T, err error) {
	o, t := ctx.op(), ctx.x.task
	subject := o.Of("once", t.Root, t.Run, t.Step, wire.OnceToken(name))
	if !ctx.x.clean {
		if stored := o.Last(subject); stored != nil {
			return decode[T](stored.Body, "MalformedRecord")
		}
		if o.Err != nil {
			return value, o.Err
		}
	}
	if value, err = call(ctx); err != nil {
		return value, err
	}
	text, err := encode(value)
	if err == nil && o.IsLarge(text) {
		err = fmt.Errorf("%w: %d bytes of JSON are recorded once", broker.ErrTooLarge, len(text))
	}
	if err != nil {
		return value, runs.Faultf("InvalidOutput", "the value of %q: %v", name, err)
	}
	if taken := o.Put(&nats.Msg{Subject: subject, Data: text}); taken != nil {
		return decode[T](taken.Body, "MalformedRecord")
	}
	return value, o.Err
}
