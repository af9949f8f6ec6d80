package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"jetflow.dev/go"
)

var (
	patient = jetflow.Retry{Attempts: 1_000_000, Initial: 50 * time.Millisecond, Max: time.Second}
	short   = jetflow.Retry{Attempts: 3, Initial: 50 * time.Millisecond, Max: 200 * time.Millisecond}
)

type children = *jetflow.Children[json.RawMessage]

func seconds(count float64) time.Duration { return time.Duration(count * float64(time.Second)) }

func work(ctx context.Context, most float64) error {
	select {
	case <-time.After(seconds(rand.Float64() * most)):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// load are the workflows of tests/chaos/load.py that this worker has as well.
func load() []jetflow.Flow {
	return append(trees(),
		jetflow.Define("leaf", func(ctx *jetflow.Ctx, given leaf) (int64, error) {
			if int64(ctx.Attempt()) <= failsBefore(given.Seed) {
				return 0, fmt.Errorf("attempt %d of leaf %d", ctx.Attempt(), given.Seed)
			}
			return leafValue(given.Seed), work(ctx, 0.05)
		}, patient),
		jetflow.Define("sync-leaf", func(ctx *jetflow.Ctx, given leaf) (int64, error) {
			return leafValue(given.Seed), work(ctx, 0.02)
		}, patient),
		jetflow.Define("late", func(ctx *jetflow.Ctx, given leaf) (int64, error) {
			if ctx.Attempt() <= lateAttempts(given.Seed) {
				return 0, jetflow.RetryAfter(seconds(pause(given.Seed, "late", ctx.Attempt())), errors.New("it is too early"))
			}
			return leafValue(given.Seed), nil
		}, patient),
		jetflow.Define("doomed", func(_ *jetflow.Ctx, given leaf) (int64, error) {
			return 0, fmt.Errorf("leaf %d is doomed", given.Seed)
		}, short),
	)
}

func spawn[In any](ctx *jetflow.Ctx, child string, inputs []In, options ...jetflow.SpawnOption) (children, error) {
	return jetflow.SpawnByName[json.RawMessage](ctx, child, slices.Values(inputs), options...)
}

func spawnLeaves(ctx *jetflow.Ctx, of group) (children, error) {
	var inputs []leaf
	for _, seed := range of.seeds {
		inputs = append(inputs, leaf{seed})
	}
	if of.keyed {
		return spawn(ctx, of.child, inputs, jetflow.Key(func(one leaf) string { return fmt.Sprint("leaf ", one.Seed) }))
	}
	return spawn(ctx, of.child, inputs)
}

func spawnAll(ctx *jetflow.Ctx, kind string, n node) ([]children, error) {
	var all []children
	for _, some := range leaves(kind, n) {
		spawned, err := spawnLeaves(ctx, some)
		if err != nil {
			return nil, err
		}
		all = append(all, spawned)
	}
	for child, nodes := range subtrees(kind, n) {
		spawned, err := spawn(ctx, child, nodes, jetflow.Key(func(one node) string { return fmt.Sprint("tree ", one.Seed) }))
		if err != nil {
			return nil, err
		}
		all = append(all, spawned)
	}
	return all, nil
}

// add adds what a child returned: a number, a total, or the outputs of several last steps.
func (t *total) add(output json.RawMessage) error {
	var number int64
	if json.Unmarshal(output, &number) == nil {
		t.Total += number
		return nil
	}
	var some map[string]int64
	if err := json.Unmarshal(output, &some); err != nil {
		return err
	}
	t.Failed += some["failed"]
	delete(some, "failed")
	for _, one := range some {
		t.Total += one
	}
	return nil
}

func (t *total) settle(ctx *jetflow.Ctx, all ...children) error {
	for _, some := range all {
		joined, err := some.Settle(ctx, jetflow.Collect())
		if err != nil {
			return err
		}
		t.Failed += int64(len(joined.Failed))
		for _, one := range joined.Succeeded {
			if err := t.add(one.Output); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *total) complete(ctx *jetflow.Ctx, all []children) error {
	for _, some := range all {
		for child, err := range some.AsCompleted(ctx) {
			switch {
			case err != nil:
				return err
			case child.Err != nil:
				t.Failed++
			default:
				if err := t.add(child.Output); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// join joins children of which none may fail.
func (t *total) join(ctx *jetflow.Ctx, all ...children) error {
	for _, some := range all {
		outputs, err := some.Join(ctx)
		if err != nil {
			return err
		}
		for _, one := range outputs {
			if err := t.add(one); err != nil {
				return err
			}
		}
	}
	return nil
}

func branch(ctx *jetflow.Ctx, n node) (found total, err error) {
	all, err := spawnAll(ctx, "branch", n)
	if err != nil {
		return found, err
	}
	if draw(n.Seed, "join", 3) == 1 {
		err = found.complete(ctx, all)
	} else {
		err = found.settle(ctx, all...)
	}
	if err != nil {
		return found, err
	}
	more, err := spawnLeaves(ctx, group{"leaf", secondBatch(n.Seed, found.Total), false})
	if err != nil {
		return found, err
	}
	return found, found.join(ctx, more)
}

func narrow(ctx *jetflow.Ctx, n node) (found total, err error) {
	all, err := spawnAll(ctx, "narrow", n)
	if err != nil {
		return found, err
	}
	return found, found.join(ctx, all...)
}

// timely waits for the first of its children for some time alone, and then for all.
func timely(ctx *jetflow.Ctx, n node) (found total, err error) {
	all, err := spawnAll(ctx, "timely", n)
	if err != nil {
		return found, err
	}
	if _, err := all[0].Settle(ctx, jetflow.Collect().Within(seconds(bound(n.Seed)))); err != nil {
		return found, err
	}
	return found, found.settle(ctx, all...)
}

func trees() []jetflow.Flow {
	scatter := jetflow.NewFlow[node, total]("scatter", patient)
	throw := jetflow.Step(scatter, "throw", func(ctx *jetflow.Ctx, n node) (count int, err error) {
		all, err := spawnAll(ctx, "scatter", n)
		for _, some := range all {
			count += some.Len()
		}
		return count, err
	})
	jetflow.Step(scatter, "gather", func(ctx *jetflow.Ctx, _ node) (found total, err error) {
		thrown, err := jetflow.Output(ctx, throw)
		for child, wrong := range jetflow.ChildrenOf[json.RawMessage](ctx, throw) {
			if err = errors.Join(err, wrong, child.Err); err == nil {
				thrown, err = thrown-1, found.add(child.Output)
			}
		}
		if err == nil && thrown != 0 {
			err = fmt.Errorf("%d children are missing", thrown)
		}
		return found, err
	}, jetflow.After(throw))

	diamond := jetflow.NewFlow[node, map[string]int64]("diamond", patient)
	left := jetflow.Step(diamond, "left", func(ctx *jetflow.Ctx, n node) (found total, err error) {
		all, err := spawnAll(ctx, "diamond", n)
		if err != nil {
			return found, err
		}
		shared, err := spawnLeaves(ctx, group{"leaf", []int64{sharedLeaf(n.Seed)}, false})
		if err != nil {
			return found, err
		}
		return found, found.join(ctx, append(all, shared)...)
	})
	right := jetflow.Step(diamond, "right", func(ctx *jetflow.Ctx, n node) (int64, error) {
		_, err := spawnLeaves(ctx, group{"leaf", []int64{sharedLeaf(n.Seed)}, false})
		if err == nil {
			_, err = spawn(ctx, "sync-leaf", []leaf{{n.Seed}}, jetflow.Key(func(leaf) string { return "right" }))
		}
		return leafValue(n.Seed), err
	})
	middle := jetflow.Step(diamond, "middle", func(ctx *jetflow.Ctx, _ node) (int64, error) {
		one, err := jetflow.Output(ctx, left)
		two, wrong := jetflow.Output(ctx, right)
		return one.Total + two, errors.Join(err, wrong)
	}, jetflow.After(left, right))
	jetflow.Step(diamond, "up", func(ctx *jetflow.Ctx, _ node) (int64, error) {
		one, err := jetflow.Output(ctx, middle)
		two, wrong := jetflow.Output(ctx, left)
		return one + two.Failed, errors.Join(err, wrong)
	}, jetflow.After(left, middle))
	jetflow.Step(diamond, "down", func(ctx *jetflow.Ctx, n node) (int64, error) {
		_, err := spawnLeaves(ctx, group{"leaf", []int64{n.Seed + 1}, false})
		return -leafValue(n.Seed), err
	}, jetflow.After(middle))

	return []jetflow.Flow{
		scatter, diamond, one("timely", "bounded", timely, jetflow.MaxRunning(4)),
		one("branch", "fan", branch), one("narrow", "squeeze", narrow, jetflow.MaxRunning(2)),
	}
}

func one(name, step string, run func(*jetflow.Ctx, node) (total, error), options ...jetflow.Option) jetflow.Flow {
	flow := jetflow.NewFlow[node, total](name, patient)
	jetflow.Step(flow, step, run, options...)
	return flow
}
