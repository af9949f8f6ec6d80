package runs

import (
	"iter"
	"maps"
	"slices"

	"jetflow.dev/go/internal/broker"
	"jetflow.dev/go/internal/wire"
)

// Join is the join of a step of a run.
type Join struct{ Root, Run, Step string }

// JoinOf returns the join of a task's step.
func JoinOf(t *wire.Task) Join { return Join{t.Root, t.Run, t.Step} }

func (j Join) key() string { return j.Run + "." + j.Step }

// Ended returns the subject of the outcome of a child of the join; id may be a wildcard.
func (o *Op) Ended(j Join, id string) string { return o.Run(j.Root, j.Run, j.Step, id) }

// borrowed returns the subject of the outcome of a child that another step has spawned.
func (o *Op) borrowed(j Join, child [2]string) string {
	return o.Run(j.Root, j.Run, child[1], child[0])
}

// Look looks whether a join is complete, and carries its step on if it is. A value is that of its counter, if a counter
// asks, else 0; failure says that the counter has not reached what is needed, so that only an early policy is decided.
func (o *Op) Look(join Join, value int64, failure bool) {
	o.looked[join] = true
	if o.Err != nil || (value > 0 && value < o.ledger.get(join.key())) {
		return
	}
	v := o.view(join, value, failure)
	if fault := o.Fault(); fault != nil {
		if t, _ := o.Task(o.Of("task.*.*", join.Root, "*", join.Run, "*")); t != nil {
			o.EndByName(t.At(join.Step), fault)
		}
	} else if v != nil && o.Err == nil {
		o.carryOn(join, v)
	}
}

// view is a join that is complete.
type view struct {
	record *wire.Join
	task   *wire.Task
	graph  *wire.Graph
	failed map[string]*wire.Outcome
	met    bool
	rest   bool
}

// JoinRecord reads the newest record of a join; nil if there is none.
func (o *Op) JoinRecord(join Join) *wire.Join {
	return o.ReadJoin(join.Root, o.Last(o.Of("join", join.Root, join.Run, join.Step, "*")))
}

// ReadJoin reads a stored join record, its parts that are kept apart included.
func (o *Op) ReadJoin(root string, stored *broker.Message) *wire.Join {
	if stored == nil {
		return nil
	}
	record, err := wire.DecodeJoin(stored.Body)
	if err == nil && record.Whole != nil {
		record, err = wire.DecodeJoin(o.Value(root, *record.Whole))
	}
	if err != nil && o.Err == nil {
		o.Err = Faultf("MalformedRecord", "%s cannot be read: %v", stored.Subject, err)
	}
	if o.Err != nil {
		return nil
	}
	return record
}

func (o *Op) view(join Join, value int64, failure bool) *view {
	record := o.JoinRecord(join)
	if record == nil || !record.Counted() || o.decided.get(record.Task) {
		return nil
	}
	policy := record.Rule()
	if failure && !policy.Early {
		return nil
	}
	ended, members := o.ended(join, record)
	made := &view{record: record, rest: ended < record.Total}
	missing := record.Needed - ended
	if record.Total > 0 && (missing <= 0 || policy.Early) {
		made.failed = o.failed(join, record, members)
		missing = policy.Missing(record.Total, ended-len(made.failed), ended)
	}
	if o.Err != nil {
		return nil
	}
	if missing > 0 {
		if value > 0 && len(record.Borrowed) == 0 {
			o.ledger.put(join.key(), value+int64(missing))
		}
		return nil
	}
	if made.task, _ = o.Task(record.Task); made.task == nil {
		return nil // its tree was cancelled
	}
	made.graph = o.Graph(made.task)
	made.met = record.Total == 0 || policy.Verdict(record.Total, ended-len(made.failed), ended) == "met"
	return made
}

// ended returns how many of the children that a record counts have ended, and which they are.
func (o *Op) ended(join Join, record *wire.Join) (int, map[string]bool) {
	members, _ := record.MemberIDs() // they were checked when it was read
	if record.Needed == 0 && record.Total == 0 {
		return 0, members
	}
	stored := map[string]bool{}
	for _, subject := range o.Subjects(o.Ended(join, "*")) {
		id := wire.LastToken(subject)
		if wire.IsRunID(id) && (members == nil || members[id]) {
			stored[id] = true
		}
	}
	borrowed := 0
	for _, child := range record.Borrowed {
		if o.Last(o.borrowed(join, child)) != nil {
			borrowed++
		}
	}
	own := max(record.Total, record.Needed) - len(record.Borrowed)
	disputed := members == nil && record.IDSum != "" && len(stored)+borrowed >= record.Needed &&
		(wire.SumOf(maps.Keys(stored)) != record.IDSum || len(stored) != own)
	if !disputed {
		if members == nil {
			members = stored // what is stored from now on is nobody's
		}
		return len(stored) + borrowed, members
	}
	o.Log.Warn("outcomes are stored that nobody spawned", "run", join.Run, "step", join.Step)
	members = o.spawnedBy(join)
	done := 0
	for id := range members {
		if stored[id] {
			done++
		}
	}
	open := len(members) - done + len(record.Borrowed) - borrowed
	return min(record.Needed-open, done+borrowed), members
}

