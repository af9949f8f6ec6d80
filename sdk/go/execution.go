package jetflow

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"jetflow.dev/go/internal/broker"
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
	ctx     context.Context
	cancel  context.CancelCauseFunc
	clock   *clock

	lock     sync.Mutex
	order    []*spawned // children of the step, each once
	byID     map[string]*spawned
	joins    int // bounded ones
	waits    int // bodies of goroutines that wait
	excused  map[string]bool
	parked   *wire.Join
	children *listener
}

func newExecution(h *held, t *wire.Task, g *wire.Graph, s *step) *execution {
	return &execution{h: h, w: h.w, task: t, graph: g, step: s, attempt: t.Tried + 1, byID: map[string]*spawned{},
		excused: map[string]bool{}}
}

// clock bounds the time of an attempt, but for the time that it waits.
type clock struct {
	lock  sync.Mutex
	left  time.Duration
	began time.Time
	timer *time.Timer
}

func newClock(limit time.Duration, over func()) *clock {
	c := &clock{left: limit, began: time.Now()}
	if limit > 0 {
		c.timer = time.AfterFunc(limit, over)
	}
	return c
}

func (c *clock) stop() {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.timer != nil && c.timer.Stop() {
		c.left -= time.Since(c.began)
	}
}

func (c *clock) start() {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.timer != nil {
		c.began = time.Now()
		c.timer.Reset(max(c.left, 0))
	}
}

// begin runs the step, unless it is too late for that.
func (x *execution) begin(again, onlyQueued bool) error {
	x.started = runs.Now()
	deadline, _ := x.task.DeadlineAt()
	queued := x.step.set.scheduleTimeout
	switch lain := time.Since(x.h.Time); {
	case deadline <= x.started:
		return x.end(wire.TimedOut, failure(x.task.Step, runs.Faultf("RunTimeout", "the run's deadline has passed")))
	case queued > 0 && lain > queued && onlyQueued && x.task.Tried == 0:
		fault := runs.Faultf("RunTimeout", "it has lain in the queue for %s, and %s are allowed", lain.Round(time.Second), queued)
		return x.end(wire.TimedOut, failure(x.task.Step, fault))
	case x.attempt > x.step.set.retry.attempts():
		fault := runs.Faultf("Poisoned", "%d attempts were made, and their workers were lost", x.attempt-1)
		return x.end(wire.Failed, failure(x.task.Step, fault))
	}
	if again {
		record := &wire.Attempt{Attempt: x.attempt, Worker: x.w.name, Started: x.started}
		subject := x.w.engine.Names.Try(x.task, "begun-"+strconv.Itoa(x.h.Count))
		if _, err := x.w.engine.Record(x.w.life, subject, record); err != nil {
			return err
		}
	}
	output, err := x.run(deadline)
	x.h.leaveSlot()
	return x.conclude(output, err)
}

// run calls the function of the step. A panic is an error of this attempt.
func (x *execution) run(deadline float64) (output json.RawMessage, err error) {
	x.ctx, x.cancel = context.WithCancelCause(x.w.bodies)
	defer x.cancel(nil)
	if !math.IsInf(deadline, 1) {
		var end context.CancelFunc
		x.ctx, end = context.WithDeadlineCause(x.ctx, time.UnixMicro(int64(deadline*1e6)), ErrRunTimeout)
		defer end()
	}
	x.clock = newClock(x.step.set.timeout, func() { x.cancel(ErrStepTimeout) })
	defer x.clock.stop()
	x.h.begun.Store(true)
	x.h.body.Store(x)
	if x.w.marks.cover(x.task, x.graph) { // its mark came in between
		return nil, ErrCancelled
	}
	input := x.task.Input
	if x.task.Value != "" {
		if input, err = x.w.engine.Value(x.ctx, x.task.Root, x.task.Value); err != nil {
			return nil, err
		}
	}
	defer func() {
		x.closeChildren()
		if value := recover(); value != nil {
			output, err = nil, &panicked{value, string(debug.Stack())}
		}
		if err != nil && x.ctx.Err() != nil { // whatever it returns, this is why
			err = errors.Join(context.Cause(x.ctx), err)
		}
	}()
	return x.step.run(&Ctx{Context: x.ctx, x: x}, input)
}

