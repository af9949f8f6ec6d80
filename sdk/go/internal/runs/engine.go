// Package runs is what follows when a step ends: outcomes, gates, joins and cancelling, as docs/wire.md says. Whatever
// is repeated here is right: the first that is stored counts.
package runs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"jetflow.dev/go/internal/broker"
	"jetflow.dev/go/internal/wire"
)

// Engine carries runs on, by its Ops. It is safe for concurrent use.
type Engine struct {
	*broker.Conn
	known known
}

// known is what a process knows, and may forget.
type known struct {
	graphs   memory[*wire.Graph]
	declared memory[*Declared]
	ledger   memory[int64] // the values of joins' counters from which on a look may be worth it
	decided  memory[bool]
	counts   memory[int64] // of joins, as far as they were last known
}

// New returns an engine on a connection.
func New(conn *broker.Conn) *Engine { return &Engine{Conn: conn} }

// memory begins anew when it is full.
type memory[T any] struct {
	lock  sync.Mutex
	known map[string]T
}

func (m *memory[T]) get(key string) T {
	m.lock.Lock()
	defer m.lock.Unlock()
	return m.known[key]
}

func (m *memory[T]) put(key string, value T) {
	m.lock.Lock()
	defer m.lock.Unlock()
	if m.known == nil || len(m.known) > 10_000 {
		m.known = map[string]T{}
	}
	m.known[key] = value
}

// Fault is an error with a type that the wire format reserves, such as KeyConflict.
type Fault struct{ Type, Message string }

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

// Failure returns the fault as records have it.
func (f *Fault) Failure(step string) *wire.Failure {
	made := &wire.Failure{Type: f.Type, Message: f.Message}
	if step != "" {
		made.Step = &step
	}
	return made
}

// Now is the time in seconds since the epoch.
func Now() float64 { return float64(time.Now().UnixMicro()) / 1e6 }

// --- what is done in order

// Op is reads and writes of an engine, in their order. Where one fails, the rest is not done.
type Op struct {
	*broker.Op
	*known
	looked map[Join]bool
}

// Op begins to read and write.
func (e *Engine) Op(ctx context.Context) *Op { return &Op{e.Conn.Op(ctx), &e.known, map[Join]bool{}} }

// Fault takes the Fault that the Op has failed with, so that it goes on; nil if it has not failed so.
func (o *Op) Fault() *Fault {
	fault := FaultOf(o.Err)
	if fault != nil {
		o.Err = nil
	}
	return fault
}

// Tasks yields the tasks below a filter.
func (o *Op) Tasks(filter string) iter.Seq[*wire.Task] {
	return func(yield func(*wire.Task) bool) {
		for message := range o.Below(filter, 0) {
			if t, err := o.ReadTask(message.Subject, message.Header, message.Body); err == nil && !yield(t) {
				return
			}
		}
	}
}

// Record encodes and stores a record. What is stored already is returned.
func (o *Op) Record(subject string, record any) *broker.Message {
	return o.Put(&nats.Msg{Subject: subject, Data: o.Encode(record)})
}

// Encode returns a record as it is stored.
func (o *Op) Encode(record any) (body []byte) {
	if o.Err == nil {
		body, o.Err = json.Marshal(record)
	}
	return body
}

// Publish stores the task of a later step or turn.
func (o *Op) Publish(t *wire.Task) { o.Put(Message(o.Names, t, t.LaterID())) }

// --- declarations and graphs

// Declared is a declaration that was read, and its input's schema.
type Declared struct {
	*wire.Declaration
	Schema *wire.Schema
	read   time.Time
}

const freshEnough = 3 * time.Second

// Register writes into the registry, unless that is what it says.
func (o *Op) Register(subject string, record any) {
	body := o.Encode(record)
	if stored := o.Last(subject); stored == nil || !bytes.Equal(stored.Body, body) {
		o.Store(&nats.Msg{Subject: subject, Data: body})
	}
}

// Declared reads the newest declaration of a workflow. The Op fails as UnknownWorkflow if there is none.
func (o *Op) Declared(workflow string) *Declared {
	if known := o.declared.get(workflow); known != nil && time.Since(known.read) < freshEnough {
		return known
	}
	stored := o.Last(o.Workflow(workflow, ""))
	if o.Err != nil {
		return nil
	}
	if stored == nil {
		o.Err = Faultf("UnknownWorkflow", "nobody has declared the workflow %q: start a worker that has it", workflow)
		return nil
	}
	made := &Declared{read: time.Now()}
	var err error
	if made.Declaration, err = wire.DecodeDeclaration(stored.Body); err == nil {
		made.Schema, err = wire.ParseSchema(made.Input)
	}
	if err != nil {
		o.Err = Faultf("MalformedRecord", "the declaration of %q cannot be read: %v", workflow, err)
		return nil
	}
	o.declared.put(workflow, made)
	return made
}

