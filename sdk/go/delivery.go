package jetflow

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"jetflow.dev/go/internal/broker"
	"jetflow.dev/go/internal/runs"
	"jetflow.dev/go/internal/wire"
)

// held is a delivery that is not ended yet.
type held struct {
	*broker.Delivery
	w        *Worker
	consumer broker.Consumer
	since    time.Time
	body     atomic.Pointer[execution]
	begun    atomic.Bool
	hasSlot  bool

	lock  sync.Mutex
	reply string
	ended bool
}

func (h *held) renew(reply string) {
	h.lock.Lock()
	defer h.lock.Unlock()
	h.reply = reply
}

func (h *held) hasBegun() bool { return h.begun.Load() }

func (h *held) say(what string) {
	h.lock.Lock()
	defer h.lock.Unlock()
	if !h.ended {
		h.w.engine.Say(h.reply, what)
	}
}

// end ends the delivery; what is said first counts.
func (h *held) end(what string) {
	h.lock.Lock()
	defer h.lock.Unlock()
	if !h.ended {
		h.ended = true
		h.w.engine.Say(h.reply, what)
	}
}

func nak(delay time.Duration) string { return fmt.Sprintf(`-NAK {"delay": %d}`, delay.Nanoseconds()) }

// run waits for a slot, and carries the task on; whatever happens, its delivery is ended.
func (h *held) run() {
	w := h.w
	defer w.letGo(h)
	got := false
	select {
	case w.slots <- struct{}{}:
		got = true
	default:
		timer := time.NewTimer(h.consumer.AckWait * 4 / 5)
		select {
		case w.slots <- struct{}{}:
			got = true
		case <-w.stopping:
		case <-timer.C: // another worker may have one
		}
		timer.Stop()
	}
	if got && w.isStopping() {
		<-w.slots
		got = false
	}
	w.waiting.Add(-1)
	if got {
		h.hasSlot = true
		w.running.Add(1)
		w.started.Add(1)
		defer h.leaveSlot()
	}
	t, err := w.engine.Names.ReadTask(h.Subject, h.Header, h.Data)
	if err != nil {
		w.log.Error("a message that is no task is terminated", "error", err)
		h.end("+TERM")
		return
	}
	if !got {
		h.handBack(t, &wire.Attempt{Attempt: t.Tried + 1, Started: runs.Now()})
		return
	}
	if err := h.process(t); err != nil {
		h.trouble(t, err)
	}
}

func (h *held) takeSlot() {
	h.w.slots <- struct{}{}
	h.hasSlot = true
	h.w.running.Add(1)
}

func (h *held) leaveSlot() {
	if h.hasSlot {
		h.hasSlot = false
		<-h.w.slots
		h.w.running.Add(-1)
	}
}

// trouble hands a task back whose worker could not carry it on.
func (h *held) trouble(t *wire.Task, why error) {
	if h.w.life.Err() != nil {
		return // its redelivery repeats what is stored
	}
	h.w.log.Error("a task is handed back", "task", h.Subject, "error", why)
	attempt := &wire.Attempt{Attempt: t.Tried + 1, Worker: h.w.name, Started: runs.Now(), Ended: runs.Now()}
	attempt.Error = failure(t.Step, why)
	if _, err := h.w.engine.Record(h.w.life, h.w.engine.Names.Try(t, strconv.Itoa(h.Count)), attempt); err != nil {
		h.w.log.Error("an attempt is not recorded", "task", h.Subject, "error", err)
	}
	h.end(nak(time.Second))
}

// handBack gives a task back that was not run, or was stopped with its worker: that is no attempt.
func (h *held) handBack(t *wire.Task, attempt *wire.Attempt) {
	attempt.Returned, attempt.Worker, attempt.Ended = true, h.w.name, runs.Now()
	if _, err := h.w.engine.Record(h.w.life, h.w.engine.Names.Try(t, strconv.Itoa(h.Count)), attempt); err != nil {
		h.w.log.Error("that a task is handed back is not recorded", "task", h.Subject, "error", err)
	}
	h.end("-NAK")
}

