package runs

import (
	"context"
	"slices"

	"jetflow.dev/go/internal/broker"
	"jetflow.dev/go/internal/wire"
)

// Join is the join of a step of a run.
type Join struct{ Root, Run, Step string }

// Look looks whether a join is complete, and carries its step on if it is. A value is that of its counter, if a counter
// asks; failure says that the counter has not reached what is needed, so that only an early policy can be decided.
func (e *Engine) Look(ctx context.Context, join Join, value *int64, failure bool) error {
	return e.look(ctx, join, value, failure, map[string]bool{join.Step: true})
}

func (e *Engine) look(ctx context.Context, join Join, value *int64, failure bool, looked map[string]bool) error {
	key := join.Run + "." + join.Step
	if value != nil {
		e.lock.Lock()
		worth := *value >= e.ledger[key]
		e.lock.Unlock()
		if !worth {
			return nil
		}
	}
	view, err := e.view(ctx, join, value, failure)
	if FaultOf(err) != nil {
		return e.broken(ctx, join, err)
	}
	if err != nil || view == nil {
		return err
	}
	return e.carryOn(ctx, join, view, looked)
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

// Record reads the newest record of a join, its parts that are kept apart included; nil if there is none.
func (e *Engine) JoinRecord(ctx context.Context, join Join) (*wire.Join, error) {
	stored, err := e.Last(ctx, e.Names.Records(), e.Names.Join(join.Root, join.Run, join.Step, wire.Any))
	if err != nil || stored == nil {
		return nil, err
	}
	return e.ReadJoin(ctx, join.Root, stored)
}

// ReadJoin reads a stored join record.
func (e *Engine) ReadJoin(ctx context.Context, root string, stored *broker.Message) (*wire.Join, error) {
	record, err := wire.DecodeJoin(stored.Body)
	if err == nil && record.Whole != nil {
		var whole []byte
		if whole, err = e.Value(ctx, root, *record.Whole); err != nil {
			return nil, err
		}
		record, err = wire.DecodeJoin(whole)
	}
	if err != nil {
		return nil, Faultf("MalformedRecord", "%s cannot be read: %v", stored.Subject, err)
	}
	return record, nil
}

func (e *Engine) view(ctx context.Context, join Join, value *int64, failure bool) (*view, error) {
	record, err := e.JoinRecord(ctx, join)
	if err != nil || record == nil {
		return nil, err
	}
	policy := record.Rule()
	if (failure && !policy.Early) || !record.Counted() || e.isDecided(join, record) {
		return nil, nil
	}
	ended, members, err := e.ended(ctx, join, record)
	if err != nil {
		return nil, err
	}
	made := &view{record: record, rest: ended < record.Total}
	missing := record.Needed - ended
	if record.Total > 0 && (missing <= 0 || policy.Early) {
		if made.failed, err = e.failed(ctx, join, record, members); err != nil {
			return nil, err
		}
		missing = policy.Missing(record.Total, ended-len(made.failed), ended)
	}
	if missing > 0 {
		if value != nil && len(record.Borrowed) == 0 {
			e.lock.Lock()
			if len(e.ledger) > remembered {
				clear(e.ledger)
			}
			e.ledger[join.Run+"."+join.Step] = *value + int64(missing)
			e.lock.Unlock()
		}
		return nil, nil
	}
	if made.task, _, err = e.Task(ctx, record.Task); err != nil || made.task == nil {
		return nil, err // without a task its tree was cancelled
	}
	if made.graph, err = e.Graph(ctx, made.task.Workflow, made.task.Version); err != nil {
		return nil, err
	}
	made.met = record.Total == 0 || policy.Verdict(record.Total, ended-len(made.failed), ended) == "met"
	return made, nil
}

func (e *Engine) isDecided(join Join, record *wire.Join) bool {
	e.lock.Lock()
	defer e.lock.Unlock()
	return e.decided[e.Names.Join(join.Root, join.Run, join.Step, record.Task)]
}

// ended returns how many of the children that a record counts have ended, and which they are.
func (e *Engine) ended(ctx context.Context, join Join, record *wire.Join) (int, map[string]bool, error) {
	members, err := record.MemberIDs()
	if err != nil || (record.Needed == 0 && record.Total == 0) {
		return 0, members, err
	}
	subjects, err := e.Subjects(ctx, e.Names.Records(), e.Names.Run(join.Root, join.Run, join.Step, wire.Any))
	if err != nil {
		return 0, nil, err
	}
	stored := map[string]bool{}
	var sum wire.IDSum
	for _, subject := range subjects {
		id := wire.LastToken(subject)
		if wire.IsRunID(id) && (members == nil || members[id]) {
			stored[id] = true
			sum.Add(id)
		}
	}
	borrowed := 0
	for _, child := range record.Borrowed {
		outcome, err := e.Last(ctx, e.Names.Records(), e.Names.Run(join.Root, join.Run, child[1], child[0]))
		if err != nil {
			return 0, nil, err
		}
		if outcome != nil {
			borrowed++
		}
	}
	own := max(record.Total, record.Needed) - len(record.Borrowed)
	disputed := members == nil && record.IDSum != "" && len(stored)+borrowed >= record.Needed &&
		(sum.String() != record.IDSum || len(stored) != own)
	if !disputed {
		if members == nil {
			members = stored // what is stored from now on is nobody's
		}
		return len(stored) + borrowed, members, nil
	}
	e.Log.Warn("outcomes are stored that nobody spawned", "run", join.Run, "step", join.Step)
	if members, err = e.SpawnedBy(ctx, join); err != nil {
		return 0, nil, err
	}
	done := 0
	for id := range members {
		if stored[id] {
			done++
		}
	}
	open := len(members) - done + len(record.Borrowed) - borrowed
	return min(record.Needed-open, done+borrowed), members, nil
}

// SpawnedBy returns the children whose stored tasks name a step.
func (e *Engine) SpawnedBy(ctx context.Context, join Join) (map[string]bool, error) {
	found := map[string]bool{}
	filter := e.Names.Of("task", wire.Any, wire.Any, join.Root, join.Run, ">")
	for message, err := range e.After(ctx, e.Names.Tasks(), filter, 0) {
		if err != nil {
			return nil, err
		}
		if t, err := e.Names.ReadTask(message.Subject, message.Header, nil); err == nil && t.ParentStep == join.Step {
			found[t.Run] = true
		}
	}
	return found, nil
}

// failed returns the children of a join that did not end well, without those that its step has seen.
func (e *Engine) failed(ctx context.Context, join Join, record *wire.Join, members map[string]bool) (map[string]*wire.Outcome, error) {
	marks, err := e.Subjects(ctx, e.Names.Records(), e.Names.Of("mark", join.Root, join.Run, join.Step, "*.*.*"))
	if err != nil {
		return nil, err
	}
	owners := map[string]string{}
	for _, subject := range marks {
		if id := wire.LastToken(subject); members == nil || members[id] {
			owners[id] = join.Step
		}
	}
	for _, child := range record.Borrowed {
		owners[child[0]] = child[1]
	}
	var subjects []string
	for id, step := range owners {
		if !slices.Contains(record.Excused, id) {
			subjects = append(subjects, e.Names.Run(join.Root, join.Run, step, id))
		}
	}
	stored, err := e.Many(ctx, e.Names.Records(), subjects)
	if err != nil {
		return nil, err
	}
	failed := map[string]*wire.Outcome{}
	for subject, message := range stored {
		if outcome := wire.DecodeOutcome(message.Body); outcome.Status != wire.Succeeded {
			failed[wire.LastToken(subject)] = outcome
		}
	}
	return failed, nil
}

// carryOn does what a complete join is for.
func (e *Engine) carryOn(ctx context.Context, join Join, v *view, looked map[string]bool) error {
	record, t := v.record, v.task
	if record.Kind == "parked" {
		next := t.NextTurn(record.Tried)
		if _, err := e.Publish(ctx, next, next.LaterID()); err != nil || record.Until == nil {
			return err
		}
		return e.Purge(ctx, e.Names.Timers(), e.Names.Timer("timer", t))
	}
	outcome := record.Outcome
	outcome.Workflow, outcome.Step, outcome.Key = t.Workflow, t.Step, t.ShownKey()
	if !v.met {
		cancelled, err := e.wasCancelled(ctx, join, v.failed)
		if err != nil {
			return err
		}
		if cancelled {
			return e.End(ctx, t, v.graph, CancelledOutcome(t))
		}
		outcome.Status, outcome.Output, outcome.Value = wire.Failed, nil, nil
		outcome.Error = childrenFailed(t.Step, v)
	}
	if err := e.finish(ctx, t, v.graph, &outcome, true, looked); err != nil || !v.rest || !record.Rule().CancelRest {
		return err
	}
	key := e.Names.Join(join.Root, join.Run, join.Step, record.Task)
	e.lock.Lock()
	if len(e.decided) > remembered {
		clear(e.decided)
	}
	e.decided[key] = true
	e.lock.Unlock()
	members, err := record.MemberIDs()
	if err == nil {
		err = e.CancelOpen(ctx, join, members)
	}
	if err != nil {
		e.lock.Lock()
		delete(e.decided, key)
		e.lock.Unlock()
	}
	return err
}

// wasCancelled tells whether children of a run were only faster than who cancels it.
func (e *Engine) wasCancelled(ctx context.Context, join Join, failed map[string]*wire.Outcome) (bool, error) {
	for _, outcome := range failed {
		if outcome.Status != wire.Cancelled {
			continue
		}
		for _, run := range []string{join.Run, join.Root} {
			mark, err := e.Last(ctx, e.Names.Tasks(), e.Names.Cancel(join.Root, run))
			if err != nil || (mark != nil && len(mark.Body) == 0) {
				return mark != nil, err
			}
		}
		return false, nil
	}
	return false, nil
}

func childrenFailed(step string, v *view) *wire.Failure {
	first := ""
	for id, outcome := range v.failed {
		first = "run " + id + " " + outcome.Status
		if outcome.Error != nil {
			first += ": " + outcome.Error.Type + ": " + outcome.Error.Message
		}
		break
	}
	fault := Faultf("ChildrenFailed", "%d of %d children did not succeed; one of them: %s", len(v.failed), v.record.Total, first)
	return &wire.Failure{Type: fault.Type, Message: fault.Message, Step: &step}
}

// broken ends the run of a join that nobody can ever decide; one that has ended is counted again.
func (e *Engine) broken(ctx context.Context, join Join, why error) error {
	t, _, err := e.Task(ctx, e.Names.Of("task", wire.Any, wire.Any, join.Root, wire.Any, join.Run, wire.Any))
	if err != nil || t == nil {
		return err
	}
	return e.EndByName(ctx, t.At(join.Step), why)
}

// EndByName ends a run at once, since something of it can never be read.
func (e *Engine) EndByName(ctx context.Context, t *wire.Task, why error) error {
	graph, err := e.Graph(ctx, t.Workflow, t.Version)
	if err != nil && FaultOf(err) == nil {
		return err
	}
	stored, _, err := e.Outcome(ctx, e.Names.TaskRun(t))
	if err != nil {
		return err
	}
	if stored != nil {
		return e.Follow(ctx, t, graph, stored)
	}
	fault := FaultOf(why)
	e.Log.Error("a run cannot go on", "run", t.Run, "workflow", t.Workflow, "step", t.Step, "error", why)
	return e.End(ctx, t, graph, &wire.Outcome{
		Status: wire.Failed, Error: &wire.Failure{Type: fault.Type, Message: fault.Message, Step: &t.Step},
		Workflow: t.Workflow, Step: t.Step, Key: t.ShownKey(), Attempt: 1, Ended: Now(),
	})
}
