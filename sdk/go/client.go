package jetflow

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"jetflow.dev/go/internal/runs"
	"jetflow.dev/go/internal/wire"
)

// Run is a run whose output is an Out.
type Run[Out any] struct {
	ID     string
	client *Client
}

type triggering struct {
	key      *string
	metadata any
	trace    string
}

// TriggerOption says how a run is started.
type TriggerOption func(*triggering)

// WithKey names a run: the same key of the same workflow is the same run.
func WithKey(key string) TriggerOption { return func(t *triggering) { t.key = &key } }

// WithMetadata gives a run an object that all its descendants see: 16 KiB of JSON at most.
func WithMetadata(metadata any) TriggerOption { return func(t *triggering) { t.metadata = metadata } }

// WithTraceparent gives a run a W3C trace context.
func WithTraceparent(traceparent string) TriggerOption {
	return func(t *triggering) { t.trace = traceparent }
}

// Trigger starts a run of a workflow. It is an ErrKeyConflict if the key was used with another input, an
// ErrUnknownWorkflow if no worker has declared the workflow, an ErrRecentlyDeleted if its tree was deleted in the last
// hour.
func Trigger[In, Out any](ctx context.Context, client *Client, flow *Workflow[In, Out], input In, options ...TriggerOption) (*Run[Out], error) {
	return TriggerByName[Out](ctx, client, flow.def.name, input, options...)
}

// TriggerByName is Trigger, for a workflow whose code is elsewhere, perhaps in another language.
func TriggerByName[Out any](ctx context.Context, client *Client, workflow string, input any, options ...TriggerOption) (*Run[Out], error) {
	set := triggering{}
	for _, option := range options {
		option(&set)
	}
	text, err := encode(input)
	if err != nil {
		return nil, runs.Faultf("InvalidInput", "the input cannot be written as JSON: %v", err)
	}
	id, err := client.trigger(ctx, workflow, text, set)
	if err != nil {
		return nil, fmt.Errorf("jetflow: %q is not triggered: %w", workflow, err)
	}
	return &Run[Out]{id, client}, nil
}

// RunByID returns a run that exists, or will.
func RunByID[Out any](client *Client, id string) (*Run[Out], error) {
	return &Run[Out]{id, client}, checkRun(id)
}

func (c *Client) trigger(ctx context.Context, workflow string, input []byte, set triggering) (string, error) {
	if !wire.IsName(workflow) {
		return "", fmt.Errorf("%.80q is no name of a workflow", workflow)
	}
	o := c.engine.Op(ctx)
	declared := o.Declared(workflow)
	if o.Err != nil {
		return "", o.Err
	}
	digest, err := wire.Digest(input, declared.Schema)
	if err != nil {
		return "", runs.Faultf("InvalidInput", "%v", err)
	}
	t := &wire.Task{
		Workflow: workflow, Step: declared.Graph.First(), Parent: wire.None, ParentStep: wire.None,
		Version: declared.Version, Digest: digest, Trace: set.trace, Run: wire.NewID(),
	}
	if t.Metadata, err = metadata(set.metadata); err != nil {
		return "", err
	}
	if set.key != nil {
		if err := wire.CheckKey(*set.key); err != nil {
			return "", err
		}
		t.Run, t.Key = wire.RootID(workflow, *set.key), shown(*set.key)
		mark := o.Last(o.Cancel(t.Run, t.Run))
		if mark != nil && string(mark.Body) == runs.MarkDeleted && time.Since(mark.Time) < runs.Remembered {
			return "", runs.Faultf("RecentlyDeleted", "the run of key %q was deleted at %s: use another key, or wait an hour",
				*set.key, mark.Time.Format(time.RFC3339))
		}
	}
	if t.Root = t.Run; declared.Deadline != nil {
		t.Deadline = seconds(runs.Now() + *declared.Deadline)
	}
	t.Input, t.Value = o.Large(t.Root, input)
	if taken := o.Put(runs.Message(o.Names, t, t.FirstID())); taken != nil && taken.Header.Get("Jf-Digest") != digest {
		return "", runs.Faultf("KeyConflict", "the key was used with another input: its digest is %s, and this one's is %s",
			taken.Header.Get("Jf-Digest"), digest)
	}
	return t.Run, o.Err
}

func metadata(given any) (string, error) {
	if given == nil {
		return "", nil
	}
	text, err := encode(given)
	if err == nil && (len(text) == 0 || text[0] != '{') {
		err = fmt.Errorf("they are no JSON object")
	}
	if err == nil && len(text) > 16<<10 {
		err = runs.Faultf("PayloadTooLarge", "they have %d bytes of JSON, and 16 KiB are allowed", len(text))
	}
	if err != nil {
		return "", fmt.Errorf("the metadata are refused: %w", err)
	}
	return string(text), nil
}

func shown(key string) string { return string(wire.AppendString(nil, wire.ShownKey(key))) }

func seconds(at float64) string { return strconv.FormatFloat(at, 'f', 3, 64) }

// pollEvery is how often a result is read, since its live copy may be lost.
const pollEvery = 2 * time.Second

// Result waits for the end of the run, and returns its output. It is a *RunFailed if the run did not succeed.
func (r *Run[Out]) Result(ctx context.Context) (output Out, err error) {
	outcome, root, err := r.client.await(ctx, r.ID)
	if err != nil {
		return output, fmt.Errorf("jetflow: waiting for run %s: %w", r.ID, err)
	}
	if outcome.Status != wire.Succeeded {
		return output, &RunFailed{r.ID, outcome.Status, outcome.Failures()}
	}
	return outputOf[Out](r.client.engine.Op(ctx), root, outcome)
}

// Cancel cancels the run with all that it has spawned. It tells whether the run was not over.
func (r *Run[Out]) Cancel(ctx context.Context) (bool, error) { return r.client.Cancel(ctx, r.ID, true) }

// await returns how a run has ended, and its root.
func (c *Client) await(ctx context.Context, run string) (*wire.Outcome, string, error) {
	told := make(chan *nats.Msg, 8)
	o := c.engine.Op(ctx)
	live, err := o.NC.ChanSubscribe(o.Of("live.run.*.*.*", run), told)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = live.Unsubscribe() }() // it fails where the connection is closed
	for {
		outcome, stored := o.Outcome(o.Run("*", "*", "*", run))
		if o.Err != nil {
			return nil, "", o.Err
		}
		if outcome != nil {
			return outcome, wire.Token(stored.Subject, 3), nil
		}
		select {
		case msg := <-told:
			return wire.DecodeOutcome(msg.Data), wire.Token(msg.Subject, 4), nil
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return nil, "", context.Cause(ctx)
		}
	}
}

// Progress is how many children of a run there are, and how they have ended.
type Progress struct{ Spawned, Ended, Failed int }

// Describe counts the children of a run, without listing them to the caller.
func (r *Run[Out]) Describe(ctx context.Context) (made Progress, err error) {
	o := r.client.engine.Op(ctx)
	t, _ := o.FirstTask(r.ID)
	if t == nil {
		return made, o.Err
	}
	for into, filter := range map[*int]string{
		&made.Spawned: o.Of("task.*.*", t.Root, r.ID, "*.0"),
		&made.Ended:   o.Run(t.Root, r.ID, "*", "*"),
		&made.Failed:  o.Of("mark", t.Root, r.ID, "*.*.*.*"),
	} {
		*into = o.Count(filter)
	}
	return made, o.Err
}