// Graph reads the graph that a task's run is pinned to. The Op fails as UnknownVersion if that is not stored.
func (o *Op) Graph(t *wire.Task) *wire.Graph {
	if t.Version == "" {
		if newest := o.Declared(t.Workflow); newest != nil {
			return newest.Graph
		}
		return nil
	}
	subject := o.Workflow(t.Workflow, t.Version)
	if known := o.graphs.get(subject); known != nil {
		return known
	}
	stored := o.Last(subject)
	if o.Err != nil {
		return nil
	}
	if stored == nil {
		o.Err = Faultf("UnknownVersion", "the graph %s of %q is not stored", t.Version, t.Workflow)
		return nil
	}
	graph, err := wire.DecodeGraph(stored.Body)
	if err != nil {
		o.Err = Faultf("MalformedRecord", "the graph %s of %q cannot be read: %v", t.Version, t.Workflow, err)
		return nil
	}
	o.graphs.put(subject, graph)
	return graph
}

// graphIfAny is Graph, but nil where there is none that can be read.
func (o *Op) graphIfAny(t *wire.Task) (graph *wire.Graph) {
	if o.Err == nil {
		graph = o.Graph(t)
		o.Fault()
	}
	return graph
}

// --- tasks and outcomes

// Message returns the message of a task.
func Message(n wire.Names, t *wire.Task, id string) *nats.Msg {
	m := &nats.Msg{Subject: n.Task(t), Header: nats.Header{wire.MsgID: {id}}, Data: t.Input}
	t.Headers(func(name, value string) { m.Header[name] = []string{value} })
	return m
}

// Task reads a stored task; nil if it is gone.
func (o *Op) Task(subject string) (t *wire.Task, stored *broker.Message) {
	if stored = o.Last(subject); stored != nil && o.Err == nil {
		t, o.Err = o.ReadTask(stored.Subject, stored.Header, stored.Body)
	}
	return t, stored
}

// FirstTask reads the first task of a run; nil if there is none.
func (o *Op) FirstTask(run string) (*wire.Task, *broker.Message) {
	return o.Task(o.Of("task.*.*.*.*", run, "0"))
}

// Outcome reads an outcome from the leader; nil if there is none. The subject may have wildcards.
func (o *Op) Outcome(subject string) (*wire.Outcome, *broker.Message) {
	if stored := o.Last(subject); stored != nil {
		return wire.DecodeOutcome(stored.Body), stored
	}
	return nil, nil
}

// Steps reads which of a run's steps have outcomes.
func (o *Op) Steps(t *wire.Task, steps []string) map[string]*wire.Outcome {
	found := map[string]*wire.Outcome{}
	for _, step := range steps {
		if outcome, _ := o.Outcome(o.Step(t.At(step))); outcome != nil {
			found[step] = outcome
		}
	}
	return found
}

// Ending returns an outcome of a task's step that ends now.
func Ending(t *wire.Task, status string, why *wire.Failure) *wire.Outcome {
	return &wire.Outcome{Status: status, Error: why, Workflow: t.Workflow, Step: t.Step, Key: t.ShownKey(), Attempt: 1, Ended: Now()}
}

// Large moves JSON that is too large for a message to a value, and returns the reference of that.
func (o *Op) Large(root string, text json.RawMessage) (kept json.RawMessage, ref string) {
	if o.Err != nil || !o.IsLarge(text) {
		return text, ""
	}
	return nil, o.PutValue(root, text)
}

// Pack moves an output that is too large for a record to a value.
func (o *Op) Pack(root string, outcome *wire.Outcome) {
	kept, ref := o.Large(root, outcome.Output)
	if outcome.Output = kept; ref != "" {
		outcome.Value = &ref
	}
}

// Output returns an output, wherever it is kept.
func (o *Op) Output(root string, outcome *wire.Outcome) json.RawMessage {
	if outcome.Value != nil {
		return o.Value(root, *outcome.Value)
	}
	if len(outcome.Output) == 0 {
		return json.RawMessage("null")
	}
	return outcome.Output
}

// Arm arms the timer of a parked turn. It tells whether the time has come already: then the next turn is published.
func (o *Op) Arm(t *wire.Task, until float64, tried int) (due bool) {
	if until <= Now() {
		o.Publish(t.NextTurn(tried))
		return true
	}
	at := time.UnixMicro(int64(until * 1e6)).Add(time.Millisecond - time.Microsecond).UTC()
	m := &nats.Msg{Subject: o.Timer("timer", t), Header: nats.Header{
		"Nats-Schedule":        {"@at " + at.Format("2006-01-02T15:04:05.000Z")},
		"Nats-Schedule-Target": {o.Timer("due", t)},
	}}
	if tried > 0 {
		m.Header[wire.HdrAttempt] = []string{fmt.Sprint(tried)}
	}
	o.Store(m)
	return false
}