// process carries a task on, in the order of docs/wire.md, Running a task.
func (h *held) process(t *wire.Task) error {
	w := h.w
	graph, err := w.engine.Graph(w.life, t.Workflow, t.Version)
	switch fault := runs.FaultOf(err); {
	case fault != nil && strings.HasPrefix(fault.Type, "Unknown"):
		return h.unknown(t, nil, runs.Faultf("UnknownVersion", "%s", fault.Message))
	case fault != nil:
		return h.done(w.engine.EndByName(w.life, t, fault))
	case err != nil:
		return err
	}
	if !graph.Has(t.Step) {
		return h.unknown(t, nil, runs.Faultf("UnknownStep", "%q has no step %q", t.Workflow, t.Step))
	}
	if w.marks.cover(t, graph) {
		return h.done(w.drop(t, graph))
	}
	again := h.Count > 1 || h.Time.Before(h.consumer.Created)
	if again {
		if found, err := h.recover(t, graph); found || err != nil {
			return h.done(err)
		}
	}
	if t.Step == wire.Start {
		for _, step := range graph.Behind(wire.Start) {
			if _, err := w.engine.Publish(w.life, t.At(step), t.At(step).LaterID()); err != nil {
				return err
			}
		}
		return h.done(nil)
	}
	step := w.flows[t.Workflow].step(t.Step)
	if step == nil {
		return h.unknown(t, graph, runs.Faultf("UnknownStep", "this worker's code has no step %q of %q", t.Step, t.Workflow))
	}
	x := newExecution(h, t, graph, step)
	x.clean = !again && t.Turn == 0
	tried := attempts{}
	if again {
		if tried, err = h.attempts(t); err != nil {
			return err
		}
	}
	x.attempt += tried.made()
	if again && tried.mayRun(h.Count > 1) {
		h.begun.Store(true) // for others who ask
		h.leaveSlot()
		elsewhere, err := w.runsElsewhere(t.Workflow, h.Subject)
		h.takeSlot()
		if err != nil || elsewhere {
			h.end(nak(h.consumer.AckWait * 2 / 5))
			return err
		}
	}
	return x.begin(again, tried.onlyQueued(h.Count))
}

func (h *held) done(err error) error {
	if err == nil {
		h.end("+ACK")
	}
	return err
}

func (w *Worker) drop(t *wire.Task, g *wire.Graph) error {
	return w.engine.Drop(w.life, t, g, w.marks.of(t.Run), w.marks.of(t.Root))
}

// recover goes on from what an earlier delivery has left, and tells whether there was anything.
func (h *held) recover(t *wire.Task, g *wire.Graph) (bool, error) {
	e, ctx := h.w.engine, h.w.life
	onFailure := g.IsFailureStep(t.Step)
	if !onFailure {
		outcome, _, err := e.Outcome(ctx, e.Names.TaskRun(t))
		if err != nil {
			return false, err
		}
		if outcome != nil {
			return true, e.Follow(ctx, t, g, outcome)
		}
	}
	outcome, _, err := e.Outcome(ctx, e.Names.Step(t.Root, t.Run, t.Step))
	if err != nil || (outcome != nil && onFailure) {
		return outcome != nil, err
	}
	if outcome != nil {
		if err := e.GoOn(ctx, t, g, outcome); err != nil {
			return true, err
		}
		return true, e.LookBeside(ctx, t, g)
	}
	stored, err := e.Last(ctx, e.Names.Records(), e.Names.Join(t.Root, t.Run, t.Step, strconv.Itoa(t.Turn)))
	if err != nil || stored == nil {
		return false, err
	}
	record, err := e.ReadJoin(ctx, t.Root, stored)
	if runs.FaultOf(err) != nil {
		return true, e.EndByName(ctx, t, err)
	}
	if err != nil {
		return false, err
	}
	return true, h.w.follow(t, record)
}

