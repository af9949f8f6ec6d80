package wire

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// Header names, as docs/wire.md has them.
const (
	MsgID         = "Nats-Msg-Id"
	hdrParentStep = "Jf-Parent-Step"
	hdrVersion    = "Jf-Version"
	hdrDepth      = "Jf-Depth"
	hdrDigest     = "Jf-Digest"
	hdrKey        = "Jf-Key"
	hdrMetadata   = "Jf-Metadata"
	hdrDeadline   = "Jf-Deadline"
	hdrNotBefore  = "Jf-Not-Before"
	hdrEager      = "Jf-Eager"
	hdrShared     = "Jf-Shared"
	hdrElder      = "Jf-Elder"
	hdrRerun      = "Jf-Rerun"
	hdrLevel      = "Jf-Level"
	hdrPlaces     = "Jf-Places"
	hdrHeld       = "Jf-Held"
	hdrValue      = "Jf-Value"
	hdrTrace      = "traceparent"
	HdrAttempt    = "Jf-Attempt"
	HdrTriggered  = "Jf-Triggered"
	HdrKept       = "Jf-Kept"
	HdrExpected   = "Nats-Expected-Last-Subject-Sequence"
	HdrExpectedOn = "Nats-Expected-Last-Subject-Sequence-Subject"
)

// Task is one turn of a step of a run. Key, Metadata, Deadline, NotBefore and Trace are header values, repeated as they are.
type Task struct {
	Workflow, Step, Root, Parent, Run string
	Turn                              int
	ParentStep, Version, Digest       string
	Depth, Tried                      int
	Key, Metadata, Deadline           string
	NotBefore                         string
	Trace, Value                      string
	Elder, Rerun, Level               string
	Places, Held                      string // of limits: those that the run has, and those above it
	Eager, Shared                     bool
	Input                             []byte
}

// Headers reads or writes headers by name; absent ones are empty.
type Headers interface{ Get(name string) string }

// ReadTask reads a task message.
func (n Names) ReadTask(subject string, headers Headers, body []byte) (*Task, error) {
	t, err := n.ParseTask(subject)
	if err != nil {
		return nil, err
	}
	t.Input = body
	t.Version, t.Digest, t.Key = headers.Get(hdrVersion), headers.Get(hdrDigest), headers.Get(hdrKey)
	t.Metadata, t.Deadline, t.NotBefore = headers.Get(hdrMetadata), headers.Get(hdrDeadline), headers.Get(hdrNotBefore)
	t.Trace, t.Value, t.Eager = headers.Get(hdrTrace), headers.Get(hdrValue), headers.Get(hdrEager) == "1"
	t.Shared = headers.Get(hdrShared) == "1"
	t.Elder, t.Rerun, t.Level = headers.Get(hdrElder), headers.Get(hdrRerun), headers.Get(hdrLevel)
	t.Places, t.Held = headers.Get(hdrPlaces), headers.Get(hdrHeld)
	if step := headers.Get(hdrParentStep); step != "" {
		t.ParentStep = step
	}
	if (t.Parent == None) != (t.ParentStep == None) || (t.ParentStep != None && !isStep(t.ParentStep)) {
		return nil, fmt.Errorf("%q is no task: %s is %q", subject, hdrParentStep, t.ParentStep)
	}
	for name, to := range map[string]*int{hdrDepth: &t.Depth, HdrAttempt: &t.Tried} {
		if text := headers.Get(name); text != "" {
			var ok bool
			if *to, ok = count(text, 9); !ok {
				return nil, fmt.Errorf("%q is no task: %s is %.40q", subject, name, text)
			}
		}
	}
	if _, ok := t.DeadlineAt(); !ok {
		return nil, fmt.Errorf("%q is no task: %s is %.40q", subject, hdrDeadline, t.Deadline)
	}
	if _, ok := t.BeginsAt(); !ok {
		return nil, fmt.Errorf("%q is no task: %s is %.40q", subject, hdrNotBefore, t.NotBefore)
	}
	if t.Version != "" && (len(t.Version) > 64 || !isToken("v"+t.Version)) {
		return nil, fmt.Errorf("%q is no task: %s is %.80q", subject, hdrVersion, t.Version)
	}
	return t, nil
}

// DeadlineAt returns Jf-Deadline in seconds since the epoch; +Inf if there is none. It is false if that is no number.
func (t *Task) DeadlineAt() (float64, bool) { return seconds(t.Deadline, math.Inf(1)) }

// BeginsAt returns Jf-Not-Before in seconds since the epoch; 0 if there is none. It is false if that is no number.
func (t *Task) BeginsAt() (float64, bool) { return seconds(t.NotBefore, 0) }

func seconds(text string, absent float64) (float64, bool) {
	if text == "" {
		return absent, true
	}
	at, err := strconv.ParseFloat(text, 64)
	return at, err == nil && !math.IsNaN(at)
}

// ShownKey returns the key as it is shown; nil if there is none.
func (t *Task) ShownKey() *string {
	var key string
	if t.Key == "" {
		return nil
	}
	if json.Unmarshal([]byte(t.Key), &key) != nil {
		key = t.Key
	}
	return &key
}

// Headers calls set for each header of a task but its message id.
func (t *Task) Headers(set func(name, value string)) {
	set(hdrParentStep, t.ParentStep)
	set(hdrVersion, t.Version)
	set(hdrDepth, strconv.Itoa(t.Depth))
	optional := [...][2]string{
		{hdrDigest, t.Digest}, {hdrKey, t.Key}, {hdrMetadata, t.Metadata}, {hdrDeadline, t.Deadline},
		{hdrNotBefore, t.NotBefore}, {hdrValue, t.Value}, {hdrTrace, t.Trace},
		{hdrElder, t.Elder}, {hdrRerun, t.Rerun}, {hdrLevel, t.Level}, {hdrPlaces, t.Places}, {hdrHeld, t.Held},
	}
	for _, one := range optional {
		if one[1] != "" {
			set(one[0], one[1])
		}
	}
	if t.Eager {
		set(hdrEager, "1")
	}
	if t.Shared {
		set(hdrShared, "1")
	}
	if t.Tried > 0 {
		set(HdrAttempt, strconv.Itoa(t.Tried))
	}
}

// At returns the task of the first turn of another step of the run.
func (t *Task) At(step string) *Task {
	other := *t
	other.Step, other.Turn, other.Tried = step, 0, 0
	return &other
}

// NextTurn returns the task of the next turn, which counts attempts as made.
func (t *Task) NextTurn(tried int) *Task {
	next := *t
	next.Turn, next.Tried = t.Turn+1, tried
	return &next
}

// LaterID returns the message id of a task that is not the first of its run.
func (t *Task) LaterID() string { return t.Run + "." + t.Step + "." + strconv.Itoa(t.Turn) }

// FirstID returns the message id of the first task of a run: of a root run, or of a child that has a key or has none.
func (t *Task) FirstID() string {
	id := t.Run
	if t.Parent != None {
		id += "." + t.ParentStep
	}
	if t.Digest != "" {
		id += "." + t.Digest
	}
	return id
}
