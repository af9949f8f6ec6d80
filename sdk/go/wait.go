package jetflow

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

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
	x, rule := ctx.x, policy.rule
	until, err := x.limit(ctx, rule)
	if err != nil {
		return nil, err
	}
	verdict := ""
	done := func() bool {
		succeeded, ended, total := 0, 0, len(c.of)
		for _, one := range c.of {
			if one.outcome != nil {
				ended++
				if one.outcome.Status == wire.Succeeded {
					succeeded++
				}
			}
		}
		late := until != nil && runs.Now() >= *until
		if late {
			total = ended
		}
		verdict = rule.Verdict(total, succeeded, ended)
		return verdict != "open" || late
	}
	record := &wire.Join{Needed: rule.Needed(len(c.of)), Until: until}
	if rule != (wire.Policy{}) {
		record.Policy, record.Total = &rule, len(c.of)
	}
	if err := x.wait(ctx, c.of, done, record); err != nil {
		return nil, err
	}
	made := &Joined[Out]{}
	open := map[string]bool{}
	for _, one := range c.of {
		outcome := x.deal(one)
		if outcome == nil {
			made.Open, open[one.id] = append(made.Open, one.id), true
		} else if child := read[Out](ctx, one.id, outcome); child.Err != nil {
			made.Failed = append(made.Failed, child)
		} else {
			made.Succeeded = append(made.Succeeded, child)
		}
	}
	if o := ctx.op(); len(open) > 0 && rule.CancelRest {
		if o.CancelOpen(runs.JoinOf(x.task), open); o.Err != nil {
			return made, o.Err
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
			done := func() bool {
				at := slices.IndexFunc(c.of, func(one *spawned) bool { return one.outcome != nil && !told[one] })
				if at >= 0 {
					next = c.of[at]
				}
				return at >= 0
			}
			if err := ctx.x.wait(ctx, c.of, done, &wire.Join{Needed: len(told) + 1}); err != nil {
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
	if outcome.Status != wire.Succeeded {
		return Child[Out]{ID: id, Err: &RunFailed{id, outcome.Status, outcome.Failures()}}
	}
	output, err := outputOf[Out](ctx.op(), ctx.x.task.Root, outcome)
	if err != nil {
		err = &RunFailed{id, wire.Failed, []Failure{*failure(outcome.Step, err)}}
	}
	return Child[Out]{id, output, err}
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

// wait waits for children until done says that the step may go on: warm for a while, then cold. It is ErrParked then;
// the record says until when, and for how many outcomes at least.
func (x *execution) wait(ctx *Ctx, of []*spawned, done func() bool, record *wire.Join) error {
	isDone := func() bool {
		x.lock.Lock()
		defer x.lock.Unlock()
		return done()
	}
	if x.isParked() {
		return ErrParked
	}
	if err := x.refresh(ctx, of); err != nil || isDone() {
		return err
	}
	x.pause()
	defer x.resume()
	if x.w.set.parkAfter <= 0 {
		return x.park(of, record)
	}
	if err := x.listen(); err != nil {
		return err
	}
	patience := time.After(x.w.set.parkAfter)
	poll := time.NewTicker(time.Second)
	defer poll.Stop()
	var late <-chan time.Time
	if record.Until != nil {
		late = time.After(time.Duration((*record.Until - runs.Now()) * float64(time.Second)))
	}
	borrows := slices.ContainsFunc(of, func(one *spawned) bool { return one.owner != "" })
	look := true // behind the subscription: what has ended before was told to nobody
	for count := ""; ; {
		if look {
			if err := x.refresh(ctx, of); err != nil {
				return err
			}
		}
		if isDone() {
			return nil
		}
		look = true
		select {
		case <-x.news:
			look = false
		case <-poll.C: // a live copy may be lost; the counter tells whether there is any news
			o, t, before := ctx.op(), x.task, count
			if stored := o.Last(o.Counter("join", t.Root, t.Run, t.Step)); stored != nil {
				count = string(stored.Body)
			}
			if o.Err != nil {
				return o.Err
			}
			look = count != before || borrows
		case <-late:
		case <-patience:
			return x.park(of, record)
		case <-x.w.stopping:
			return x.park(of, record)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// listen hears the live copies of the ends of the step's children, from its first wait on.
func (x *execution) listen() (err error) {
	x.listening.Do(func() {
		subject := x.w.engine.Of("live.run", x.task.Root, x.task.Run, "*.*")
		x.live, err = x.w.engine.NC.Subscribe(subject, func(msg *nats.Msg) {
			x.lock.Lock()
			if child := x.byID[wire.LastToken(msg.Subject)]; child != nil && child.outcome == nil {
				child.outcome = wire.DecodeOutcome(msg.Data)
			}
			x.lock.Unlock()
			select {
			case x.news <- struct{}{}:
			default:
			}
		})
	})
	return err
}

func (x *execution) isParked() bool {
	x.lock.Lock()
	defer x.lock.Unlock()
	return x.parked != nil
}

// park notes that the step waits cold.
func (x *execution) park(of []*spawned, record *wire.Join) error {
	record.Kind, record.Outcome = "parked", wire.Outcome{Status: wire.Succeeded, Attempt: 1}
	ids, borrowed := apart(of)
	record.Borrowed, record.Members = borrowed, wire.PackMembers(ids)
	x.lock.Lock()
	defer x.lock.Unlock()
	if x.parked == nil {
		x.parked = record
	}
	return ErrParked
}

// apart returns the ids of own children, and those that were borrowed.
func apart(of []*spawned) (ids []string, borrowed [][2]string) {
	for _, one := range of {
		if one.owner != "" {
			borrowed = append(borrowed, [2]string{one.id, one.owner})
		} else {
			ids = append(ids, one.id)
		}
	}
	return ids, borrowed
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
	if x.waits--; x.waits == 0 && x.parked == nil {
		x.h.takeSlot()
		x.clock.start()
	}
}

// refresh reads which children have ended.
func (x *execution) refresh(ctx *Ctx, of []*spawned) error {
	o, t := ctx.op(), x.task
	open := map[string]*spawned{}
	x.lock.Lock()
	for _, one := range of {
		if one.outcome == nil {
			open[o.Run(t.Root, t.Run, cmp.Or(one.owner, t.Step), one.id)] = one
		}
	}
	x.lock.Unlock()
	asked := slices.Collect(maps.Keys(open))
	if len(asked) > 20 {
		asked = slices.DeleteFunc(o.Subjects(o.Run(t.Root, t.Run, "*", "*")), func(one string) bool { return open[one] == nil })
	}
	found := o.Many(asked)
	x.lock.Lock()
	defer x.lock.Unlock()
	for subject, message := range found {
		open[subject].outcome = wire.DecodeOutcome(message.Body)
	}
	return o.Err
}
