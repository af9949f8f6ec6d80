package runs

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

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

// CancelledOutcome returns how a run ends that is cancelled.
func CancelledOutcome(t *wire.Task) *wire.Outcome {
	return &wire.Outcome{Status: wire.Cancelled, Error: &wire.Failure{Type: "Cancelled", Message: "the run was cancelled"},
		Workflow: t.Workflow, Step: t.Step, Key: t.ShownKey(), Attempt: 1, Ended: Now()}
}

// FirstTask reads the first task of a run; nil if there is none.
func (e *Engine) FirstTask(ctx context.Context, run string) (*wire.Task, *broker.Message, error) {
	return e.Task(ctx, e.Names.Of("task", wire.Any, wire.Any, wire.Any, wire.Any, run, "0"))
}

// MarkCancelled stores a cancel mark.
func (e *Engine) MarkCancelled(ctx context.Context, root, run, body string) error {
	w := &broker.Write{Stream: e.Names.Tasks(), Subject: e.Names.Cancel(root, run), Body: []byte(body)}
	told, err := e.Store(ctx, w)
	if err != nil || told.Taken == nil || body != MarkTree {
		return err
	}
	if said := string(told.Taken.Body); said != MarkAlone && !strings.HasPrefix(said, MarkRest) {
		return nil
	}
	if err := e.Purge(ctx, w.Stream, w.Subject); err != nil {
		return err
	}
	_, err = e.Store(ctx, w)
	return err
}

// families returns the children of every run of a tree, as far as their tasks are stored.
func (e *Engine) families(ctx context.Context, root string) (map[string]map[string]bool, error) {
	subjects, err := e.Subjects(ctx, e.Names.Tasks(), e.Names.Of("task", "*.*", root, ">"))
	found := map[string]map[string]bool{}
	for _, subject := range subjects {
		if t, err := e.Names.ParseTask(subject); err == nil {
			if found[t.Parent] == nil {
				found[t.Parent] = map[string]bool{}
			}
			found[t.Parent][t.Run] = true
		}
	}
	return found, err
}

// Cancel cancels a run, with its descendants if tree is true. It tells whether the run was not over.
func (e *Engine) Cancel(ctx context.Context, run string, tree bool) (bool, error) {
	t, first, err := e.FirstTask(ctx, run)
	if err != nil || t == nil {
		return false, err
	}
	stored, _, err := e.Outcome(ctx, e.Names.TaskRun(t))
	if err != nil || (stored != nil && stored.Status != wire.Cancelled) {
		return false, err
	}
	graph, err := e.Graph(ctx, t.Workflow, t.Version)
	if err != nil && FaultOf(err) == nil {
		return false, err
	}
	if !tree {
		if err := e.MarkCancelled(ctx, t.Root, run, MarkAlone); err != nil {
			return false, err
		}
		if err := e.End(ctx, t, graph, CancelledOutcome(t)); err != nil {
			return false, err
		}
		return stored == nil, e.Purge(ctx, e.Names.Timers(), e.Names.Of("timer", "wake.*.*", t.Root, "*", run, "*"))
	}
	families, err := e.families(ctx, t.Root)
	if err != nil {
		return false, err
	}
	marked := []string{run}
	if t.Parent != wire.None {
		for at := 0; at < len(marked); at++ {
			for child := range families[marked[at]] {
				if len(families[child]) > 0 {
					marked = append(marked, child)
				}
			}
		}
	}
	for _, one := range marked {
		if err := e.MarkCancelled(ctx, t.Root, one, MarkTree); err != nil {
			return false, err
		}
	}
	if err := e.noteRemoved(ctx, t, len(families[run])); err != nil {
		return false, err
	}
	if err := e.End(ctx, t, graph, CancelledOutcome(t)); err != nil {
		return false, err
	}
	if t.Parent == wire.None {
		return stored == nil, e.removeTree(ctx, t, first)
	}
	for _, one := range marked {
		if err := e.removeBelow(ctx, t.Root, one); err != nil {
			return false, err
		}
	}
	return stored == nil, e.Purge(ctx, e.Names.Timers(), e.Names.Of("timer", "wake.*.*", t.Root, "*", run, "*"))
}

