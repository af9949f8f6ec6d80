package runs

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"jetflow.dev/go/internal/wire"
)

// Finish ends a step whose children are done. hadChildren has those looked at that may have borrowed one.
func (o *Op) Finish(t *wire.Task, g *wire.Graph, outcome *wire.Outcome, hadChildren bool) {
	if g.IsOnlyLast(t.Step) {
		o.End(t, g, outcome)
		return
	}
	stored := o.storeStep(t, outcome)
	if g.IsSequel(t.Step) {
		return
	}
	o.GoOn(t, g, stored)
	if slices.Contains(g.Limited, t.Step) {
		o.leaveStep(t, t.Step)
	}
	if hadChildren {
		o.LookBeside(t, g)
	}
}

// LookBeside looks at the joins of steps that may have borrowed a child of a step that has ended, at each once.
func (o *Op) LookBeside(t *wire.Task, g *wire.Graph) {
	o.looked[JoinOf(t)] = true
	for _, step := range g.Beside(t.Step) {
		if join := JoinOf(t.At(step)); !o.looked[join] {
			o.Look(join, 0, false)
		}
	}
}

func (o *Op) storeStep(t *wire.Task, outcome *wire.Outcome) *wire.Outcome {
	if taken := o.Record(o.Step(t), outcome); taken != nil {
		return wire.DecodeOutcome(taken.Body)
	}
	return outcome
}

// End ends a run, and carries its parent on. Without a graph nothing follows a failure.
func (o *Op) End(t *wire.Task, g *wire.Graph, outcome *wire.Outcome) {
	if !outcome.Well() {
		o.Put(&nats.Msg{Subject: o.Mark(t, outcome.Status), Data: outcome.Mark()})
	}
	body := o.Encode(outcome)
	m, put := &nats.Msg{Subject: o.TaskRun(t), Data: body}, o.Put
	if t.Shared { // one that is stored under another step counts as well
		m.Header, put = nats.Header{wire.HdrExpected: {"0"}, wire.HdrExpectedOn: {o.Run(t.Root, t.Parent, "*", t.Run)}}, o.Store
	}
	if taken := put(m); taken != nil {
		outcome = wire.DecodeOutcome(taken.Body)
	} else if o.Err == nil && t.Parent != wire.None && o.isHeard(t) {
		if err := o.NC.Publish(o.Of("live", "run", t.Root, t.Parent, t.ParentStep, t.Run), body); err != nil {
			o.Log.Debug("a live copy is not told", "error", err)
		}
	}
	o.Follow(t, g, outcome)
}

// isHeard tells whether anybody may listen to the end of a child: not where its parent's step has returned, or is
// parked, with many children still open.
func (o *Op) isHeard(t *wire.Task) bool {
	value := o.counts.get(t.Parent + "." + t.ParentStep)
	return value < wire.Seal/2 || value > wire.Seal-1000
}

// Follow does what follows the stored outcome of a run: it is counted, and what is to run behind it begins.
func (o *Op) Follow(t *wire.Task, g *wire.Graph, outcome *wire.Outcome) {
	o.count(t, outcome)
	o.leave(t)
	if g == nil {
		return
	}
	for _, step := range g.Limited {
		o.leaveStep(t, step)
	}
	var sequel *string
	switch {
	case outcome.Lost():
		if g.FailFast && len(g.Nodes) > 1 {
			o.cancelLeft(t, g)
		}
		sequel = g.OnFailure
	case outcome.Well():
		sequel = g.OnSuccess
	}
	if sequel != nil {
		behind := t.At(*sequel)
		behind.Deadline = ""
		o.Publish(behind)
	}
}

// leave gives the places of limits back that a run has.
func (o *Op) leave(t *wire.Task) {
	switch {
	case t.Places != "":
		o.giveBack(t, t.Run, strings.Fields(t.Places))
	case t.Step == wire.Admit:
		o.giveBack(t, t.Run, o.needed(t, wire.Admit, "places"))
	}
}

// leaveStep gives those back that a step has for itself.
func (o *Op) leaveStep(t *wire.Task, step string) {
	o.giveBack(t, t.Run+"="+step, o.needed(t, step, "_places"))
}

// needed returns the places that a run or a step has asked for.
func (o *Op) needed(t *wire.Task, step, name string) (places []string) {
	var asked struct{ Places [][]string }
	if stored := o.Last(o.Of("once", t.Root, t.Run, step, name)); stored != nil && json.Unmarshal(stored.Body, &asked) == nil {
		for _, one := range asked.Places {
			places = append(places, strings.Join(one[:min(2, len(one))], "."))
		}
	}
	return places
}

// giveBack has who stands at gates gone from all of them, and asks workers of level full to look who is next.
func (o *Op) giveBack(t *wire.Task, who string, places []string) {
	if len(places) == 0 {
		return
	}
	o.Store(&nats.Msg{Subject: o.Of("gone", t.Root, who)})
	for _, place := range places {
		if limit, key, _ := strings.Cut(place, "."); wire.IsName(limit) && (key == "_" || wire.IsName(key)) {
			o.Purge(o.Of("entry", place, t.Root, t.Parent, who))
			o.Store(&nats.Msg{Subject: o.Of("in.limit", place)})
		}
	}
}