// spawnedBy returns the children whose stored tasks name a step.
func (o *Op) spawnedBy(join Join) map[string]bool {
	found := map[string]bool{}
	for t := range o.Tasks(o.Of("task.*.*", join.Root, join.Run, ">")) {
		if t.ParentStep == join.Step {
			found[t.Run] = true
		}
	}
	return found
}

// failed returns the children of a join that did not end well, without those that its step has seen.
func (o *Op) failed(join Join, record *wire.Join, members map[string]bool) map[string]*wire.Outcome {
	var subjects []string
	ask := func(id, subject string) {
		if !slices.Contains(record.Excused, id) {
			subjects = append(subjects, subject)
		}
	}
	for _, mark := range o.Subjects(o.Of("mark", join.Root, join.Run, join.Step, "*.*.*")) {
		if id := wire.LastToken(mark); members == nil || members[id] {
			ask(id, o.Ended(join, id))
		}
	}
	for _, child := range record.Borrowed {
		ask(child[0], o.borrowed(join, child))
	}
	failed := map[string]*wire.Outcome{}
	for subject, message := range o.Many(subjects) {
		if outcome := wire.DecodeOutcome(message.Body); outcome.Status != wire.Succeeded {
			failed[wire.LastToken(subject)] = outcome
		}
	}
	return failed
}

// carryOn does what a complete join is for.
func (o *Op) carryOn(join Join, v *view) {
	record, t := v.record, v.task
	if record.Kind == "parked" {
		if o.Publish(t.NextTurn(record.Tried)); record.Until != nil {
			o.Purge(o.Timer("timer", t))
		}
		return
	}
	outcome := record.Outcome
	outcome.Workflow, outcome.Step, outcome.Key = t.Workflow, t.Step, t.ShownKey()
	if !v.met {
		if o.wasCancelled(join, v.failed) {
			o.End(t, v.graph, cancelled(t))
			return
		}
		outcome.Status, outcome.Output, outcome.Value = wire.Failed, nil, nil
		outcome.Error = v.childrenFailed().Failure(t.Step)
	}
	if o.Finish(t, v.graph, &outcome, true); v.rest && record.Rule().CancelRest {
		members, _ := record.MemberIDs()
		o.decided.put(record.Task, true) // those that are cancelled now need not look
		o.CancelOpen(join, members)
		if o.Err != nil {
			o.decided.put(record.Task, false)
		}
	}
}

// wasCancelled tells whether children of a run were only faster than who cancels it.
func (o *Op) wasCancelled(join Join, failed map[string]*wire.Outcome) bool {
	for _, outcome := range failed {
		if outcome.Status != wire.Cancelled {
			continue
		}
		for _, run := range []string{join.Run, join.Root} {
			if mark := o.Last(o.Names.Cancel(join.Root, run)); mark != nil && len(mark.Body) == 0 {
				return true
			}
		}
		return false
	}
	return false
}

func (v *view) childrenFailed() *Fault {
	for id, one := range v.failed {
		first := "run " + id + " " + one.Status
		if one.Error != nil {
			first += ": " + one.Error.Type + ": " + one.Error.Message
		}
		return Faultf("ChildrenFailed", "%d of %d children did not succeed; one of them: %s", len(v.failed), v.record.Total, first)
	}
	return Faultf("ChildrenFailed", "too few of %d children succeeded", v.record.Total)
}

// EndByName ends a run at once, since something of it can never be read; one that has ended is counted again.
func (o *Op) EndByName(t *wire.Task, why *Fault) {
	graph := o.graphIfAny(t)
	if stored, _ := o.Outcome(o.TaskRun(t)); stored != nil {
		o.Follow(t, graph, stored)
		return
	}
	o.Log.Error("a run cannot go on", "run", t.Run, "workflow", t.Workflow, "step", t.Step, "error", why)
	o.End(t, graph, Ending(t, wire.Failed, why.Failure(t.Step)))
}

// --- the children of a step that has ended

// Family is which children of a step count: its members, or all that are stored up to a sequence.
type Family struct {
	Members  map[string]bool
	Borrowed [][2]string
	UpTo     uint64
}

// Family tells which children of a step that has ended count, as its join did.
func (o *Op) Family(join Join) *Family {
	made := &Family{}
	record := o.JoinRecord(join)
	if _, stored := o.Outcome(o.Of("step", join.Root, join.Run, join.Step)); stored != nil {
		made.UpTo = stored.Seq
	}
	switch {
	case record == nil || record.Kind == "parked":
		made.Members = o.spawnedBy(join)
	case record.Members != nil:
		made.Members, _ = record.MemberIDs()
	default:
		_, made.Members = o.ended(join, record)
	}
	if record != nil && record.Kind != "parked" {
		made.Borrowed = record.Borrowed
	}
	return made
}

// Children yields the children of a step that has ended, in the order in which they did.
func (o *Op) Children(join Join) iter.Seq2[string, *wire.Outcome] {
	return func(yield func(string, *wire.Outcome) bool) {
		family := o.Family(join)
		if o.Err != nil {
			return
		}
		for message := range o.Below(o.Ended(join, "*"), family.UpTo) {
			id := wire.LastToken(message.Subject)
			if (family.Members == nil || family.Members[id]) && !yield(id, wire.DecodeOutcome(message.Body)) {
				return
			}
		}
		for _, child := range family.Borrowed {
			if outcome, _ := o.Outcome(o.borrowed(join, child)); outcome != nil && !yield(child[0], outcome) {
				return
			}
		}
	}
}
