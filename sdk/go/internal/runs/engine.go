// Package runs is what follows when a step ends: outcomes, gates, joins and cancelling, as docs/wire.md says. Whatever
// is repeated here is right: the first that is stored counts.
package runs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"jetflow.dev/go/internal/broker"
	"jetflow.dev/go/internal/wire"
)

// Engine carries runs on. It is safe for concurrent use.
type Engine struct {
	*broker.Conn
	lock     sync.Mutex
	graphs   map[string]*wire.Graph
	declared map[string]*Declared
	ledger   map[string]int64
	decided  map[string]bool
	counts   map[string]int64 // of joins, as far as they were last known
}

// New returns an engine on a connection.
func New(conn *broker.Conn) *Engine {
	return &Engine{Conn: conn, graphs: map[string]*wire.Graph{}, declared: map[string]*Declared{},
		ledger: map[string]int64{}, decided: map[string]bool{}, counts: map[string]int64{}}
}

// Fault is an error with a type that the wire format reserves, such as KeyConflict.
type Fault struct {
	Type    string
	Message string
}

func (f *Fault) Error() string { return f.Type + ": " + f.Message }

// Is tells whether another error is of the same type.
func (f *Fault) Is(other error) bool {
	fault, is := other.(*Fault)
	return is && fault.Type == f.Type
}

// Faultf returns a Fault.
func Faultf(kind, format string, args ...any) *Fault {
	return &Fault{kind, fmt.Sprintf(format, args...)}
}

// FaultOf returns the Fault in an error, or that of a value which is lost or too large; nil if there is none.
func FaultOf(err error) *Fault {
	var fault *Fault
	switch {
	case errors.As(err, &fault):
		return fault
	case errors.Is(err, broker.ErrLost):
		return &Fault{"LostValue", err.Error()}
	case errors.Is(err, broker.ErrTooLarge):
		return &Fault{"PayloadTooLarge", err.Error()}
	}
	return nil
}

// Now is the time in seconds since the epoch.
func Now() float64 { return float64(time.Now().UnixMicro()) / 1e6 }

const (
	remembered  = 10_000
	freshEnough = 3 * time.Second
)

// Declared is a declaration that was read, and its input's schema.
type Declared struct {
	*wire.Declaration
	Schema *wire.Schema
	read   time.Time
}

// Declared returns the newest declaration of a workflow. It is an UnknownWorkflow if there is none.
func (e *Engine) Declared(ctx context.Context, workflow string) (*Declared, error) {
	e.lock.Lock()
	known := e.declared[workflow]
	e.lock.Unlock()
	if known != nil && time.Since(known.read) < freshEnough {
		return known, nil
	}
	stored, err := e.Last(ctx, e.Names.Workflows(), e.Names.Workflow(workflow, ""))
	if err != nil {
		return nil, err
	}
	if stored == nil {
		return nil, Faultf("UnknownWorkflow", "nobody has declared the workflow %q: start a worker that has it", workflow)
	}
	read, err := wire.DecodeDeclaration(stored.Body)
	if err != nil {
		return nil, Faultf("MalformedRecord", "the declaration of %q cannot be read: %v", workflow, err)
	}
	schema, err := wire.ParseSchema(read.Input)
	if err != nil {
		return nil, Faultf("MalformedRecord", "the input's schema of %q cannot be read: %v", workflow, err)
	}
	known = &Declared{read, schema, time.Now()}
	e.lock.Lock()
	defer e.lock.Unlock()
	e.declared[workflow] = known
	return known, nil
}

// Graph returns the graph that a run is pinned to. It is an UnknownVersion if that is not stored.
func (e *Engine) Graph(ctx context.Context, workflow, version string) (*wire.Graph, error) {
	if version == "" {
		newest, err := e.Declared(ctx, workflow)
		if err != nil {
			return nil, err
		}
		return newest.Graph, nil
	}
	key := workflow + "." + version
	e.lock.Lock()
	known := e.graphs[key]
	e.lock.Unlock()
	if known != nil {
		return known, nil
	}
	stored, err := e.Last(ctx, e.Names.Workflows(), e.Names.Workflow(workflow, version))
	if err != nil {
		return nil, err
	}
	if stored == nil {
		return nil, Faultf("UnknownVersion", "the graph %s of %q is not stored", version, workflow)
	}
	if known, err = wire.DecodeGraph(stored.Body); err != nil {
		return nil, Faultf("MalformedRecord", "the graph %s of %q cannot be read: %v", version, workflow, err)
	}
	e.lock.Lock()
	defer e.lock.Unlock()
	e.graphs[key] = known
	return known, nil
}