func (e *Engine) removeBelow(ctx context.Context, root, parent string) error {
	if err := e.Purge(ctx, e.Names.Tasks(), e.Names.Of("task", "*.*", root, parent, ">")); err != nil {
		return err
	}
	return e.Purge(ctx, e.Names.Timers(), e.Names.Of("timer", "wake.*.*", root, parent, ">"))
}

func (e *Engine) noteRemoved(ctx context.Context, t *wire.Task, children int) error {
	if children == 0 {
		return nil
	}
	_, err := e.Record(ctx, e.Names.Of("once", t.Root, t.Run, "_cancel", "removed"), children)
	return err
}

// removeTree removes the queued tasks of a root run, but for its first: a copy outlives who dies in between.
func (e *Engine) removeTree(ctx context.Context, t *wire.Task, first *broker.Message) error {
	again := e.Write(t, t.Run+".kept."+wire.NewID()[16:])
	triggered := first.Header.Get(wire.HdrTriggered)
	if triggered == "" {
		triggered = fmt.Sprintf("%.3f", float64(first.Time.UnixMilli())/1e3)
	}
	again.Header[wire.HdrTriggered] = []string{triggered}
	kept := e.Write(t, t.Run+".keep."+wire.NewID()[16:])
	kept.Subject = e.Names.Of("cancel", t.Root, "kept", wire.NewID()[16:])
	kept.Header[wire.HdrTriggered], kept.Header[wire.HdrKept] = []string{triggered}, []string{again.Subject}
	if _, err := e.Store(ctx, kept); err != nil {
		return err
	}
	if err := e.Purge(ctx, e.Names.Tasks(), e.Names.Of("task", "*.*", t.Root, ">")); err != nil {
		return err
	}
	if err := e.Purge(ctx, e.Names.Timers(), e.Names.Of("timer", "wake.*.*", t.Root, ">")); err != nil {
		return err
	}
	if _, err := e.Store(ctx, again); err != nil {
		return err
	}
	mark, err := e.Last(ctx, e.Names.Tasks(), e.Names.Cancel(t.Root, t.Root))
	if err != nil || (mark != nil && string(mark.Body) == MarkDeleted) {
		return err
	}
	return e.Purge(ctx, e.Names.Tasks(), kept.Subject)
}

