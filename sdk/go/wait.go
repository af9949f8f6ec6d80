package jetflow

import (
	"context"
	"iter"
	"slices"
	"strconv"
	"time"

	"jetflow.dev/go/internal/runs"
	"jetflow.dev/go/internal/wire"
)

// Child is how a child has ended: Err is a *RunFailed, if it did not succeed.
type Child[Out any] struct {
	ID     string
	Output Out
	Err    error
}

// Joined is how the children of a join had ended when its policy was decided. Open are those that had not.
type Joined[Out any] struct {
	Succeeded []Child[Out]
	Failed    []Child[Out]
	Open      []string
}

// Join waits for all children, and returns their outputs in spawn order. The slot is free meanwhile, and the timeout
// stands still. It is a *ChildrenFailed if any did not succeed, and ErrParked if the step is to begin again later: then
// return that.
func (c *Children[Out]) Join(ctx *Ctx) ([]Out, error) {
	joined, err := c.Settle(ctx, Collect())
	if err != nil {
		return nil, err
	}
	if len(joined.Failed) > 0 {
		return nil, failedOf(joined.Failed, len(c.of))
	}
	outputs := make([]Out, len(joined.Succeeded))
	for at, one := range joined.Succeeded {
		outputs[at] = one.Output
	}
	return outputs, nil
}

func failedOf[Out any](failed []Child[Out], total int) *ChildrenFailed {
	made := &ChildrenFailed{Total: total}
	for _, one := range failed {
		made.Failed = append(made.Failed, one.Err.(*RunFailed))
	}
	return made
}

// Settle waits until a policy is decided, and tells how the children have ended. It is a *ChildrenFailed if the policy
// was missed; the Joined is there all the same.
func (c *Children[Out]) Settle(ctx *Ctx, policy JoinPolicy) (*Joined[Out], error) {
	until, err := ctx.x.limit(ctx, policy.rule)
	if err != nil {
		return nil, err
	}
	verdict := ""
	late := func() bool { return until != nil && runs.Now() >= *until }
	err = ctx.x.wait(ctx, c.of, waiting{policy: &policy.rule, until: until, enough: policy.rule.Needed(len(c.of)), done: func() bool {
		succeeded, ended := 0, 0
		for _, one := range c.of {
			if one.outcome != nil {
				ended++
				if one.outcome.Status == wire.Succeeded {
					succeeded++
				}
			}
		}
		total := len(c.of)
		if late() {
			total = ended
		}
		verdict = policy.rule.Verdict(total, succeeded, ended)
		return verdict != "open" || late()
	}})
	if err != nil {
		return nil, err
	}
	made := &Joined[Out]{}
	open := map[string]bool{}
	for _, one := range c.of {
		outcome := ctx.x.deal(one)
		if outcome == nil {
			made.Open, open[one.id] = append(made.Open, one.id), true
			continue
		}
		child := read[Out](ctx, one.id, outcome)
		if child.Err != nil {
			made.Failed = append(made.Failed, child)
		} else {
			made.Succeeded = append(made.Succeeded, child)
		}
	}
	if len(open) > 0 && policy.rule.CancelRest {
		join := runs.Join{Root: ctx.x.task.Root, Run: ctx.x.task.Run, Step: ctx.x.task.Step}
		if err := ctx.x.w.engine.CancelOpen(ctx, join, open); err != nil {
			return made, err
		}
	}
	if verdict != "met" {
		return made, failedOf(made.Failed, len(c.of))
	}
	return made, nil
}

// AsCompleted yields the children as they end. It may yield ErrParked: then return that.
func (c *Children[Out]) AsCompleted(ctx *Ctx) iter.Seq2[Child[Out], error] {
	return func(yield func(Child[Out], error) bool) {
		told := map[*spawned]bool{}
		for len(told) < len(c.of) {
			var next *spawned
			err := ctx.x.wait(ctx, c.of, waiting{enough: len(told) + 1, done: func() bool {
				for _, one := range c.of {
					if one.outcome != nil && !told[one] {
						next = one
						return true
					}
				}
				return false
			}})
			if err != nil {
				yield(Child[Out]{}, err)
				return
			}
			told[next] = true
			if !yield(read[Out](ctx, next.id, ctx.x.deal(next)), nil) {
				return
			}
		}
	}
}

// read returns how a child has ended. An output that cannot be read is a failure.
func read[Out any](ctx *Ctx, id string, outcome *wire.Outcome) Child[Out] {
	made := Child[Out]{ID: id}
	made.Output, made.Err = outputOf[Out](ctx, id, outcome)
	return made
}

func outputOf[Out any](ctx *Ctx, id string, outcome *wire.Outcome) (Out, error) {
	var none Out
	if outcome.Status != wire.Succeeded {
		return none, &RunFailed{id, outcome.Status, outcome.Failures()}
	}
	text, err := ctx.x.w.engine.Output(ctx, ctx.x.task.Root, outcome)
	var output Out
	if err == nil {
		output, err = decode[Out](text, "InvalidOutput")
	}
	if err != nil {
		return none, &RunFailed{id, wire.Failed, []Failure{*failure(outcome.Step, err)}}
	}
	return output, nil
}

// deal notes that the step has waited for a child, and has seen how it ended: that is returned, nil if it has not.
func (x *execution) deal(one *spawned) *wire.Outcome {
	x.lock.Lock()
	defer x.lock.Unlock()
	one.joined = true
	if one.outcome == nil || one.outcome.Status != wire.Succeeded {
		x.excused[one.id] = true
	}
	return one.outcome
}