func (x *execution) conclude(output json.RawMessage, err error) error {
	x.lock.Lock()
	parked := x.parked
	x.lock.Unlock()
	switch {
	case x.w.marks.cover(x.task, x.graph) && (err != nil || parked != nil):
		return x.h.done(x.w.drop(x.task, x.graph))
	case parked != nil:
		return x.park(parked)
	case err == nil:
		return x.succeed(output)
	case errors.Is(err, ErrStopping):
		x.h.handBack(x.task, &wire.Attempt{Attempt: x.attempt, Started: x.started})
		return nil
	case errors.Is(err, ErrRunTimeout):
		return x.end(wire.TimedOut, failure(x.task.Step, runs.Faultf("RunTimeout", "the run's deadline has passed")))
	}
	status, told := wire.Failed, failure(x.task.Step, err)
	if errors.Is(err, ErrStepTimeout) {
		status = wire.TimedOut
		told.Type, told.Message = "StepTimeout", "the attempt took longer than "+x.step.set.timeout.String()
	}
	if x.attempt < x.step.set.retry.attempts() && x.mayRetry(err, told.Type) {
		return x.tryAgain(err, told)
	}
	return x.end(status, told)
}

// final are the types of errors that no other attempt mends.
const final = " InvalidInput InvalidOutput PayloadTooLarge InvalidDeclaration KeyConflict DepthExceeded TreeTooLarge NonRetryable RunTimeout "

func (x *execution) mayRetry(err error, kind string) bool {
	if strings.Contains(final, " "+kind+" ") || (kind == "LostValue" && x.task.Value != "") {
		return false
	}
	if on := x.step.set.retry.On; on != nil {
		return on(err)
	}
	return kind != "ChildrenFailed" && kind != "ChildFailed"
}

func (x *execution) outcome(status string) *wire.Outcome {
	return &wire.Outcome{Status: status, Workflow: x.task.Workflow, Step: x.task.Step, Key: x.task.ShownKey(), Attempt: x.attempt,
		Started: x.started, Ended: runs.Now(), Worker: x.w.name}
}

func (x *execution) succeed(output json.RawMessage) error {
	outcome := x.outcome(wire.Succeeded)
	outcome.Output = output
	if err := x.w.engine.Pack(x.w.life, x.task.Root, outcome); err != nil {
		if runs.FaultOf(err) == nil {
			return err
		}
		return x.end(wire.Failed, failure(x.task.Step, err))
	}
	record := x.sealing(outcome)
	if record == nil {
		return x.h.done(x.w.engine.Finish(x.w.life, x.task, x.graph, outcome, len(x.order) > 0))
	}
	return x.store(record)
}

// end ends a step that did not succeed. If it may have spawned, others may have borrowed what it spawned.
func (x *execution) end(status string, why *wire.Failure) error {
	outcome := x.outcome(status)
	outcome.Error = why
	if len(x.graph.Nodes) == 1 || (x.clean && len(x.order) == 0) {
		return x.h.done(x.w.engine.Finish(x.w.life, x.task, x.graph, outcome, len(x.order) > 0))
	}
	none := ""
	return x.store(&wire.Join{Kind: "sealed", Members: &none, Outcome: *outcome})
}

// store stores the turn's join record, and does what follows from the one that is stored.
func (x *execution) store(record *wire.Join) error {
	stored, err := x.putJoin(record)
	if err != nil {
		return err
	}
	return x.h.done(x.w.follow(x.task, stored))
}

