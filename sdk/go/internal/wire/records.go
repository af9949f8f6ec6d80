package wire

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// How runs and steps end.
const (
	Succeeded = "succeeded"
	Failed    = "failed"
	Cancelled = "cancelled"
	TimedOut  = "timed_out"
	Skipped   = "skipped"
)

// Failure is an error as records have it.
type Failure struct {
	Type      string  `json:"type"`
	Message   string  `json:"message"`
	Step      *string `json:"step,omitempty"`
	Traceback string  `json:"traceback,omitempty"`
	Place     string  `json:"place,omitempty"`
}

// UnmarshalJSON refuses an error without a type or a message.
func (f *Failure) UnmarshalJSON(text []byte) error {
	type plain Failure
	return decode(text, (*plain)(f), "type", "message")
}

// decode reads a record, and refuses one without a field that is required.
func decode(text []byte, into any, required ...string) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return err
	}
	for _, name := range required {
		if value := fields[name]; len(value) == 0 || string(value) == "null" {
			return fmt.Errorf("the record has no %s", name)
		}
	}
	return json.Unmarshal(text, into)
}

// Outcome is how a run or a step has ended. Status is written first.
type Outcome struct {
	Status   string          `json:"status"`
	Output   json.RawMessage `json:"output,omitempty"`
	Value    *string         `json:"value,omitempty"`
	Error    *Failure        `json:"error,omitempty"`
	Errors   []Failure       `json:"errors,omitempty"`
	Workflow string          `json:"workflow,omitempty"`
	Step     string          `json:"step,omitempty"`
	Key      *string         `json:"key,omitempty"`
	Attempt  int             `json:"attempt"`
	Started  float64         `json:"started,omitempty"`
	Ended    float64         `json:"ended,omitempty"`
	Worker   string          `json:"worker,omitempty"`
}

// DecodeOutcome reads an Outcome; one that cannot be read is a failure of type MalformedOutcome.
func DecodeOutcome(text []byte) *Outcome {
	made := &Outcome{Attempt: 1}
	err := json.Unmarshal(text, made)
	if known := []string{Succeeded, Failed, Cancelled, TimedOut, Skipped}; err == nil && slices.Contains(known, made.Status) {
		return made
	}
	return &Outcome{Status: Failed, Attempt: 1, Error: &Failure{Type: "MalformedOutcome", Message: "its outcome cannot be read"}}
}

// Well tells whether what has ended so does not fail others.
func (o *Outcome) Well() bool { return o.Status == Succeeded || o.Status == Skipped }

// Lost tells whether a run that ended so failed or timed out, and was not just cancelled.
func (o *Outcome) Lost() bool { return o.Status == Failed || o.Status == TimedOut }

// Failures returns all errors.
func (o *Outcome) Failures() []Failure {
	if len(o.Errors) > 0 || o.Error == nil {
		return o.Errors
	}
	return []Failure{*o.Error}
}

// Mark returns the body of the mark of a run that did not succeed: 1,000 bytes at most.
func (o *Outcome) Mark() (text []byte) {
	why := Failure{}
	if o.Error != nil {
		why = *o.Error
	}
	told := map[string]*string{"type": &why.Type, "message": &why.Message, "place": &why.Place, "step": why.Step, "key": o.Key}
	for most := 200; ; most /= 2 {
		mark := map[string]string{}
		for name, of := range told {
			if of != nil {
				mark[name] = string([]rune(*of)[:min(most, utf8.RuneCountInString(*of))])
			}
		}
		if text, _ = json.Marshal(mark); len(text) <= 1000 || most == 0 {
			return text
		}
	}
}

// Attempt is a delivery that ended without an outcome, or whose body has begun.
type Attempt struct {
	Attempt  int      `json:"attempt"`
	Worker   string   `json:"worker,omitempty"`
	Started  float64  `json:"started,omitempty"`
	Ended    float64  `json:"ended,omitempty"`
	Error    *Failure `json:"error,omitempty"`
	Returned bool     `json:"returned,omitempty"`
	Again    *float64 `json:"again,omitempty"`
}

// DecodeAttempt reads an Attempt; one that cannot be read is an attempt that counts.
func DecodeAttempt(text []byte) (*Attempt, error) {
	made := &Attempt{Attempt: 1}
	if err := json.Unmarshal(text, made); err != nil {
		return &Attempt{Attempt: 1, Error: &Failure{Type: "MalformedAttempt", Message: "its record cannot be read"}}, err
	}
	return made, nil
}

// Join is a JoinRecord.
type Join struct {
	Kind     string      `json:"kind"`
	Turn     int         `json:"turn"`
	Task     string      `json:"task"`
	Needed   int         `json:"needed"`
	Total    int         `json:"total,omitempty"`
	Policy   *Policy     `json:"policy,omitempty"`
	Members  *string     `json:"members,omitempty"`
	IDSum    string      `json:"id_sum,omitempty"`
	Borrowed [][2]string `json:"borrowed,omitempty"`
	Excused  []string    `json:"excused,omitempty"`
	Whole    *string     `json:"whole,omitempty"`
	Until    *float64    `json:"until,omitempty"`
	Tried    int         `json:"tried,omitempty"`
	Outcome
}

// DecodeJoin reads a JoinRecord.
func DecodeJoin(text []byte) (*Join, error) {
	j := &Join{Outcome: Outcome{Attempt: 1, Status: Succeeded}}
	err := decode(text, j, "kind", "turn", "task", "needed")
	if err == nil && j.Kind != "sealed" && j.Kind != "parked" {
		err = fmt.Errorf("%.40q is no kind of a join", j.Kind)
	}
	if err == nil {
		_, err = j.MemberIDs()
	}
	return j, err
}

// MemberIDs returns the ids in members; nil if there are none because all that is stored counts.
func (j *Join) MemberIDs() (map[string]bool, error) {
	if j.Members == nil {
		return nil, nil
	}
	packed, err := base64.StdEncoding.DecodeString(*j.Members)
	if err != nil || len(packed)%16 != 0 {
		return nil, fmt.Errorf("its members cannot be read: %w", err)
	}
	ids := make(map[string]bool, len(packed)/16)
	for at := 0; at < len(packed); at += 16 {
		ids[hex.EncodeToString(packed[at:at+16])] = true
	}
	return ids, nil
}

// PackMembers returns ids as `members` has them.
func PackMembers(ids []string) *string {
	packed, _ := hex.DecodeString(strings.Join(ids, ""))
	text := base64.StdEncoding.EncodeToString(packed)
	return &text
}

// Increment is what the record adds to its step's counter.
func (j *Join) Increment() int64 { return Seal - int64(max(0, j.Needed-len(j.Borrowed))) }

// Counted tells whether the counter says when to look: what waits for a time alone waits for no child.
func (j *Join) Counted() bool { return j.Kind != "parked" || j.Needed > 0 }

// Rule returns the policy.
func (j *Join) Rule() Policy {
	if j.Policy == nil {
		return Policy{}
	}
	return *j.Policy
}

// Increment is the header value that adds to a counter.
func Increment(by int64) string { return "+" + strconv.FormatInt(by, 10) }
