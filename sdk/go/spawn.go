package jetflow

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"jetflow.dev/go/internal/broker"
	"jetflow.dev/go/internal/runs"
	"jetflow.dev/go/internal/wire"
)

// spawned is a child of a step; owner is the step that spawned it first, if that is another.
type spawned struct {
	id, owner, digest string
	joined, stored    bool
	outcome           *wire.Outcome
}

type spawning struct {
	key      func(any) (string, error)
	detached bool
	deadline float64
}

// SpawnOption says how children are spawned.
type SpawnOption func(*spawning)

func newSpawning(options []SpawnOption) *spawning {
	set := &spawning{}
	for _, option := range options {
		option(set)
	}
	return set
}

// Key gives each child a key, by its input: the same key in the same parent run is the same child. Without keys, equal
// inputs are one child.
func Key[In any](key func(In) string) SpawnOption {
	return func(s *spawning) {
		s.key = func(input any) (string, error) {
			given, is := input.(In)
			if !is {
				return "", fmt.Errorf("jetflow: the key is of another type than the input, a %T", input)
			}
			return key(given), nil
		}
	}
}

// Children are the children of one spawn, in their order. What is spawned twice is there once.
type Children[Out any] struct{ of []*spawned }

// Len returns how many they are.
func (c *Children[Out]) Len() int { return len(c.of) }

// IDs returns their run ids.
func (c *Children[Out]) IDs() []string {
	ids := make([]string, len(c.of))
	for at, one := range c.of {
		ids[at] = one.id
	}
	return ids
}

// Spawn spawns a child for each input. A step is complete when its function has returned and its children are done: so
// spawn, return, and let the next step read Children; or wait for them in the step, by Join.
func Spawn[In, Out any](ctx *Ctx, flow *Workflow[In, Out], inputs []In, options ...SpawnOption) (*Children[Out], error) {
	return SpawnAll(ctx, flow, slices.Values(inputs), options...)
}

// SpawnAll is Spawn, for inputs that are made while they are spawned.
func SpawnAll[In, Out any](ctx *Ctx, flow *Workflow[In, Out], inputs iter.Seq[In], options ...SpawnOption) (*Children[Out], error) {
	return SpawnByName[Out](ctx, flow.def.name, inputs, options...)
}

// SpawnByName is SpawnAll, for a workflow whose code is elsewhere, perhaps in another language.
func SpawnByName[Out, In any](ctx *Ctx, workflow string, inputs iter.Seq[In], options ...SpawnOption) (*Children[Out], error) {
	found, err := ctx.x.spawn(ctx, workflow, func(yield func(any) bool) {
		inputs(func(input In) bool { return yield(input) })
	}, newSpawning(options))
	return &Children[Out]{found}, err
}

// Detach spawns a child that is a root run otherwise: it is in no join, and goes on when this run is cancelled. It
// returns the child's run id.
func Detach(ctx *Ctx, workflow string, input any, options ...SpawnOption) (string, error) {
	set := newSpawning(options)
	set.detached = true
	found, err := ctx.x.spawn(ctx, workflow, func(yield func(any) bool) { yield(input) }, set)
	if err != nil {
		return "", err
	}
	return found[0].id, nil
}

// spawnWindow is how many children are being stored at once.
const spawnWindow = 2000