// follow does what follows a stored join record: its timer, its count, its look.
func (w *Worker) follow(t *wire.Task, record *wire.Join) error {
	e, ctx := w.engine, w.life
	if record.Until != nil {
		if due, err := e.Arm(ctx, t, *record.Until, record.Tried); due || err != nil {
			return err
		}
	}
	if !record.Counted() {
		return nil
	}
	value, _, err := e.Add(ctx, e.Names.Counter("join", t.Root, t.Run, t.Step), record.Increment())
	if err != nil {
		return err
	}
	join := runs.Join{Root: t.Root, Run: t.Run, Step: t.Step}
	switch {
	case len(record.Borrowed) > 0 || record.Rule().Early:
		return e.Look(ctx, join, nil, false)
	case value >= wire.Seal:
		return e.Look(ctx, join, &value, false)
	}
	return nil
}

// attempts are what is recorded of the deliveries of a turn: how each ended, or that it has begun.
type attempts map[string]struct{ known, returned, ended, begun bool }

func (h *held) attempts(t *wire.Task) (attempts, error) {
	e := h.w.engine
	subjects, err := e.Subjects(h.w.life, e.Names.Records(), e.Names.Try(t, "*"))
	if err != nil {
		return nil, err
	}
	stored, err := e.Many(h.w.life, e.Names.Records(), subjects)
	found := attempts{}
	for subject, message := range stored {
		delivery, begun := strings.CutPrefix(wire.LastToken(subject), "begun-")
		one := found[delivery]
		if one.known = true; begun {
			one.begun = true
		} else if record, err := wire.DecodeAttempt(message.Body); err == nil {
			one.returned, one.ended = record.Returned, record.Ended > 0
		} else {
			one.ended = true
		}
		found[delivery] = one
	}
	return found, err
}

// made returns how many attempts they were.
func (a attempts) made() (count int) {
	for _, one := range a {
		if !one.returned {
			count++
		}
	}
	return count
}

// mayRun tells whether a body may have begun and not ended.
func (a attempts) mayRun(wasDelivered bool) bool {
	if first := a["1"]; wasDelivered && !first.returned && !first.ended {
		return true
	}
	for _, one := range a {
		if one.begun && !one.returned && !one.ended {
			return true
		}
	}
	return false
}

// onlyQueued tells whether no body can have begun before a delivery.
func (a attempts) onlyQueued(delivery int) bool {
	return a.made() == 0 && (delivery == 1 || a["1"].returned)
}

// unknown leaves a task to others for a while. Then its step fails; of a graph that is not known, its run.
func (h *held) unknown(t *wire.Task, g *wire.Graph, fault *runs.Fault) error {
	w, e, ctx := h.w, h.w.engine, h.w.life
	subjects, err := e.Subjects(ctx, e.Names.Records(), e.Names.Try(t, "*"))
	if err != nil {
		return err
	}
	stored, err := e.Many(ctx, e.Names.Records(), subjects)
	if err != nil {
		return err
	}
	for _, message := range stored {
		record, err := wire.DecodeAttempt(message.Body)
		if err != nil || record.Error == nil || record.Error.Type != fault.Type || time.Since(message.Time) < w.set.unknownGrace {
			continue
		}
		outcome := &wire.Outcome{Status: wire.Failed, Error: failure(t.Step, fault), Workflow: t.Workflow, Step: t.Step,
			Key: t.ShownKey(), Attempt: t.Tried + 1, Ended: runs.Now(), Worker: w.name}
		if g == nil {
			return h.done(e.End(ctx, t, nil, outcome))
		}
		return h.done(e.Finish(ctx, t, g, outcome, false))
	}
	attempt := &wire.Attempt{Attempt: t.Tried + 1, Worker: w.name, Started: runs.Now(), Ended: runs.Now(),
		Error: failure(t.Step, fault), Returned: true}
	if _, err := e.Record(ctx, e.Names.Try(t, strconv.Itoa(h.Count)), attempt); err != nil {
		return err
	}
	h.end(nak(time.Second))
	return nil
}
