package jetflow

import (
	"fmt"
	"slices"
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
	op       *runs.Op // what is recorded of it
	body     atomic.Pointer[execution]
	begun    atomic.Bool
	hasSlot  bool

	lock  sync.Mutex
	reply string
	ended bool
}

// renew notes where the end is told, of a task that is held already.
func (h *held) renew(reply string) {
	h.lock.Lock()
	defer h.lock.Unlock()
	h.reply = reply
}

// say says something of the delivery. With what ends it nothing is said any more: what is said first counts.
func (h *held) say(what string) {
	h.lock.Lock()
	defer h.lock.Unlock()
	if !h.ended {
		h.ended = what != inProgress
		h.w.engine.Say(h.reply, what)
	}
}

const inProgress = "+WPI"

func nak(delay time.Duration) string { return fmt.Sprintf(`-NAK {"delay": %d}`, delay.Nanoseconds()) }

// run waits for a slot, and carries the task on. Then its delivery is acknowledged, unless it was ended otherwise.
func (h *held) run() {
	w := h.w
	defer w.letGo(h)
	defer h.leaveSlot()
	got := h.waitForSlot()
	w.waiting.Add(-1)
	t, err := w.engine.ReadTask(h.Subject, h.Header, h.Data)
	switch {
	case err != nil:
		w.log.Error("a message that is no task is terminated", "error", err)
		h.say("+TERM")
		return
	case got:
		w.started.Add(1)
		h.process(t)
	default:
		h.handBack(t, &wire.Attempt{Attempt: t.Tried + 1, Started: runs.Now()})
	}
	switch err := h.op.Err; {
	case err == nil:
		h.say("+ACK")
	case w.life.Err() == nil: // else its redelivery repeats what is stored
		w.log.Error("a task is handed back", "task", h.Subject, "error", err)
		h.record(t, &wire.Attempt{Attempt: t.Tried + 1, Started: runs.Now(), Error: failure(t.Step, err)})
		h.say(nak(time.Second))
	}
}

