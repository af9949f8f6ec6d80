package jetflow

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"jetflow.dev/go/internal/runs"
	"jetflow.dev/go/internal/wire"
)

// execution is one attempt of a step: its body, and what follows from how that ends.
type execution struct {
	h       *held
	w       *Worker
	task    *wire.Task
	graph   *wire.Graph
	step    *step
	attempt int
	started float64
	clean   bool // nothing of the step can have been stored before
	cancel  context.CancelCauseFunc
	clock   *clock

	lock      sync.Mutex
	order     []*spawned // children of the step, each once
	byID      map[string]*spawned
	joins     int // bounded ones
	waits     int // bodies of goroutines that wait
	excused   map[string]bool
	parked    *wire.Join
	listening sync.Once
	live      *nats.Subscription
	news      chan struct{} // of children
}

// clock bounds the time of an attempt, but for the time that it waits.
type clock struct {
	left  time.Duration
	began time.Time
	timer *time.Timer // nil without a bound
}

func newClock(limit time.Duration, over func()) *clock {
	c := &clock{left: limit, began: time.Now()}
	if limit > 0 {
		c.timer = time.AfterFunc(limit, over)
	}
	return c
}

func (c *clock) stop() {
	if c.timer != nil && c.timer.Stop() {
		c.left -= time.Since(c.began)
	}
}

func (c *clock) start() {
	if c.timer != nil {
		c.began = time.Now()
		c.timer.Reset(max(c.left, 0))
	}
}

var errLate = runs.Faultf("RunTimeout", "the run's deadline has passed")

// begin runs the step, unless it is too late for that.
func (x *execution) begin(again, onlyQueued bool) {
	x.started = runs.Now()
	deadline, _ := x.task.DeadlineAt()
	queued := x.step.set.scheduleTimeout
	switch lain := time.Since(x.h.Time); {
	case deadline <= x.started:
		x.end(wire.TimedOut, errLate.Failure(x.task.Step))
		return
	case queued > 0 && lain > queued && onlyQueued && x.task.Tried == 0:
		fault := runs.Faultf("RunTimeout", "it has lain in the queue for %s, and %s are allowed", lain.Round(time.Second), queued)
		x.end(wire.TimedOut, fault.Failure(x.task.Step))
		return
	case x.attempt > x.step.set.retry.attempts():
		fault := runs.Faultf("Poisoned", "%d attempts were made, and their workers were lost", x.attempt-1)
		x.end(wire.Failed, fault.Failure(x.task.Step))
		return
	}
	if again {
		begun := &wire.Attempt{Attempt: x.attempt, Worker: x.w.name, Started: x.started}
		x.h.op.Record(x.w.engine.Try(x.task, "begun-"+strconv.Itoa(x.h.Count)), begun)
	}
	if x.h.op.Err == nil {
		output, err := x.run(deadline)
		x.h.leaveSlot()
		x.conclude(output, err)
	}
}

// run calls the function of the step. A panic is an error of this attempt.
func (x *execution) run(deadline float64) (output json.RawMessage, err error) {
	ctx, cancel := context.WithCancelCause(x.w.bodies)
	defer cancel(nil)
	x.cancel = cancel
	if !math.IsInf(deadline, 1) {
		var end context.CancelFunc
		ctx, end = context.WithDeadlineCause(ctx, time.UnixMicro(int64(deadline*1e6)), ErrRunTimeout)
		defer end()
	}
	x.clock = newClock(x.step.set.timeout, func() { cancel(ErrStepTimeout) })
	defer func() {
		x.lock.Lock()
		defer x.lock.Unlock()
		x.clock.stop()
		if x.listening.Do(func() {}); x.live != nil {
			_ = x.live.Unsubscribe() // it fails where the connection is closed
		}
		if value := recover(); value != nil {
			output, err = nil, &panicked{value, string(debug.Stack())}
		}
		if err != nil && ctx.Err() != nil { // whatever it returns, this is why
			err = errors.Join(context.Cause(ctx), err)
		}
	}()
	x.h.begun.Store(true)
	x.h.body.Store(x)
	if x.w.marks.cover(x.task, x.graph) { // its mark came in between
		return nil, ErrCancelled
	}
	input := x.task.Input
	if x.task.Value != "" {
		o := x.w.engine.Op(ctx)
		if input = o.Value(x.task.Root, x.task.Value); o.Err != nil {
			return nil, o.Err
		}
	}
	return x.step.run(&Ctx{Context: ctx, x: x}, input)
}

// final are the types of errors that no other attempt mends.
const final = " InvalidInput InvalidOutput PayloadTooLarge InvalidDeclaration KeyConflict DepthExceeded TreeTooLarge NonRetryable RunTimeout "

