package runs

import (
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"jetflow.dev/go/internal/broker"
	"jetflow.dev/go/internal/wire"
)

// What the bodies of cancel marks say.
const (
	MarkTree    = ""
	MarkAlone   = `"alone"`
	MarkDeleted = `"deleted"`
	MarkRest    = `"rest`
)

// Remembered is how long cancel marks count.
const Remembered = time.Hour

func cancelled(t *wire.Task) *wire.Outcome {
	return Ending(t, wire.Cancelled, Faultf("Cancelled", "the run was cancelled").Failure(""))
}

// mark stores a cancel mark. One that says less makes way for one that says all.
func (o *Op) mark(root, run, body string) {
	m := &nats.Msg{Subject: o.Names.Cancel(root, run), Data: []byte(body)}
	taken := o.Store(m)
	if taken == nil || body != MarkTree {
		return
	}
	if said := string(taken.Body); said == MarkAlone || strings.HasPrefix(said, MarkRest) {
		o.Purge(m.Subject)
		o.Store(m)
	}
}

// kin are the children of every run of a tree, as far as their tasks are stored.
type kin map[string]map[string]bool

func (o *Op) kinOf(root string) kin {
	found := kin{}
	for _, subject := range o.Subjects(o.Of("task.*.*", root, ">")) {
		if t, err := o.ParseTask(subject); err == nil {
			if found[t.Parent] == nil {
				found[t.Parent] = map[string]bool{}
			}
			found[t.Parent][t.Run] = true
		}
	}
	return found
}

// below returns a run and its descendants that have children.
func (k kin) below(run string) []string {
	found := []string{run}
	for at := 0; at < len(found); at++ {
		for child := range k[found[at]] {
			if len(k[child]) > 0 {
				found = append(found, child)
			}
		}
	}
	return found
}

func (o *Op) timersOf(t *wire.Task) string { return o.Of("timer.wake.*.*", t.Root, "*", t.Run, "*") }

// CancelRun cancels a run, with its descendants if tree is true. It tells whether the run was not over.
func (o *Op) CancelRun(run string, tree bool) bool {
	t, first := o.FirstTask(run)
	if t == nil {
		return false
	}
	stored, _ := o.Outcome(o.TaskRun(t))
	if stored != nil && stored.Status != wire.Cancelled {
		return false
	}
	graph := o.graphIfAny(t)
	if !tree {
		o.mark(t.Root, run, MarkAlone)
		o.End(t, graph, cancelled(t))
		o.Purge(o.timersOf(t))
		return stored == nil
	}
	family := o.kinOf(t.Root)
	marked := []string{run} // the mark of a root covers all
	if t.Parent != wire.None {
		marked = family.below(run)
	}
	for _, one := range marked {
		o.mark(t.Root, one, MarkTree)
	}
	o.noteRemoved(t, len(family[run]))
	o.End(t, graph, cancelled(t))
	if t.Parent == wire.None {
		o.removeTree(t, first)
		return stored == nil
	}
	for _, one := range marked {
		o.Purge(o.Of("task.*.*", t.Root, one, ">"), o.Of("timer.wake.*.*", t.Root, one, ">"))
	}
	o.Purge(o.timersOf(t))
	return stored == nil
}

func (o *Op) noteRemoved(t *wire.Task, children int) {
	if children > 0 {
		o.Record(o.Of("once", t.Root, t.Run, "_cancel.removed"), children)
	}
}