// waitForSlot is false where the task is better given back: another worker may have a slot.
func (h *held) waitForSlot() bool {
	patience := time.NewTimer(h.consumer.AckWait * 4 / 5)
	defer patience.Stop()
	select {
	case h.w.slots <- struct{}{}:
		h.hasSlot = true
		h.w.running.Add(1)
	case <-h.w.stopping:
	case <-patience.C:
	}
	return h.hasSlot && !h.w.isStopping()
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

// record records how the delivery ended without an outcome. It is not repeated if that fails.
func (h *held) record(t *wire.Task, attempt *wire.Attempt) {
	attempt.Worker, attempt.Ended = h.w.name, runs.Now()
	o := h.w.engine.Op(h.w.life)
	if o.Record(o.Try(t, strconv.Itoa(h.Count)), attempt); o.Err != nil {
		h.w.log.Error("an attempt is not recorded", "task", h.Subject, "error", o.Err)
	}
}

// handBack gives a task back that was not run, or was stopped with its worker: that is no attempt.
func (h *held) handBack(t *wire.Task, attempt *wire.Attempt) {
	attempt.Returned = true
	h.record(t, attempt)
	h.say("-NAK")
}

// process carries a task on, in the order of docs/wire.md, Running a task.
func (h *held) process(t *wire.Task) {
	w, o := h.w, h.op
	graph := o.Graph(t)
	if fault := o.Fault(); fault != nil {
		if strings.HasPrefix(fault.Type, "Unknown") {
			h.unknown(t, nil, runs.Faultf("UnknownVersion", "%s", fault.Message))
		} else {
			o.EndByName(t, fault)
		}
		return
	}
	if o.Err != nil {
		return
	}
	if !graph.Has(t.Step) {
		h.unknown(t, nil, runs.Faultf("UnknownStep", "%q has no step %q", t.Workflow, t.Step))
		return
	}
	if w.marks.cover(t, graph) {
		h.drop(t, graph)
		return
	}
	if graph.IsConditional(t.Step) { // whoever knows its conditions says whether it runs
		h.unknown(t, graph, runs.Faultf("UnknownStep", "no worker knows the conditions of step %q of %q", t.Step, t.Workflow))
		return
	}
	if slices.Contains(graph.Limited, t.Step) { // nor does it run without its places
		h.unknown(t, graph, runs.Faultf("UnknownStep", "no worker knows the limits of step %q of %q", t.Step, t.Workflow))
		return
	}
	again := h.Count > 1 || h.Time.Before(h.consumer.Created)
	if again && h.recover(t, graph) {
		return
	}
	if at, _ := t.BeginsAt(); t.Turn == 0 && at > runs.Now() { // it begins later
		deadline, _ := t.DeadlineAt()
		until := min(at, deadline)
		parked := &wire.Join{Kind: "parked", Until: &until, Outcome: wire.Outcome{Status: wire.Succeeded, Attempt: 1}}
		(&execution{h: h, w: w, task: t}).store(parked)
		return
	}
	if t.Step == wire.Start {
		for _, step := range graph.Behind(wire.Start) {
			o.Publish(t.At(step))
		}
		return
	}
	step := w.flows[t.Workflow].step(t.Step)
	if step == nil {
		h.unknown(t, graph, runs.Faultf("UnknownStep", "this worker's code has no step %q of %q", t.Step, t.Workflow))
		return
	}
	tried := attempts{}
	if again {
		tried = h.attempts(t)
	}
	if again && o.Err == nil && tried.mayRun(h.Count > 1) {
		h.begun.Store(true) // for others who ask
		h.leaveSlot()
		elsewhere, err := w.runsElsewhere(t.Workflow, h.Subject)
		h.takeSlot()
		if o.Err = err; elsewhere && err == nil {
			h.say(nak(h.consumer.AckWait * 2 / 5))
			return
		}
	}
	if o.Err != nil {
		return
	}
	x := &execution{h: h, w: w, task: t, graph: graph, step: step, attempt: t.Tried + 1, clean: !again && t.Turn == 0,
		byID: map[string]*spawned{}, excused: map[string]bool{}, news: make(chan struct{}, 1)}
	x.attempt += tried.made()
	x.begin(again, tried.onlyQueued(h.Count))
}

func (h *held) drop(t *wire.Task, g *wire.Graph) {
	h.op.Drop(t, g, h.w.marks.of(t.Run), h.w.marks.of(t.Root))
}

// recover goes on from what an earlier delivery has left, and tells whether there was anything.
func (h *held) recover(t *wire.Task, g *wire.Graph) bool {
	o, isSequel := h.op, g.IsSequel(t.Step)
	if !isSequel {
		if outcome, _ := o.Outcome(o.TaskRun(t)); outcome != nil {
			o.Follow(t, g, outcome)
			return true
		}
	}
	if outcome, _ := o.Outcome(o.Step(t)); outcome != nil {
		if !isSequel {
			if h.stored(t) != nil { // a look of another may have ended a step that is not counted
				o.Add(o.Counter("join", t.Root, t.Run, t.Step), wire.Seal)
			}
			o.GoOn(t, g, outcome)
			o.LookBeside(t, g)
		}
		return true
	}
	record := o.ReadJoin(t.Root, h.stored(t))
	if fault := o.Fault(); fault != nil {
		o.EndByName(t, fault)
		return true
	}
	h.follow(t, record)
	return record != nil || o.Err != nil
}

// stored reads what is stored of a turn's join record.
func (h *held) stored(t *wire.Task) *broker.Message {
	return h.op.Last(h.op.Of("join", t.Root, t.Run, t.Step, strconv.Itoa(t.Turn)))
}

// follow does what follows a stored join record: its timer, its count, its look.
func (h *held) follow(t *wire.Task, record *wire.Join) {
	o := h.op
	if record == nil || (record.Until != nil && o.Arm(t, *record.Until, record.Tried)) || !record.Counted() {
		return
	}
	value, _ := o.Add(o.Counter("join", t.Root, t.Run, t.Step), record.Increment())
	if len(record.Borrowed) > 0 || record.Rule().Early {
		o.Look(runs.JoinOf(t), 0, false)
	} else if value >= wire.Seal {
		o.Look(runs.JoinOf(t), value, false)
	}
}

// recorded reads what is recorded of the deliveries of a turn.
func (h *held) recorded(t *wire.Task) map[string]*broker.Message {
	return h.op.Many(h.op.Subjects(h.op.Try(t, "*")))
}

// attempts are what is recorded of the deliveries of a turn: how each ended, or that it has begun.
type attempts map[string]struct{ returned, ended, begun bool }

func (h *held) attempts(t *wire.Task) attempts {
	found := attempts{}
	for subject, message := range h.recorded(t) {
		delivery, begun := strings.CutPrefix(wire.LastToken(subject), "begun-")
		one := found[delivery]
		if begun {
			one.begun = true
		} else {
			record, err := wire.DecodeAttempt(message.Body)
			one.returned, one.ended = record.Returned, record.Ended > 0 || err != nil
		}
		found[delivery] = one
	}
	return found
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
func (h *held) unknown(t *wire.Task, g *wire.Graph, fault *runs.Fault) {
	for _, message := range h.recorded(t) {
		record, err := wire.DecodeAttempt(message.Body)
		if err != nil || record.Error == nil || record.Error.Type != fault.Type || time.Since(message.Time) < h.w.set.unknownGrace {
			continue
		}
		outcome := runs.Ending(t, wire.Failed, fault.Failure(t.Step))
		outcome.Attempt, outcome.Worker = t.Tried+1, h.w.name
		if g == nil {
			h.op.End(t, nil, outcome)
		} else {
			h.op.Finish(t, g, outcome, false)
		}
		return
	}
	if h.op.Err == nil {
		h.record(t, &wire.Attempt{Attempt: t.Tried + 1, Started: runs.Now(), Error: fault.Failure(t.Step), Returned: true})
		h.say(nak(time.Second))
	}
}
