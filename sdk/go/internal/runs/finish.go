package runs

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"jetflow.dev/go/internal/broker"
	"jetflow.dev/go/internal/wire"
)

// Finish ends a step whose children are done. hadChildren has those looked at that may have borrowed one.
func (e *Engine) Finish(ctx context.Context, t *wire.Task, g *wire.Graph, outcome *wire.Outcome, hadChildren bool) error {
	return e.finish(ctx, t, g, outcome, hadChildren, map[string]bool{t.Step: true})
}

// finish is Finish; looked are the steps whose joins were looked at on the way here.
func (e *Engine) finish(ctx context.Context, t *wire.Task, g *wire.Graph, outcome *wire.Outcome, hadChildren bool, looked map[string]bool) error {
	if g.IsOnlyLast(t.Step) {
		return e.End(ctx, t, g, outcome)
	}
	stored, err := e.storeStep(ctx, t, outcome)
	if err != nil || g.IsFailureStep(t.Step) {
		return err
	}
	if err := e.GoOn(ctx, t, g, stored); err != nil || !hadChildren {
		return err
	}
	return e.lookBeside(ctx, t, g, looked)
}

// LookBeside looks at the joins of steps that may have borrowed a child of a step that has ended.
func (e *Engine) LookBeside(ctx context.Context, t *wire.Task, g *wire.Graph) error {
	return e.lookBeside(ctx, t, g, map[string]bool{t.Step: true})
}