// count counts the end of a run in its parent's join, and looks at that if it is due.
func (o *Op) count(t *wire.Task, outcome *wire.Outcome) {
	if t.Parent == wire.None {
		return
	}
	join := Join{t.Root, t.Parent, t.ParentStep}
	value, first := o.Add(o.Counter("join", join.Root, join.Run, join.Step), 1)
	if first && o.Err == nil {
		o.counts.put(join.key(), value)
	}
	switch bad := !outcome.Well(); {
	case bad && t.Eager:
		o.Look(join, 0, false)
	case value >= wire.Seal && (first || bad):
		o.Look(join, value, false)
	case bad && value > wire.Seal/2 && value < wire.Seal:
		o.Look(join, 0, true)
	}
}

// GoOn goes on behind a step whose outcome is stored.
func (o *Op) GoOn(t *wire.Task, g *wire.Graph, outcome *wire.Outcome) {
	if g.FailFast && outcome.Lost() {
		alone := *outcome
		alone.Output, alone.Value, alone.Step = nil, nil, t.Step
		o.End(t, g, &alone)
		return
	}
	for _, step := range g.Behind(t.Step) {
		before := map[string]*wire.Outcome{t.Step: outcome}
		after := g.Node(step).After
		if len(after) > 1 {
			before = o.passGate(t, step, after)
		}
		if o.Err == nil && len(before) == len(after) { // else it is carried on by who stores the last of them
			o.begin(t, g, step, before)
		}
	}
	lasts := g.Lasts()
	if !slices.Contains(lasts, t.Step) {
		return
	}
	if len(lasts) == 1 || len(o.passGate(t, wire.End, lasts)) == len(lasts) {
		o.conclude(t, g, lasts)
	}
}

// passGate counts the end of a step before a gate, and reads how those before it have ended if all may have.
func (o *Op) passGate(t *wire.Task, gate string, before []string) map[string]*wire.Outcome {
	if value, _ := o.Add(o.Counter("gate", t.Root, t.Run, gate), 1); value < int64(len(before)) {
		return nil
	}
	return o.Steps(t, before)
}

// begin starts a step, or leaves it out.
func (o *Op) begin(t *wire.Task, g *wire.Graph, step string, before map[string]*wire.Outcome) {
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
	out := Ending(next, wire.Skipped, nil)
	out.Attempt, out.Started, out.Ended = 0, ended, ended
	switch wire.Decide(how, g.IsConditional(step)) {
	case "run":
		o.Publish(next)
		return
	case "cancel":
		out.Status = wire.Cancelled
		out.Error = Faultf("Cancelled", "not run: %s", strings.Join(reasons, " and ")).Failure(step)
	}
	o.GoOn(next, g, o.storeStep(next, out))
}

// conclude ends a run whose last steps have all ended.
func (o *Op) conclude(t *wire.Task, g *wire.Graph, lasts []string) {
	var names []string
	for _, node := range g.Nodes {
		names = append(names, node.Name)
	}
	ended := o.Steps(t, names)
	outputs := map[string]json.RawMessage{}
	for _, step := range lasts {
		outcome := ended[step]
		if outcome == nil {
			return // it is carried on by who stores that
		}
		if outcome.Status == wire.Skipped {
			continue
		}
		outputs[step] = o.Output(t.Root, outcome)
		if fault := o.Fault(); fault != nil {
			outcome.Status, outcome.Error = wire.Failed, fault.Failure(step)
		}
	}
	outcome := ending(t, g, ended)
	if outcome.Status == wire.Succeeded && len(lasts) > 1 { // an only one that does not end its run was skipped
		outcome.Output, _ = json.Marshal(outputs)
		o.Pack(t.Root, outcome)
		if fault := o.Fault(); fault != nil {
			outcome.Status, outcome.Output, outcome.Error = wire.Failed, nil, fault.Failure("")
		}
	}
	o.End(t, g, outcome)
}

// textOfErrors is how many characters the errors of a run may have in all.
const textOfErrors = 100_000

// ending returns how a run ends, by how its steps have.
func ending(t *wire.Task, g *wire.Graph, ended map[string]*wire.Outcome) *wire.Outcome {
	lasts := g.Lasts()
	made := Ending(t, wire.Succeeded, nil)
	made.Step, made.Ended = lasts[0], 0
	for _, step := range lasts {
		last := ended[step]
		if made.Started == 0 || last.Started < made.Started {
			made.Started = last.Started
		}
		made.Ended, made.Worker = max(made.Ended, last.Ended), last.Worker
	}
	for _, told := range [][]string{{wire.Failed, wire.TimedOut}, {wire.TimedOut}, {wire.Cancelled}} {
		first, isWorst := "", false
		for _, node := range g.Nodes {
			if one := ended[node.Name]; one != nil && slices.Contains(told, one.Status) {
				first, isWorst = cmp.Or(first, node.Name), isWorst || one.Status == told[0]
				made.Errors = append(made.Errors, one.Failures()...)
			}
		}
		if isWorst {
			made.Status, made.Step, made.Attempt = told[0], first, ended[first].Attempt
			break
		}
		made.Errors = nil
	}
	if len(made.Errors) > 0 {
		made.Error = &made.Errors[0]
	}
	if len(made.Errors) < 2 {
		made.Errors = nil
	}
	for at := range made.Errors {
		share, text := textOfErrors/len(made.Errors), &made.Errors[at]
		text.Message = strings.ToValidUTF8(text.Message[:min(len(text.Message), share)], "")
		text.Traceback = strings.ToValidUTF8(text.Traceback[max(0, len(text.Traceback)-share):], "")
	}
	return made
}
