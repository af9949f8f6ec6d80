package jetflow

import (
	"errors"
	"fmt"
	"iter"
	"slices"

	"jetflow.dev/go/internal/broker"
	"jetflow.dev/go/internal/runs"
	"jetflow.dev/go/internal/wire"
)

// spawned is a child of a step; owner is the step that spawned it first, if that is another.
type spawned struct {
	id, workflow, owner, digest string
	joined, stored              bool
	outcome                     *wire.Outcome
}

type spawning struct {
	key      func(any) (string, error)
	detached bool
	deadline float64
}

// SpawnOption says how children are spawned.
type SpawnOption func(*spawning)

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
	set := &spawning{}
	for _, option := range options {
		option(set)
	}
	found, err := ctx.x.spawn(ctx, workflow, func(yield func(any) bool) {
		for input := range inputs {
			if !yield(input) {
				return
			}
		}
	}, set)
	return &Children[Out]{found}, err
}

// Detach spawns a child that is a root run otherwise: it is in no join, and goes on when this run is cancelled. It
// returns the child's run id.
func Detach(ctx *Ctx, workflow string, input any, options ...SpawnOption) (string, error) {
	set := &spawning{detached: true}
	for _, option := range options {
		option(set)
	}
	found, err := ctx.x.spawn(ctx, workflow, func(yield func(any) bool) { yield(input) }, set)
	if err != nil {
		return "", err
	}
	return found[0].id, nil
}

// spawnWindow is how many children are being stored at once.
const spawnWindow = 2000

func (x *execution) spawn(ctx *Ctx, workflow string, inputs iter.Seq[any], set *spawning) ([]*spawned, error) {
	if !wire.IsName(workflow) {
		return nil, runs.Faultf("InvalidDeclaration", "%.80q is no name of a workflow", workflow)
	}
	declared, err := x.w.engine.Declared(ctx, workflow)
	if err != nil {
		return nil, err
	}
	if x.task.Depth >= x.w.set.maxDepth {
		return nil, runs.Faultf("DepthExceeded", "runs nest %d levels deep at most", x.w.set.maxDepth)
	}
	if declared.Deadline != nil {
		set.deadline = runs.Now() + *declared.Deadline
	}
	if within := x.step.set.policy.rule.Seconds; within != nil && !set.detached {
		if own := runs.Now() + *within; set.deadline == 0 || own < set.deadline {
			set.deadline = own
		}
	}
	var found []*spawned
	var fault error
	var infos []*spawned
	listed := map[string]bool{}
	err = x.w.engine.StoreMany(ctx, spawnWindow, func(yield func(*broker.Write) bool) {
		for input := range inputs {
			t, key, err := x.child(workflow, declared, input, set)
			if err == nil {
				err = packInput(ctx, x.w.engine, t)
			}
			if err != nil {
				fault = err
				return
			}
			one := &spawned{id: t.Run, workflow: workflow, digest: t.Digest}
			if !set.detached {
				x.lock.Lock()
				known := x.byID[t.Run]
				if known == nil {
					x.byID[t.Run] = one
				}
				x.lock.Unlock()
				if known != nil {
					if key && known.digest != t.Digest {
						fault = conflict(workflow, t)
						return
					}
					if !listed[t.Run] {
						listed[t.Run], found = true, append(found, known)
					}
					continue
				}
			}
			listed[t.Run], found = true, append(found, one)
			infos = append(infos, one)
			w := x.w.engine.Write(t, t.FirstID())
			w.Done = func(told broker.Answer) error { return x.settled(t, one, told, set) }
			if t.Input = nil; !yield(w) {
				return
			}
		}
	})
	if !set.detached {
		x.lock.Lock()
		for _, one := range infos {
			if one.stored {
				x.order = append(x.order, one)
			} else { // it is none of the step's, or nobody knows: a step that goes on all the same does not wait for it
				delete(x.byID, one.id)
			}
		}
		x.lock.Unlock()
	}
	if err = errors.Join(fault, err); err != nil || set.detached {
		return found, err
	}
	return found, x.countTree(ctx, len(infos))
}

func conflict(workflow string, t *wire.Task) error {
	return runs.Faultf("KeyConflict", "the key %s of a child of %q was used with another input", t.Key, workflow)
}

// child returns the first task of a child, and whether it has a key.
func (x *execution) child(workflow string, declared *runs.Declared, input any, set *spawning) (*wire.Task, bool, error) {
	text, err := encode(input)
	if err != nil {
		return nil, false, runs.Faultf("InvalidInput", "an input of %q cannot be written as JSON: %v", workflow, err)
	}
	digest, err := wire.Digest(text, declared.Schema)
	if err != nil {
		return nil, false, runs.Faultf("InvalidInput", "an input of %q: %v", workflow, err)
	}
	p := x.task
	t := &wire.Task{Workflow: workflow, Step: declared.Graph.First(), Root: p.Root, Parent: p.Run, ParentStep: p.Step,
		Version: declared.Version, Depth: p.Depth + 1, Metadata: p.Metadata, Trace: p.Trace, Input: text}
	if !set.detached {
		t.Deadline, t.Eager = p.Deadline, x.step.set.policy.rule.Early
	}
	if nearest, _ := t.DeadlineAt(); set.deadline > 0 && set.deadline < nearest {
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
			return nil, false, err
		}
		t.Run, t.Key, t.Digest = wire.ChildID(p.Run, workflow, &key, ""), shown(key), digest
	}
	if set.detached {
		t.Root, t.Parent, t.ParentStep, t.Digest = t.Run, wire.None, wire.None, digest
	}
	return t, set.key != nil, nil
}

// settled reads what became of a child's task.
func (x *execution) settled(t *wire.Task, one *spawned, told broker.Answer, set *spawning) error {
	if told.Taken == nil {
		x.lock.Lock()
		defer x.lock.Unlock()
		one.stored = true
		return nil
	}
	stored, err := x.w.engine.Names.ReadTask(told.Taken.Subject, told.Taken.Header, nil)
	if err != nil {
		return err
	}
	if set.key != nil && stored.Digest != t.Digest {
		return conflict(t.Workflow, t)
	}
	x.lock.Lock()
	defer x.lock.Unlock()
	one.stored = true
	if stored.ParentStep != t.ParentStep {
		one.owner = stored.ParentStep
	}
	return nil
}

// countTree counts the descendants of the root run, about, and refuses too many.
func (x *execution) countTree(ctx *Ctx, children int) error {
	if children == 0 || !x.clean {
		return nil
	}
	e := x.w.engine
	value, _, err := e.Add(ctx, e.Names.Counter("tree", x.task.Root, x.task.Root, "_tree"), int64(children))
	if err == nil && value > x.w.set.maxTree {
		err = runs.Faultf("TreeTooLarge", "the root run has %d descendants, and %d are allowed", value, x.w.set.maxTree)
	}
	return err
}