// CancelOpen cancels those children of a join that have not ended; of no members, all whose tasks name its step.
func (e *Engine) CancelOpen(ctx context.Context, join Join, members map[string]bool) error {
	filter := e.Names.Of("task", wire.Any, wire.Any, join.Root, join.Run, ">")
	ended, err := e.Subjects(ctx, e.Names.Records(), e.Names.Run(join.Root, join.Run, join.Step, wire.Any))
	if err != nil {
		return err
	}
	over := map[string]bool{}
	for _, subject := range ended {
		over[wire.LastToken(subject)] = true
	}
	var families map[string]map[string]bool
	for message, err := range e.After(ctx, e.Names.Tasks(), filter, 0) {
		if err != nil {
			return err
		}
		t, err := e.Names.ReadTask(message.Subject, message.Header, message.Body)
		if err != nil || t.ParentStep != join.Step || over[t.Run] || (members != nil && !members[t.Run]) {
			continue
		}
		over[t.Run] = true
		if families == nil {
			if families, err = e.families(ctx, join.Root); err != nil {
				return err
			}
		}
		if err := e.cancelChild(ctx, t, families); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) cancelChild(ctx context.Context, t *wire.Task, families map[string]map[string]bool) error {
	if err := e.MarkCancelled(ctx, t.Root, t.Run, MarkTree); err != nil {
		return err
	}
	graph, err := e.Graph(ctx, t.Workflow, t.Version)
	if err != nil && FaultOf(err) == nil {
		return err
	}
	if err := e.End(ctx, t, graph, CancelledOutcome(t)); err != nil {
		return err
	}
	if err := e.Purge(ctx, e.Names.Timers(), e.Names.Of("timer", "wake.*.*", t.Root, "*", t.Run, "*")); err != nil {
		return err
	}
	for below := []string{t.Run}; len(below) > 0; below = below[1:] {
		for child := range families[below[0]] {
			if len(families[child]) == 0 {
				continue
			}
			below = append(below, child)
			if err := e.MarkCancelled(ctx, t.Root, child, MarkTree); err != nil {
				return err
			}
		}
	}
	return nil
}

// cancelLeft cancels what is left of a run that has failed fast.
func (e *Engine) cancelLeft(ctx context.Context, t *wire.Task, g *wire.Graph) error {
	body := MarkRest + `"`
	if g.OnFailure != nil {
		body = MarkRest + " but " + *g.OnFailure + `"`
	}
	if err := e.MarkCancelled(ctx, t.Root, t.Run, body); err != nil {
		return err
	}
	for _, node := range g.Nodes {
		if err := e.CancelOpen(ctx, Join{t.Root, t.Run, node.Name}, nil); err != nil {
			return err
		}
		timers := e.Names.Of("timer", "wake", t.Workflow, node.Name, t.Root, "*", t.Run, "*")
		if err := e.Purge(ctx, e.Names.Timers(), timers); err != nil {
			return err
		}
	}
	return nil
}

// Drop ends the delivery of a task whose run is cancelled. own and root are what the marks of these say, if anything.
func (e *Engine) Drop(ctx context.Context, t *wire.Task, g *wire.Graph, own, root *string) error {
	if root != nil && *root == MarkDeleted {
		return nil
	}
	stored, message, err := e.Outcome(ctx, e.Names.Run(wire.Any, wire.Any, wire.Any, t.Run))
	if err != nil {
		return err
	}
	if stored != nil {
		if message.Subject != e.Names.TaskRun(t) {
			return nil
		}
		return e.Follow(ctx, t, g, stored)
	}
	if own == nil && (root == nil || *root == MarkAlone) {
		if err := e.MarkCancelled(ctx, t.Root, t.Run, MarkTree); err != nil {
			return err
		}
		children, err := e.Subjects(ctx, e.Names.Tasks(), e.Names.Of("task", "*.*", t.Root, t.Run, ">"))
		if err == nil {
			err = e.noteRemoved(ctx, t, len(children))
		}
		if err != nil {
			return err
		}
	}
	return e.End(ctx, t, g, CancelledOutcome(t))
}

// Delete removes a tree, but for the mark that it was deleted.
func (e *Engine) Delete(ctx context.Context, root string) error {
	n := e.Names
	marks, err := e.Subjects(ctx, n.Tasks(), n.Cancel(root, ">"))
	if err != nil {
		return err
	}
	if err := e.removeOneByOne(ctx, marks); err != nil {
		return err
	}
	body, _ := json.Marshal("deleted")
	if _, err := e.Store(ctx, &broker.Write{Stream: n.Tasks(), Subject: n.Cancel(root, root), Body: body}); err != nil {
		return err
	}
	tasks, err := e.Subjects(ctx, n.Tasks(), n.Of("task", "*.*", root, ">"))
	if err != nil {
		return err
	}
	if err := e.removeOneByOne(ctx, tasks); err != nil {
		return err
	}
	counters := strings.Replace(n.Counter(wire.Any, root, ">", ""), ">.", ">", 1)
	purges := [][2]string{
		{n.Counters(), counters}, {n.Values(), n.Of("value", root, ">")}, {n.Timers(), n.Of("*", "wake.*.*", root, ">")},
		{n.Records(), n.Of("*", root, ">")},
	}
	for _, one := range purges {
		if err := e.Purge(ctx, one[0], one[1]); err != nil && !broker.Is(err, 10059) {
			return err
		}
	}
	return nil
}

func (e *Engine) removeOneByOne(ctx context.Context, subjects []string) error {
	for _, subject := range subjects {
		stored, err := e.Last(ctx, e.Names.Tasks(), subject)
		if err == nil && stored != nil {
			err = e.Remove(ctx, e.Names.Tasks(), stored.Seq)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