func (x *execution) putJoin(record *wire.Join) (*wire.Join, error) {
	e, ctx := x.w.engine, x.w.life
	record.Turn, record.Task = x.task.Turn, e.Names.Task(x.task)
	body, err := json.Marshal(record)
	if err != nil {
		return nil, err
	}
	subject := e.Names.Join(x.task.Root, x.task.Run, x.task.Step, strconv.Itoa(x.task.Turn))
	if e.IsLarge(body) {
		ref, err := e.PutValue(ctx, x.task.Root, body)
		if err != nil {
			return nil, err
		}
		apart := map[string]any{"kind": record.Kind, "turn": record.Turn, "task": record.Task, "needed": record.Needed,
			"total": record.Total, "whole": ref}
		if body, err = json.Marshal(apart); err != nil {
			return nil, err
		}
	}
	told, err := e.StoreGrouped(ctx, &broker.Write{Stream: e.Names.Records(), Subject: subject, Body: body})
	if err != nil || told.Taken == nil {
		return record, err
	}
	return e.ReadJoin(ctx, x.task.Root, told.Taken)
}

func (x *execution) park(record *wire.Join) error { return x.store(record) }

// tryAgain parks an attempt that failed until the next one is due.
func (x *execution) tryAgain(err error, told *wire.Failure) error {
	e, ctx := x.w.engine, x.w.life
	delay := x.step.set.retry.delay(x.attempt)
	var later retryAfter
	if errors.As(err, &later) {
		delay = later.delay.Seconds()
	}
	deadline, _ := x.task.DeadlineAt()
	now := runs.Now()
	again := min(now+max(delay, 0), max(deadline, now))
	attempt := &wire.Attempt{Attempt: x.attempt, Worker: x.w.name, Started: x.started, Ended: now, Error: told, Again: &again}
	if _, err := e.Record(ctx, e.Names.Try(x.task, strconv.Itoa(x.h.Count)), attempt); err != nil {
		return err
	}
	record := &wire.Join{Kind: "parked", Until: &again, Tried: x.attempt, Outcome: wire.Outcome{Status: wire.Succeeded, Attempt: 1}}
	stored, err := x.putJoin(record)
	if err != nil {
		return err
	}
	if stored != record || again-now >= 1 || x.step.set.maxRunning > 0 {
		return x.h.done(x.w.follow(x.task, stored))
	}
	select { // a short delay is kept in memory
	case <-time.After(time.Duration((again - runs.Now()) * float64(time.Second))):
		_, err := e.Publish(ctx, x.task.NextTurn(x.attempt), x.task.NextTurn(0).LaterID())
		return x.h.done(err)
	case <-x.w.stopping:
		return x.h.done(x.w.follow(x.task, stored))
	}
}

// sealing returns the record that seals the step's children; nil if there is nothing to wait for, or to remember.
func (x *execution) sealing(outcome *wire.Outcome) *wire.Join {
	x.lock.Lock()
	defer x.lock.Unlock()
	alone := len(x.graph.Nodes) == 1
	if len(x.order) == 0 && (alone || x.clean) {
		return nil
	}
	var ids []string
	var borrowed [][2]string
	var sum wire.IDSum
	waited := true
	for _, one := range x.order {
		waited = waited && one.joined
		if one.owner != "" {
			borrowed = append(borrowed, [2]string{one.id, one.owner})
			continue
		}
		ids = append(ids, one.id)
		sum.Add(one.id)
	}
	if waited && (alone || (x.clean && len(borrowed) == 0)) {
		return nil
	}
	policy := x.step.set.policy.rule
	if waited {
		policy = wire.Policy{} // what it has waited for, it has dealt with
	}
	made := &wire.Join{Kind: "sealed", Needed: policy.Needed(len(x.order)), Total: len(x.order), Policy: &policy,
		Borrowed: borrowed, Outcome: *outcome}
	if x.clean && !policy.Early {
		made.IDSum = sum.String()
	} else {
		made.Members = wire.PackMembers(ids)
	}
	for id := range x.excused {
		made.Excused = append(made.Excused, id)
	}
	return made
}