func (x *execution) spawn(ctx *Ctx, workflow string, inputs iter.Seq[any], set *spawning) ([]*spawned, error) {
	o := ctx.op()
	if !wire.IsName(workflow) {
		return nil, runs.Faultf("InvalidDeclaration", "%.80q is no name of a workflow", workflow)
	}
	if x.task.Depth >= x.w.set.maxDepth {
		return nil, runs.Faultf("DepthExceeded", "runs nest %d levels deep at most", x.w.set.maxDepth)
	}
	declared := o.Declared(workflow)
	if o.Err != nil {
		return nil, o.Err
	}
	set.deadline = math.Inf(1)
	if declared.Deadline != nil {
		set.deadline = runs.Now() + *declared.Deadline
	}
	if within := x.step.set.policy.rule.Seconds; within != nil && !set.detached {
		set.deadline = min(set.deadline, runs.Now()+*within)
	}
	var found, made []*spawned
	listed := map[string]bool{}
	add := func(one *spawned) {
		if !listed[one.id] {
			listed[one.id], found = true, append(found, one)
		}
	}
	err := o.StoreMany(ctx, spawnWindow, func(yield func(*nats.Msg, func(broker.Answer) error) bool) {
		for input := range inputs {
			t, err := x.child(workflow, declared, input, set)
			if err != nil {
				o.Err = err
				return
			}
			if t.Input, t.Value = o.Large(t.Root, t.Input); o.Err != nil {
				return
			}
			one := &spawned{id: t.Run, digest: t.Digest}
			if known := x.know(one, set); known != nil {
				if set.key != nil && known.digest != t.Digest {
					o.Err = conflict(t)
					return
				}
				add(known)
				continue
			}
			add(one)
			made = append(made, one)
			settle := func(told broker.Answer) error { return x.settled(t, one, told, set) }
			m := runs.Message(o.Names, t, t.FirstID())
			if t.Input = nil; !yield(m, settle) {
				return
			}
		}
	})
	if !set.detached {
		x.lock.Lock()
		for _, one := range made {
			if one.stored {
				x.order = append(x.order, one)
			} else { // it is none of the step's, or nobody knows: a step that goes on all the same does not wait for it
				delete(x.byID, one.id)
			}
		}
		x.lock.Unlock()
	}
	if err = errors.Join(o.Err, err); err != nil || set.detached || !x.clean || len(made) == 0 {
		return found, err
	}
	// The descendants of the root run are counted, about, and too many refused.
	value, _ := o.Add(o.Counter("tree", x.task.Root, x.task.Root, "_tree"), int64(len(made)))
	if value > x.w.set.maxTree {
		return found, runs.Faultf("TreeTooLarge", "the root run has %d descendants, and %d are allowed", value, x.w.set.maxTree)
	}
	return found, o.Err
}

// know returns the child of the step that has the same id; if there is none, this one is it from now on.
func (x *execution) know(one *spawned, set *spawning) *spawned {
	if set.detached {
		return nil
	}
	x.lock.Lock()
	defer x.lock.Unlock()
	known := x.byID[one.id]
	if known == nil {
		x.byID[one.id] = one
	}
	return known
}

func conflict(t *wire.Task) error {
	return runs.Faultf("KeyConflict", "the key %s of a child of %q was used with another input", t.Key, t.Workflow)
}

// child returns the first task of a child.
func (x *execution) child(workflow string, declared *runs.Declared, input any, set *spawning) (*wire.Task, error) {
	text, err := encode(input)
	if err != nil {
		return nil, runs.Faultf("InvalidInput", "an input of %q cannot be written as JSON: %v", workflow, err)
	}
	digest, err := wire.Digest(text, declared.Schema)
	if err != nil {
		return nil, runs.Faultf("InvalidInput", "an input of %q: %v", workflow, err)
	}
	p := x.task
	t := &wire.Task{Workflow: workflow, Step: declared.Graph.First(), Root: p.Root, Parent: p.Run, ParentStep: p.Step,
		Version: declared.Version, Depth: p.Depth + 1, Metadata: p.Metadata, Trace: p.Trace, Level: p.Level, Input: text}
	if !set.detached {
		t.Deadline, t.Eager, t.Shared = p.Deadline, x.step.set.policy.rule.Early, x.graph.IsShared(p.Step)
		t.Held = strings.TrimSpace(p.Held + " " + p.Places)
	}
	if nearest, _ := t.DeadlineAt(); set.deadline < nearest {
		t.Deadline = seconds(set.deadline)
	}
	if set.key == nil {
		t.Run = wire.ChildID(p.Run, workflow, nil, digest)
	} else {
		key, err := set.key(input)
		if err == nil {
			err = wire.CheckKey(key)
		}
		if err != nil {
			return nil, err
		}
		t.Run, t.Key, t.Digest = wire.ChildID(p.Run, workflow, &key, ""), shown(key), digest
	}
	if set.detached {
		t.Root, t.Parent, t.ParentStep, t.Digest = t.Run, wire.None, wire.None, digest
	}
	return t, nil
}

// settled reads what became of a child's task.
func (x *execution) settled(t *wire.Task, one *spawned, told broker.Answer, set *spawning) error {
	owner := ""
	if told.Taken != nil {
		stored, err := x.w.engine.ReadTask(told.Taken.Subject, told.Taken.Header, nil)
		if err != nil {
			return err
		}
		if set.key != nil && stored.Digest != t.Digest {
			return conflict(t)
		}
		if stored.ParentStep != t.ParentStep {
			owner = stored.ParentStep
		}
	}
	x.lock.Lock()
	defer x.lock.Unlock()
	one.stored, one.owner = true, owner
	return nil
}