// conclude does what follows from how the function has ended.
func (x *execution) conclude(output json.RawMessage, err error) {
	parked := x.isParked()
	switch {
	case (err != nil || parked) && x.w.marks.cover(x.task, x.graph):
		x.h.drop(x.task, x.graph)
		return
	case parked:
		x.store(x.parked)
		return
	case err == nil:
		x.succeed(output)
		return
	case errors.Is(err, ErrStopping):
		x.h.handBack(x.task, &wire.Attempt{Attempt: x.attempt, Started: x.started})
		return
	case errors.Is(err, ErrRunTimeout):
		x.end(wire.TimedOut, errLate.Failure(x.task.Step))
		return
	}
	status, told := wire.Failed, failure(x.task.Step, err)
	if errors.Is(err, ErrStepTimeout) {
		status = wire.TimedOut
		told.Type, told.Message = "StepTimeout", "the attempt took longer than "+x.step.set.timeout.String()
	}
	retry := x.step.set.retry
	isFinal := strings.Contains(final, " "+told.Type+" ") || (told.Type == "LostValue" && x.task.Value != "")
	wanted := told.Type != "ChildrenFailed" && told.Type != "ChildFailed"
	if retry.On != nil {
		wanted = retry.On(err)
	}
	if wanted && !isFinal && x.attempt < retry.attempts() {
		x.tryAgain(err, told)
	} else {
		x.end(status, told)
	}
}

func (x *execution) outcome(status string, why *wire.Failure) *wire.Outcome {
	made := runs.Ending(x.task, status, why)
	made.Attempt, made.Started, made.Worker = x.attempt, x.started, x.w.name
	return made
}

func (x *execution) succeed(output json.RawMessage) {
	outcome := x.outcome(wire.Succeeded, nil)
	outcome.Output = output
	x.h.op.Pack(x.task.Root, outcome)
	if fault := x.h.op.Fault(); fault != nil {
		x.end(wire.Failed, fault.Failure(x.task.Step))
	} else if record := x.sealing(outcome); record != nil {
		x.store(record)
	} else {
		x.h.op.Finish(x.task, x.graph, outcome, len(x.order) > 0)
	}
}

// end ends a step that did not succeed. If it may have spawned, others may have borrowed what it spawned.
func (x *execution) end(status string, why *wire.Failure) {
	outcome := x.outcome(status, why)
	if len(x.graph.Nodes) == 1 || (x.clean && len(x.order) == 0) {
		x.h.op.Finish(x.task, x.graph, outcome, len(x.order) > 0)
		return
	}
	x.store(&wire.Join{Kind: "sealed", Members: wire.PackMembers(nil), Outcome: *outcome})
}

// store stores the turn's join record, and does what follows from the one that is stored.
func (x *execution) store(record *wire.Join) { x.h.follow(x.task, x.put(record)) }

// put stores the turn's join record, and returns the one that is stored.
func (x *execution) put(record *wire.Join) *wire.Join {
	o, t := x.h.op, x.task
	record.Turn, record.Task = t.Turn, o.Names.Task(t)
	subject := o.Of("join", t.Root, t.Run, t.Step, strconv.Itoa(t.Turn))
	short := record
	if _, ref := o.Large(t.Root, o.Encode(record)); ref != "" {
		short = &wire.Join{Kind: record.Kind, Turn: record.Turn, Task: record.Task, Needed: record.Needed, Total: record.Total,
			Whole: &ref, Outcome: wire.Outcome{Status: wire.Succeeded}}
	}
	if taken := o.Record(subject, short); taken != nil {
		return o.ReadJoin(t.Root, taken)
	}
	return record
}

// tryAgain parks an attempt that failed until the next one is due.
func (x *execution) tryAgain(err error, told *wire.Failure) {
	o, now := x.h.op, runs.Now()
	delay := x.step.set.retry.delay(x.attempt)
	var later retryAfter
	if errors.As(err, &later) {
		delay = later.delay.Seconds()
	}
	deadline, _ := x.task.DeadlineAt()
	until := min(now+max(delay, 0), max(deadline, now))
	o.Record(o.Try(x.task, strconv.Itoa(x.h.Count)), &wire.Attempt{Attempt: x.attempt, Worker: x.w.name, Started: x.started,
		Ended: now, Error: told, Again: &until})
	record := &wire.Join{Kind: "parked", Until: &until, Tried: x.attempt, Outcome: wire.Outcome{Status: wire.Succeeded, Attempt: 1}}
	stored := x.put(record)
	if stored == record && until-now < 1 && x.step.set.maxRunning == 0 { // a short delay is kept in memory
		select {
		case <-time.After(time.Duration((until - runs.Now()) * float64(time.Second))):
			o.Publish(x.task.NextTurn(x.attempt))
			return
		case <-x.w.stopping:
		}
	}
	x.h.follow(x.task, stored)
}

// sealing returns the record that seals the step's children; nil if there is nothing to wait for, or to remember.
func (x *execution) sealing(outcome *wire.Outcome) *wire.Join {
	x.lock.Lock()
	defer x.lock.Unlock()
	alone := len(x.graph.Nodes) == 1
	if len(x.order) == 0 && (alone || x.clean) {
		return nil
	}
	ids, borrowed := apart(x.order)
	waited := !slices.ContainsFunc(x.order, func(one *spawned) bool { return !one.joined })
	if waited && (alone || (x.clean && len(borrowed) == 0)) {
		return nil
	}
	policy := x.step.set.policy.rule
	if waited {
		policy = wire.Policy{} // what it has waited for, it has dealt with
	}
	made := &wire.Join{Kind: "sealed", Needed: policy.Needed(len(x.order)), Total: len(x.order), Policy: &policy,
		Borrowed: borrowed, Excused: slices.Collect(maps.Keys(x.excused)), Outcome: *outcome}
	if x.clean && !policy.Early {
		made.IDSum = wire.SumOf(slices.Values(ids))
	} else {
		made.Members = wire.PackMembers(ids)
	}
	return made
}