// Record encodes and stores a record. What is stored already is returned.
func (e *Engine) Record(ctx context.Context, subject string, record any) (*broker.Message, error) {
	body, err := json.Marshal(record)
	if err != nil {
		return nil, err
	}
	told, err := e.StoreGrouped(ctx, &broker.Write{Stream: e.Names.Records(), Subject: subject, Body: body})
	return told.Taken, err
}

// Publish stores a task under its message id. What stands in its place is returned.
func (e *Engine) Publish(ctx context.Context, t *wire.Task, id string) (*broker.Message, error) {
	told, err := e.StoreGrouped(ctx, e.Write(t, id))
	return told.Taken, err
}

// Write returns the message of a task.
func (e *Engine) Write(t *wire.Task, id string) *broker.Write {
	header := nats.Header{}
	if id != "" {
		header[wire.MsgID] = []string{id}
	}
	t.Headers(func(name, value string) { header[name] = []string{value} })
	return &broker.Write{Stream: e.Names.Tasks(), Subject: e.Names.Task(t), Header: header, Body: t.Input}
}

// Task reads a stored task; nil if it is gone.
func (e *Engine) Task(ctx context.Context, subject string) (*wire.Task, *broker.Message, error) {
	stored, err := e.Last(ctx, e.Names.Tasks(), subject)
	if err != nil || stored == nil {
		return nil, nil, err
	}
	t, err := e.Names.ReadTask(stored.Subject, stored.Header, stored.Body)
	return t, stored, err
}

// Outcome reads an outcome from the leader; nil if there is none. The subject may have wildcards.
func (e *Engine) Outcome(ctx context.Context, subject string) (*wire.Outcome, *broker.Message, error) {
	stored, err := e.Last(ctx, e.Names.Records(), subject)
	if err != nil || stored == nil {
		return nil, nil, err
	}
	return wire.DecodeOutcome(stored.Body), stored, nil
}

// Steps reads which of a run's steps have outcomes.
func (e *Engine) Steps(ctx context.Context, t *wire.Task, steps []string) (map[string]*wire.Outcome, error) {
	found := map[string]*wire.Outcome{}
	for _, step := range steps {
		outcome, _, err := e.Outcome(ctx, e.Names.Step(t.Root, t.Run, step))
		if err != nil {
			return nil, err
		}
		if outcome != nil {
			found[step] = outcome
		}
	}
	return found, nil
}

// Pack moves an output that is too large for a record to a value.
func (e *Engine) Pack(ctx context.Context, root string, outcome *wire.Outcome) error {
	if !e.IsLarge(outcome.Output) {
		return nil
	}
	ref, err := e.PutValue(ctx, root, outcome.Output)
	outcome.Value, outcome.Output = &ref, nil
	return err
}

// Output returns an output, wherever it is kept.
func (e *Engine) Output(ctx context.Context, root string, outcome *wire.Outcome) (json.RawMessage, error) {
	if outcome.Value != nil {
		return e.Value(ctx, root, *outcome.Value)
	}
	if len(outcome.Output) == 0 {
		return json.RawMessage("null"), nil
	}
	return outcome.Output, nil
}

// Arm arms the timer of a parked turn. It tells whether the time has come already: then the next turn is published.
func (e *Engine) Arm(ctx context.Context, t *wire.Task, until float64, tried int) (due bool, err error) {
	if until <= Now() {
		_, err := e.Publish(ctx, t.NextTurn(tried), t.NextTurn(0).LaterID())
		return true, err
	}
	at := time.UnixMicro(int64(until * 1e6)).Add(time.Millisecond - time.Microsecond).UTC()
	header := nats.Header{
		"Nats-Schedule":        []string{"@at " + at.Format("2006-01-02T15:04:05.000Z")},
		"Nats-Schedule-Target": []string{e.Names.Timer("due", t)},
	}
	if tried > 0 {
		header[wire.HdrAttempt] = []string{fmt.Sprint(tried)}
	}
	_, err = e.Store(ctx, &broker.Write{Stream: e.Names.Timers(), Subject: e.Names.Timer("timer", t), Header: header})
	return false, err
}