func (e *Engine) lookBeside(ctx context.Context, t *wire.Task, g *wire.Graph, looked map[string]bool) error {
	for _, step := range g.Beside(t.Step) {
		if looked[step] {
			continue
		}
		looked[step] = true
		if err := e.look(ctx, Join{t.Root, t.Run, step}, nil, false, looked); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) storeStep(ctx context.Context, t *wire.Task, outcome *wire.Outcome) (*wire.Outcome, error) {
	taken, err := e.Record(ctx, e.Names.Step(t.Root, t.Run, t.Step), outcome)
	if taken != nil {
		outcome = wire.DecodeOutcome(taken.Body)
	}
	return outcome, err
}

// End ends a run, and carries its parent on. Without a graph nothing follows a failure.
func (e *Engine) End(ctx context.Context, t *wire.Task, g *wire.Graph, outcome *wire.Outcome) error {
	if !outcome.Well() {
		if err := e.markEnd(ctx, t, outcome); err != nil {
			return err
		}
	}
	body, err := json.Marshal(outcome)
	if err != nil {
		return err
	}
	told, err := e.StoreGrouped(ctx, &broker.Write{Stream: e.Names.Records(), Subject: e.Names.TaskRun(t), Body: body})
	if err != nil {
		return err
	}
	if told.Taken != nil {
		outcome = wire.DecodeOutcome(told.Taken.Body)
	} else if t.Parent != wire.None && e.isHeard(t) {
		if err := e.NC.Publish(e.Names.Of("live", "run", t.Root, t.Parent, t.ParentStep, t.Run), body); err != nil {
			e.Log.Debug("a live copy is not told", "error", err)
		}
	}
	return e.Follow(ctx, t, g, outcome)
}

// isHeard tells whether anybody may listen to the end of a child: not where its parent's step has returned, or is
// parked, with many children still open.
func (e *Engine) isHeard(t *wire.Task) bool {
	e.lock.Lock()
	defer e.lock.Unlock()
	value := e.counts[t.Parent+"."+t.ParentStep]
	return value < wire.Seal/2 || value > wire.Seal-1000
}

func (e *Engine) markEnd(ctx context.Context, t *wire.Task, outcome *wire.Outcome) error {
	mark := &broker.Write{Stream: e.Names.Records(), Subject: e.Names.Mark(t, outcome.Status), Body: outcome.Mark()}
	_, err := e.StoreGrouped(ctx, mark)
	return err
}

// Follow does what follows the stored outcome of a run: it is counted, and a failure has its consequences.
func (e *Engine) Follow(ctx context.Context, t *wire.Task, g *wire.Graph, outcome *wire.Outcome) error {
	if err := e.Count(ctx, t, outcome); err != nil || g == nil || !outcome.Lost() {
		return err
	}
	if g.FailFast && len(g.Nodes) > 1 {
		if err := e.cancelLeft(ctx, t, g); err != nil {
			return err
		}
	}
	if g.OnFailure == nil {
		return nil
	}
	undo := t.At(*g.OnFailure)
	undo.Deadline = ""
	_, err := e.Publish(ctx, undo, undo.LaterID())
	return err
}

// Count counts the end of a run in its parent's join, and looks at that if it is due.
func (e *Engine) Count(ctx context.Context, t *wire.Task, outcome *wire.Outcome) error {
	if t.Parent == wire.None {
		return nil
	}
	value, first, err := e.Add(ctx, e.Names.Counter("join", t.Root, t.Parent, t.ParentStep), 1)
	if err != nil {
		return err
	}
	join := Join{t.Root, t.Parent, t.ParentStep}
	if first {
		e.lock.Lock()
		if len(e.counts) > remembered {
			clear(e.counts)
		}
		e.counts[t.Parent+"."+t.ParentStep] = value
		e.lock.Unlock()
	}
	switch bad := !outcome.Well(); {
	case bad && t.Eager:
		return e.Look(ctx, join, nil, false)
	case value >= wire.Seal && (first || bad):
		return e.Look(ctx, join, &value, false)
	case bad && value > wire.Seal/2 && value < wire.Seal:
		return e.Look(ctx, join, nil, true)
	}
	return nil
}

// GoOn goes on behind a step whose outcome is stored.
func (e *Engine) GoOn(ctx context.Context, t *wire.Task, g *wire.Graph, outcome *wire.Outcome) error {
	if g.FailFast && outcome.Lost() {
		alone := *outcome
		alone.Output, alone.Value, alone.Step = nil, nil, t.Step
		return e.End(ctx, t, g, &alone)
	}
	for _, step := range g.Behind(t.Step) {
		before := map[string]*wire.Outcome{t.Step: outcome}
		after := g.Node(step).After
		if len(after) > 1 {
			var err error
			if before, err = e.passGate(ctx, t, step, after); err != nil {
				return err
			}
		}
		if len(before) == len(after) {
			if err := e.begin(ctx, t, g, step, before); err != nil {
				return err
			}
		}
	}
	lasts := g.Lasts()
	if !slices.Contains(lasts, t.Step) {
		return nil
	}
	if len(lasts) > 1 {
		if ended, err := e.passGate(ctx, t, wire.End, lasts); err != nil || len(ended) < len(lasts) {
			return err
		}
	}
	return e.conclude(ctx, t, g)
}

// passGate counts at a gate, and returns which of the steps before it have ended, if it may be passed.
func (e *Engine) passGate(ctx context.Context, t *wire.Task, gate string, before []string) (map[string]*wire.Outcome, error) {
	value, _, err := e.Add(ctx, e.Names.Counter("gate", t.Root, t.Run, gate), 1)
	if err != nil || value < int64(len(before)) {
		return nil, err
	}
	return e.Steps(ctx, t, before)
}

// begin starts a step, or leaves it out.
func (e *Engine) begin(ctx context.Context, t *wire.Task, g *wire.Graph, step string, before map[string]*wire.Outcome) error {
	var how, reasons []string
	ended := 0.0
	for _, name := range g.Node(step).After {
		outcome := before[name]
		how = append(how, outcome.Status)
		ended = max(ended, outcome.Ended)
		if !outcome.Well() {
			verb := map[string]string{wire.Failed: "failed", wire.TimedOut: "timed out", wire.Cancelled: "was cancelled"}
			reasons = append(reasons, fmt.Sprintf("step '%s' %s", name, verb[outcome.Status]))
		}
	}
	next := t.At(step)
	out := &wire.Outcome{Workflow: t.Workflow, Step: step, Key: t.ShownKey(), Started: ended, Ended: ended}
	switch wire.Decide(how) {
	case "run":
		_, err := e.Publish(ctx, next, next.LaterID())
		return err
	case "skip":
		out.Status = wire.Skipped
	default:
		out.Status = wire.Cancelled
		out.Error = &wire.Failure{Type: "Cancelled", Message: "not run: " + strings.Join(reasons, " and "), Step: &step}
	}
	stored, err := e.storeStep(ctx, next, out)
	if err != nil {
		return err
	}
	return e.GoOn(ctx, next, g, stored)
}

// conclude ends a run whose last steps have all ended.
func (e *Engine) conclude(ctx context.Context, t *wire.Task, g *wire.Graph) error {
	var names []string
	for _, node := range g.Nodes {
		names = append(names, node.Name)
	}
	ended, err := e.Steps(ctx, t, names)
	if err != nil {
		return err
	}
	outputs := map[string]json.RawMessage{}
	for _, step := range g.Lasts() {
		outcome := ended[step]
		if outcome == nil {
			return nil // it is carried on by who stores that
		}
		if outputs[step], err = e.Output(ctx, t.Root, outcome); err != nil {
			fault := FaultOf(err)
			if fault == nil {
				return err
			}
			outcome.Status, outcome.Error = wire.Failed, &wire.Failure{Type: fault.Type, Message: fault.Message, Step: &step}
		}
	}
	outcome := ending(t, g, ended)
	if outcome.Status == wire.Succeeded {
		if outcome.Output, err = json.Marshal(outputs); err == nil {
			err = e.Pack(ctx, t.Root, outcome)
		}
		if fault := FaultOf(err); fault != nil {
			outcome.Status, outcome.Output, outcome.Value = wire.Failed, nil, nil
			outcome.Error = &wire.Failure{Type: fault.Type, Message: fault.Message}
		} else if err != nil {
			return err
		}
	}
	return e.End(ctx, t, g, outcome)
}

// textOfErrors is how many characters the errors of a run may have in all.
const textOfErrors = 100_000

// ending returns how a run ends, by how its steps have.
func ending(t *wire.Task, g *wire.Graph, ended map[string]*wire.Outcome) *wire.Outcome {
	made := &wire.Outcome{Status: wire.Succeeded, Workflow: t.Workflow, Key: t.ShownKey(), Attempt: 1}
	worst := []struct{ status, told string }{
		{wire.Failed, wire.Failed + " " + wire.TimedOut}, {wire.TimedOut, wire.TimedOut}, {wire.Cancelled, wire.Cancelled},
	}
	for _, step := range g.Lasts() {
		if last := ended[step]; last != nil {
			if made.Started == 0 || last.Started < made.Started {
				made.Started = last.Started
			}
			made.Ended, made.Worker = max(made.Ended, last.Ended), last.Worker
		}
	}
	for _, one := range worst {
		for _, node := range g.Nodes {
			outcome := ended[node.Name]
			if outcome == nil || !slices.Contains(strings.Fields(one.told), outcome.Status) {
				continue
			}
			if outcome.Status == one.status {
				made.Status = one.status
			}
			if made.Step == "" {
				made.Step, made.Attempt = node.Name, outcome.Attempt
			}
			made.Errors = append(made.Errors, outcome.Failures()...)
		}
		if made.Status != wire.Succeeded {
			break
		}
		made.Step, made.Errors = "", nil
	}
	if made.Status == wire.Succeeded {
		made.Step = strings.Join(g.Lasts()[:1], "")
		return made
	}
	if len(made.Errors) > 1 {
		share := textOfErrors / len(made.Errors)
		for at := range made.Errors {
			text := &made.Errors[at]
			text.Message = strings.ToValidUTF8(text.Message[:min(len(text.Message), share)], "")
			text.Traceback = strings.ToValidUTF8(text.Traceback[max(0, len(text.Traceback)-share):], "")
		}
	}
	if len(made.Errors) > 0 {
		made.Error = &made.Errors[0]
	}
	if len(made.Errors) < 2 {
		made.Errors = nil
	}
	return made
}