// removeTree removes the queued tasks of a root run, but for its first: a copy outlives who dies in between.
func (o *Op) removeTree(t *wire.Task, first *broker.Message) {
	triggered := first.Header.Get(wire.HdrTriggered)
	if triggered == "" {
		triggered = fmt.Sprintf("%.3f", float64(first.Time.UnixMilli())/1e3)
	}
	again := Message(o.Names, t, t.Run+".kept."+wire.NewID()[16:])
	kept := Message(o.Names, t, t.Run+".keep."+wire.NewID()[16:])
	kept.Subject = o.Of("cancel", t.Root, "kept", wire.NewID()[16:])
	again.Header[wire.HdrTriggered], kept.Header[wire.HdrTriggered] = []string{triggered}, []string{triggered}
	kept.Header[wire.HdrKept] = []string{again.Subject}
	o.Store(kept)
	o.Purge(o.Of("task.*.*", t.Root, ">"), o.Of("timer.wake.*.*", t.Root, ">"))
	o.Store(again)
	if mark := o.Last(o.Names.Cancel(t.Root, t.Root)); mark == nil || string(mark.Body) != MarkDeleted {
		o.Purge(kept.Subject)
	}
}

// CancelOpen cancels those children of a join that have not ended; of no members, all whose tasks name its step.
func (o *Op) CancelOpen(join Join, members map[string]bool) {
	over := map[string]bool{}
	for _, subject := range o.Subjects(o.Ended(join, "*")) {
		over[wire.LastToken(subject)] = true
	}
	var family kin
	for t := range o.Tasks(o.Of("task.*.*", join.Root, join.Run, ">")) {
		if t.ParentStep != join.Step || over[t.Run] || (members != nil && !members[t.Run]) {
			continue
		}
		over[t.Run] = true
		if family == nil {
			family = o.kinOf(join.Root)
		}
		o.mark(t.Root, t.Run, MarkTree)
		o.End(t, o.graphIfAny(t), cancelled(t))
		o.Purge(o.timersOf(t))
		for _, child := range family.below(t.Run)[1:] {
			o.mark(t.Root, child, MarkTree)
		}
		if o.Err != nil {
			return
		}
	}
}

// cancelLeft cancels what is left of a run that has failed fast.
func (o *Op) cancelLeft(t *wire.Task, g *wire.Graph) {
	body := MarkRest + `"`
	if g.OnFailure != nil {
		body = MarkRest + " but " + *g.OnFailure + `"`
	}
	o.mark(t.Root, t.Run, body)
	for _, node := range g.Nodes {
		o.CancelOpen(Join{t.Root, t.Run, node.Name}, nil)
		o.Purge(o.Of("timer.wake", t.Workflow, node.Name, t.Root, "*", t.Run, "*"))
	}
}

// Drop ends the delivery of a task whose run is cancelled. own and root are what the marks of these say, if anything.
func (o *Op) Drop(t *wire.Task, g *wire.Graph, own, root *string) {
	if root != nil && *root == MarkDeleted {
		return
	}
	stored, message := o.Outcome(o.Run("*", "*", "*", t.Run))
	if stored != nil {
		if message.Subject == o.TaskRun(t) {
			o.Follow(t, g, stored)
		}
		return
	}
	if own == nil && (root == nil || *root == MarkAlone) {
		o.mark(t.Root, t.Run, MarkTree)
		o.noteRemoved(t, len(o.Subjects(o.Of("task.*.*", t.Root, t.Run, ">"))))
	}
	o.End(t, g, cancelled(t))
}

// Delete removes a tree, but for the mark that it was deleted.
func (o *Op) Delete(root string) {
	o.Remove(o.Subjects(o.Of("cancel", root, ">")))
	o.Store(&nats.Msg{Subject: o.Names.Cancel(root, root), Data: []byte(MarkDeleted)})
	o.Remove(o.Subjects(o.Of("task.*.*", root, ">")))
	for _, kind := range []string{"counter", "value", "timer.wake.*.*", "due.wake.*.*", "entry.*.*", "gone", "*"} { // records are the last
		below := o.Of(kind, root, ">")
		if kind == "counter" {
			below = strings.TrimSuffix(o.Counter("*", root, ">", ""), ".")
		}
		o.Purge(below)
		if broker.Is(o.Err, 10059) { // there is no such stream
			o.Err = nil
		}
	}
}