// limit returns when a bounded join ends: the same in every turn.
func (x *execution) limit(ctx *Ctx, policy wire.Policy) (*float64, error) {
	if policy.Seconds == nil {
		return nil, nil
	}
	x.lock.Lock()
	name := "_join-" + strconv.Itoa(x.joins)
	x.joins++
	x.lock.Unlock()
	until, err := Once(ctx, name, func(context.Context) (float64, error) { return runs.Now() + *policy.Seconds, nil })
	return &until, err
}

// waiting is what a step waits for: done tells whether it may go on, enough how many outcomes that takes at least.
type waiting struct {
	done   func() bool
	enough int
	policy *wire.Policy
	until  *float64
}

func (x *execution) isDone(what waiting) bool {
	x.lock.Lock()
	defer x.lock.Unlock()
	return what.done()
}

// wait waits for children, warm for a while, then cold: it is ErrParked then.
func (x *execution) wait(ctx context.Context, of []*spawned, what waiting) error {
	x.lock.Lock()
	parked := x.parked != nil
	x.lock.Unlock()
	if parked {
		return ErrParked
	}
	if err := x.refresh(ctx, of); err != nil || x.isDone(what) {
		return err
	}
	x.pause()
	defer x.resume()
	heard, err := x.listen(of)
	if err != nil {
		return err
	}
	patience := time.NewTimer(x.w.set.parkAfter)
	defer patience.Stop()
	poll := time.NewTicker(time.Second)
	defer poll.Stop()
	var late <-chan time.Time
	if what.until != nil {
		late = time.After(time.Duration((*what.until - runs.Now()) * float64(time.Second)))
	}
	look := true // behind the subscription: what has ended before was told to nobody
	for count := ""; ; {
		if x.w.set.parkAfter <= 0 || x.w.isStopping() {
			return x.parkFor(of, what)
		}
		if look {
			if err := x.refresh(ctx, of); err != nil {
				return err
			}
		}
		if x.isDone(what) {
			return nil
		}
		look = true
		select {
		case <-heard:
			look = false
		case <-poll.C: // a live copy may be lost; the counter tells whether there is any news
			before := count
			if count, err = x.countOf(ctx); err != nil {
				return err
			}
			look = count != before || x.hasBorrowed(of)
		case <-late:
		case <-patience.C:
			return x.parkFor(of, what)
		case <-x.w.stopping:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// countOf returns what the step's counter says.
func (x *execution) countOf(ctx context.Context) (string, error) {
	e := x.w.engine
	stored, err := e.Last(ctx, e.Names.Counters(), e.Names.Counter("join", x.task.Root, x.task.Run, x.task.Step))
	if err != nil || stored == nil {
		return "", err
	}
	return string(stored.Body), nil
}

func (x *execution) hasBorrowed(of []*spawned) bool {
	return slices.ContainsFunc(of, func(one *spawned) bool { return one.owner != "" })
}

// parkFor notes that the step waits cold.
func (x *execution) parkFor(of []*spawned, what waiting) error {
	record := &wire.Join{Kind: "parked", Needed: what.enough, Until: what.until, Outcome: wire.Outcome{Status: wire.Succeeded, Attempt: 1}}
	if what.policy != nil && *what.policy != (wire.Policy{}) {
		policy := *what.policy
		record.Policy, record.Total = &policy, len(of)
	}
	var ids []string
	for _, one := range of {
		if one.owner != "" {
			record.Borrowed = append(record.Borrowed, [2]string{one.id, one.owner})
		} else {
			ids = append(ids, one.id)
		}
	}
	record.Members = wire.PackMembers(ids)
	x.lock.Lock()
	defer x.lock.Unlock()
	if x.parked == nil {
		x.parked = record
	}
	return ErrParked
}

// pause gives the slot back, and stops the clock, while a step waits.
func (x *execution) pause() {
	x.lock.Lock()
	defer x.lock.Unlock()
	if x.waits++; x.waits == 1 {
		x.clock.stop()
		x.h.leaveSlot()
	}
}

func (x *execution) resume() {
	x.lock.Lock()
	defer x.lock.Unlock()
	if x.waits--; x.waits > 0 || x.parked != nil {
		return
	}
	x.h.takeSlot()
	x.clock.start()
}

// refresh reads which children have ended.
func (x *execution) refresh(ctx context.Context, of []*spawned) error {
	e, t := x.w.engine, x.task
	subjects := map[string]*spawned{}
	x.lock.Lock()
	for _, one := range of {
		if one.outcome == nil {
			owner := one.owner
			if owner == "" {
				owner = t.Step
			}
			subjects[e.Names.Run(t.Root, t.Run, owner, one.id)] = one
		}
	}
	x.lock.Unlock()
	var asked []string
	if len(subjects) <= 20 {
		for subject := range subjects {
			asked = append(asked, subject)
		}
	} else {
		stored, err := e.Subjects(ctx, e.Names.Records(), e.Names.Run(t.Root, t.Run, "*", "*"))
		if err != nil {
			return err
		}
		for _, subject := range stored {
			if subjects[subject] != nil {
				asked = append(asked, subject)
			}
		}
	}
	found, err := e.Many(ctx, e.Names.Records(), asked)
	if err != nil {
		return err
	}
	x.lock.Lock()
	defer x.lock.Unlock()
	for subject, message := range found {
		subjects[subject].outcome = wire.DecodeOutcome(message.Body)
	}
	return nil
}
