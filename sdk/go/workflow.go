package jetflow

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	"jetflow.dev/go/internal/runs"
	"jetflow.dev/go/internal/wire"
)

// Retry says whether, and when, a failed attempt is followed by another. Zero fields have the defaults that are told.
// It is an Option of steps, and of workflows for all their steps.
type Retry struct {
	Attempts   int              // in all, 3 by default
	Initial    time.Duration    // before the second attempt, 500 ms by default
	Multiplier float64          // of each later delay, 2 by default
	Max        time.Duration    // of a delay, a minute by default
	Jitter     float64          // the share of a delay that is left to chance, 0 by default
	On         func(error) bool // which errors are worth another attempt; all but those of children by default
}

func (r Retry) attempts() int {
	if r.Attempts < 1 {
		return 3
	}
	return r.Attempts
}

// delay returns the seconds before the attempt that follows an attempt.
func (r Retry) delay(attempt int) float64 {
	most := cmp.Or(r.Max, time.Minute).Seconds()
	delay := cmp.Or(r.Initial, 500*time.Millisecond).Seconds()
	for range attempt - 1 {
		if delay *= cmp.Or(r.Multiplier, 2); delay > most {
			break
		}
	}
	return min(delay, most) * (1 + r.Jitter*(rand.Float64()-0.5))
}

// JoinPolicy says how many children may fail. The zero JoinPolicy: none, and all are waited for. It is an Option of
// steps, for the join at their boundary.
type JoinPolicy struct{ rule wire.Policy }

// Collect lets any number of children fail.
func Collect() JoinPolicy { return JoinPolicy{wire.Policy{Anything: true}} }

// FailFast decides by the first child that fails, and cancels the rest.
func FailFast() JoinPolicy { return JoinPolicy{wire.Policy{Early: true, CancelRest: true}} }

// Tolerate lets some children fail.
func Tolerate(failures int) JoinPolicy { return JoinPolicy{wire.Policy{Tolerated: failures}} }

// TolerateShare lets a share of the children fail, from 0 to 1.
func TolerateShare(share float64) JoinPolicy { return JoinPolicy{wire.Policy{Fraction: &share}} }

// Quorum decides when so many children have succeeded, or no longer can, and cancels the rest.
func Quorum(successes int) JoinPolicy {
	return JoinPolicy{wire.Policy{Quorum: &successes, Early: true, CancelRest: true}}
}

// Within bounds a join: what has ended after that time decides.
func (p JoinPolicy) Within(limit time.Duration) JoinPolicy {
	seconds := limit.Seconds()
	p.rule.Seconds = &seconds
	return p
}

type settings struct {
	retry           Retry
	policy          JoinPolicy
	timeout         time.Duration
	scheduleTimeout time.Duration
	deadline        time.Duration
	maxRunning      int
	failFast        bool
	after           []string
}

// Option says how a workflow, or a step, runs.
type Option interface{ apply(*settings) }

func (r Retry) apply(s *settings)      { s.retry = r }
func (p JoinPolicy) apply(s *settings) { s.policy = p }

type option func(*settings)

func (o option) apply(s *settings) { o(s) }

// Timeout bounds one attempt. It stands still while the step waits for children.
func Timeout(limit time.Duration) Option { return option(func(s *settings) { s.timeout = limit }) }

// ScheduleTimeout bounds the time that a task may lie in the queue before its first attempt.
func ScheduleTimeout(limit time.Duration) Option {
	return option(func(s *settings) { s.scheduleTimeout = limit })
}

// Deadline bounds a whole run with its descendants. It is of workflows alone.
func Deadline(limit time.Duration) Option { return option(func(s *settings) { s.deadline = limit }) }

// MaxRunning bounds how many tasks of a step run at once, in all workers together.
func MaxRunning(count int) Option { return option(func(s *settings) { s.maxRunning = count }) }

// FailWhole ends the run with the first step that fails, and cancels what is left of it. It is of workflows alone.
func FailWhole() Option { return option(func(s *settings) { s.failFast = true }) }

// After has a step begin when others have ended.
func After(steps ...Named) Option {
	return option(func(s *settings) {
		for _, step := range steps {
			s.after = append(s.after, step.StepName())
		}
	})
}

// Named is a step that can be named: a StepOf, or a Name.
type Named interface{ StepName() string }

// Name is a step by its name alone.
type Name string

// StepName returns the name.
func (n Name) StepName() string { return string(n) }

// StepOf is a step whose output is a T.
type StepOf[T any] struct{ name string }

// StepName returns the name.
func (s StepOf[T]) StepName() string { return s.name }

type stepRun func(ctx *Ctx, input []byte) (json.RawMessage, error)

type step struct {
	name string
	set  settings
	run  stepRun
}

type definition struct {
	name          string
	input, output reflect.Type
	set           settings
	steps         []*step
	onFailure     *step
	faults        []error
}

// Workflow is a declared workflow: what a Worker runs, and what is triggered and spawned.
type Workflow[In, Out any] struct{ def *definition }

