package wire

import (
	"fmt"
	"strconv"
	"strings"
)

// What stands in subjects for steps and runs that are none, and when a join may be complete.
const (
	Start = "_start"
	Admit = "_admit"
	End   = "_end"
	None  = "-"
	Any   = "*"
	Seal  = int64(1) << 40
)

// Names are the subjects and streams of one namespace.
type Names struct{ Namespace string }

// streams are those of the kinds of subjects that are no records.
var streams = map[string]string{"task": "tasks", "cancel": "tasks", "value": "values", "timer": "timers", "due": "timers",
	"entry": "gates", "gone": "gates"}

// Stream returns the stream that holds a subject.
func (n Names) Stream(subject string) string {
	if bucket, is := strings.CutPrefix(subject, "$KV."); is {
		return "KV_" + Token(bucket, 0)
	}
	if name := streams[Token(subject, 2)]; name != "" {
		return "JF_" + n.Namespace + "_" + name
	}
	return "JF_" + n.Namespace + "_records"
}

// Of returns `jf.<namespace>.<tokens>`.
func (n Names) Of(tokens ...string) string {
	return "jf." + n.Namespace + "." + strings.Join(tokens, ".")
}

// Counter returns the subject of a counter: of a join, a gate or a tree.
func (n Names) Counter(kind, root, run, step string) string {
	return "$KV.jf_" + n.Namespace + "_counters." + kind + "." + root + "." + run + "." + step
}

// Workflow returns the subject of a declaration, or with a version that of a graph.
func (n Names) Workflow(workflow, version string) string {
	subject := "$KV.jf_" + n.Namespace + "_workflows." + workflow
	if version != "" {
		subject += "." + version
	}
	return subject
}

// Task returns the subject of a turn of a step.
func (n Names) Task(t *Task) string {
	return n.Of("task", t.Workflow, t.Step, t.Root, t.Parent, t.Run, strconv.Itoa(t.Turn))
}

// Run returns the subject of a run's outcome; TaskRun that of a task's run.
func (n Names) Run(root, parent, parentStep, run string) string {
	return n.Of("run", root, parent, parentStep, run)
}
func (n Names) TaskRun(t *Task) string { return n.Run(t.Root, t.Parent, t.ParentStep, t.Run) }

// Step returns the subject of the outcome of a task's step.
func (n Names) Step(t *Task) string { return n.Of("step", t.Root, t.Run, t.Step) }

// Mark returns the subject of the mark that a run did not succeed.
func (n Names) Mark(t *Task, status string) string {
	return n.Of("mark", t.Root, t.Parent, t.ParentStep, status, t.Workflow, t.Run)
}

// Try returns the subject of an attempt.
func (n Names) Try(t *Task, delivery string) string {
	return n.Of("try", t.Root, t.Run, t.Step, strconv.Itoa(t.Turn), delivery)
}

// Timer returns the subject of a turn's timer, or of what it becomes: kind is `timer` or `due`.
func (n Names) Timer(kind string, t *Task) string {
	return n.Of(kind, "wake", t.Workflow, t.Step, t.Root, t.Parent, t.Run, strconv.Itoa(t.Turn))
}

// Cancel returns the subject of a cancel mark.
func (n Names) Cancel(root, run string) string { return n.Of("cancel", root, run) }

// LastToken returns the last token of a subject.
func LastToken(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }

// Token returns the token of a subject at a place, counted from 0; empty if there is none.
func Token(subject string, at int) string {
	for ; at > 0; at-- {
		_, subject, _ = strings.Cut(subject, ".")
	}
	token, _, _ := strings.Cut(subject, ".")
	return token
}

// ParseTask reads the tokens of a task's subject.
func (n Names) ParseTask(subject string) (*Task, error) {
	tokens := strings.Split(subject, ".")
	refuse := func(why string) (*Task, error) { return nil, fmt.Errorf("%q is no task: %s", subject, why) }
	if len(tokens) != 9 || tokens[0] != "jf" || tokens[1] != n.Namespace || tokens[2] != "task" {
		return refuse("its subject has other tokens")
	}
	t := &Task{Workflow: tokens[3], Step: tokens[4], Root: tokens[5], Parent: tokens[6], Run: tokens[7], ParentStep: None}
	var ok bool
	if t.Turn, ok = count(tokens[8], 9); !ok || (len(tokens[8]) > 1 && tokens[8][0] == '0') {
		return refuse("a turn is a number without leading zeros")
	}
	switch {
	case !IsName(t.Workflow) || !isStep(t.Step):
		return refuse("its workflow or step is no name")
	case !IsRunID(t.Root) || !IsRunID(t.Run) || (t.Parent != None && !IsRunID(t.Parent)):
		return refuse("a run id has 32 lower-case hexadecimal digits")
	case t.Parent == None && t.Root != t.Run:
		return refuse("a root run is its own root")
	}
	return t, nil
}

func count(text string, digits int) (int, bool) {
	if text == "" || len(text) > digits || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	number, err := strconv.Atoi(text)
	return number, err == nil
}