// Flow is a Workflow of any types.
type Flow interface{ definition() *definition }

func (w *Workflow[In, Out]) definition() *definition { return w.def }

// Name returns the name.
func (w *Workflow[In, Out]) Name() string { return w.def.name }

// NewFlow declares a workflow of several steps. Its options are those of all its steps, as far as these have none. What
// is wrong with it is told by the Worker.
func NewFlow[In, Out any](name string, options ...Option) *Workflow[In, Out] {
	def := &definition{name: name, input: reflect.TypeFor[In](), output: reflect.TypeFor[Out]()}
	for _, option := range options {
		option.apply(&def.set)
	}
	if !wire.IsName(name) {
		def.fault("its name is none: letters, digits, - and _, 64 at most")
	}
	return &Workflow[In, Out]{def}
}

// Define declares a workflow of one step, which is named run.
func Define[In, Out any](name string, run func(*Ctx, In) (Out, error), options ...Option) *Workflow[In, Out] {
	flow := NewFlow[In, Out](name, options...)
	Step(flow, "run", run)
	return flow
}

// Step adds a step to a workflow. It gets the input of the workflow; what earlier steps gave, it reads by Output and
// Children. Where several steps are the last, the output of the workflow is an object of theirs, by name.
func Step[In, Out, T any](flow *Workflow[In, Out], name string, run func(*Ctx, In) (T, error), options ...Option) StepOf[T] {
	made := makeStep(flow.def, name, run, options)
	for _, before := range made.set.after {
		if flow.def.step(before) == nil {
			flow.def.fault("step %q comes after %q, which is not declared before it", name, before)
		}
	}
	flow.def.steps = append(flow.def.steps, made)
	return StepOf[T]{name}
}

// OnFailure adds the step that runs when a run has failed. Ctx.Errors tells it all errors.
func OnFailure[In, Out, T any](flow *Workflow[In, Out], name string, run func(*Ctx, In) (T, error), options ...Option) {
	if flow.def.onFailure != nil {
		flow.def.fault("it has two steps on failure")
	}
	flow.def.onFailure = makeStep(flow.def, name, run, options)
}

func makeStep[In, T any](def *definition, name string, run func(*Ctx, In) (T, error), options []Option) *step {
	made := &step{name: name, set: def.set}
	for _, option := range options {
		option.apply(&made.set)
	}
	if !wire.IsName(name) || def.step(name) != nil {
		def.fault("the step %q is there twice, or its name is none", name)
	}
	made.run = func(ctx *Ctx, text []byte) (json.RawMessage, error) {
		input, err := decode[In](text, "InvalidInput")
		if err != nil {
			return nil, err
		}
		output, err := run(ctx, input)
		if err != nil {
			return nil, err
		}
		encoded, err := encode(output)
		if err != nil {
			return nil, runs.Faultf("InvalidOutput", "%v", err)
		}
		return encoded, nil
	}
	return made
}

func (d *definition) fault(format string, args ...any) {
	d.faults = append(d.faults, fmt.Errorf("jetflow: workflow %q: %s", d.name, fmt.Sprintf(format, args...)))
}

// check returns what is wrong with a definition.
func (d *definition) check() error {
	if len(d.steps) == 0 {
		return errors.Join(append(d.faults, fmt.Errorf("jetflow: workflow %q has no step", d.name))...)
	}
	return errors.Join(d.faults...)
}

// all returns the steps, the one on failure as the last.
func (d *definition) all() []*step {
	if d.onFailure == nil {
		return d.steps
	}
	return append(slices.Clip(d.steps), d.onFailure)
}

// step returns a step by its name; nil if there is none.
func (d *definition) step(name string) *step {
	for _, one := range d.all() {
		if one.name == name {
			return one
		}
	}
	return nil
}

// declaration returns what the registry is told.
func (d *definition) declaration() *wire.Declaration {
	graph := &wire.Graph{Workflow: d.name, FailFast: d.set.failFast}
	made := &wire.Declaration{Graph: graph, Input: schemaOf(d.input), Output: schemaOf(d.output), Steps: map[string]wire.StepInfo{},
		Deadline: inSeconds(d.set.deadline)}
	for _, one := range d.all() {
		info := wire.StepInfo{Attempts: one.set.retry.attempts(), Timeout: inSeconds(one.set.timeout), MaxRunning: one.set.maxRunning}
		if one.set.policy != (JoinPolicy{}) {
			info.Join = &one.set.policy.rule
		}
		made.Steps[one.name] = info
		if one == d.onFailure {
			graph.OnFailure = &one.name
		} else {
			graph.Nodes = append(graph.Nodes, wire.Node{Name: one.name, After: append([]string{}, one.set.after...)})
		}
	}
	text, _ := json.Marshal(graph)
	made.Version = wire.Hash(text)[:16]
	return made
}

// inSeconds returns a time as records have it; nil if there is none.
func inSeconds(limit time.Duration) *float64 {
	if limit <= 0 {
		return nil
	}
	seconds := limit.Seconds()
	return &seconds
}
