package wire

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const vectors = "../../../../conformance/"

func load(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(vectors + file)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestIdentity(t *testing.T) {
	var v struct {
		Canonical []struct {
			Text, Canonical, Digest string
			Schema                  json.RawMessage
		}
		Refused []string
		RootIDs []struct{ Workflow, Key, ID string } `json:"root_ids"`
		Childs  []struct {
			Parent, Workflow, ID, Input string
			Key                         *string
			Schema                      json.RawMessage
		} `json:"child_ids"`
		Sums []struct {
			IDs []string
			Sum string
		} `json:"id_sums"`
		Shown []struct{ Key, Shown string }  `json:"shown_keys"`
		Once  []struct{ Name, Token string } `json:"once_tokens"`
		Refs  []struct {
			Bytes struct {
				Repeat string
				Times  int
			}
			MaxPayload int64 `json:"max_payload"`
			Ref        string
			Chunks     []int
		} `json:"value_refs"`
	}
	load(t, "vectors.json", &v)
	for _, one := range v.Canonical {
		schema, err := ParseSchema(one.Schema)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := schema.Canonical([]byte(one.Text)); err != nil || string(got) != one.Canonical {
			t.Errorf("canonical of %.100s by %s: %s, not %s (%v)", one.Text, one.Schema, got, one.Canonical, err)
		}
		if got, _ := Digest([]byte(one.Text), schema); got != one.Digest {
			t.Errorf("digest of %.100s: %s, not %s", one.Text, got, one.Digest)
		}
	}
	for _, text := range v.Refused {
		if got, err := (&Schema{}).Canonical([]byte(text)); err == nil {
			t.Errorf("%.100q is refused, not %.100s", text, got)
		}
	}
	for _, one := range v.RootIDs {
		if got := RootID(one.Workflow, one.Key); got != one.ID {
			t.Errorf("root id of %+v: %s", one, got)
		}
	}
	for _, one := range v.Childs {
		digest := ""
		if one.Key == nil {
			schema, _ := ParseSchema(one.Schema)
			digest, _ = Digest([]byte(one.Input), schema)
		}
		if got := ChildID(one.Parent, one.Workflow, one.Key, digest); got != one.ID {
			t.Errorf("child id of %+v: %s", one, got)
		}
	}
	for _, one := range v.Sums {
		if sum := SumOf(slices.Values(one.IDs)); sum != one.Sum {
			t.Errorf("sum of %v: %s", one.IDs, sum)
		}
	}
	for _, one := range v.Shown {
		if got := ShownKey(one.Key); got != one.Shown {
			t.Errorf("%q is shown as %q", one.Key, got)
		}
	}
	for _, one := range v.Once {
		if got := OnceToken(one.Name); got != one.Token {
			t.Errorf("the token of %q: %q, not %q", one.Name, got, one.Token)
		}
	}
	for _, one := range v.Refs {
		ref, chunks := ValueRef([]byte(strings.Repeat(one.Bytes.Repeat, one.Bytes.Times)), ChunkSize(one.MaxPayload))
		sizes := []int{}
		for _, chunk := range chunks {
			sizes = append(sizes, len(chunk))
		}
		if ref != one.Ref || !reflect.DeepEqual(sizes, one.Chunks) {
			t.Errorf("%s %v, not %+v", ref, sizes, one)
		}
	}
	for _, key := range []string{"\xff", "a\xed\xa0\x80"} {
		if CheckKey(key) == nil {
			t.Errorf("the key %q is refused", key)
		}
	}
}

type headers map[string]string

func (h headers) Get(name string) string { return h[name] }

func TestSubjects(t *testing.T) {
	var v []struct {
		Namespace, Kind, Subject string
		Fields                   map[string]string
	}
	load(t, "vectors/subjects.json", &v)
	for _, one := range v {
		f, n := one.Fields, Names{one.Namespace}
		task := &Task{Workflow: f["workflow"], Step: f["step"], Root: f["root"], Parent: f["parent"], Run: f["run"], ParentStep: f["parent_step"]}
		task.Turn, _ = count(f["turn"], 9)
		built := map[string]string{
			"task": n.Task(task), "cancel": n.Cancel(f["root"], f["run"]), "run": n.TaskRun(task),
			"step": n.Step(task), "join": n.Of("join", f["root"], f["run"], f["step"], f["turn"]),
			"mark": n.Mark(task, f["status"]), "try": n.Try(task, f["delivery"]),
			"once":  n.Of("once", f["root"], f["run"], f["step"], f["name"]),
			"value": n.Of("value", f["root"], f["digest"], f["chunk"]), "timer": n.Timer("timer", task), "due": n.Timer("due", task),
			"live.run":    n.Of("live", "run", f["root"], f["parent"], f["parent_step"], f["run"]),
			"live.cancel": n.Of("live", "cancel", f["root"], f["run"]), "in.trigger": n.Of("in", "trigger", f["workflow"]),
			"in.look":  n.Of("in", "look", f["root"], f["run"], f["step"]),
			"count":    n.Counter("join", f["root"], f["run"], f["step"]),
			"gate":     n.Counter("gate", f["root"], f["run"], f["step"]),
			"tree":     n.Counter("tree", f["root"], f["run"], f["step"]),
			"workflow": n.Workflow(f["workflow"], ""), "version": n.Workflow(f["workflow"], f["version"]),
		}
		if built[one.Kind] != one.Subject {
			t.Errorf("%s: %s, not %s", one.Kind, built[one.Kind], one.Subject)
		}
		if one.Kind == "task" {
			if read, err := n.ParseTask(one.Subject); err != nil || n.Task(read) != one.Subject {
				t.Errorf("%s is not read: %v", one.Subject, err)
			}
		}
	}
	var refused []struct {
		Subject, Why string
		Headers      headers
	}
	load(t, "vectors/refused_subjects.json", &refused)
	for _, one := range refused {
		if _, err := (Names{"default"}).ReadTask(one.Subject, one.Headers, nil); err == nil {
			t.Errorf("%s is refused: %s", one.Subject, one.Why)
		}
	}
}

func TestTasks(t *testing.T) {
	var v []struct {
		Subject string
		Headers headers
		Body    string
		Written bool
		Task    struct {
			Version, Digest string
			Depth, Tried    int
			Key, Value      *string
			Deadline        *float64
			Eager, Shared   bool
		}
	}
	load(t, "vectors/task_headers.json", &v)
	for _, one := range v {
		read, err := Names{"default"}.ReadTask(one.Subject, one.Headers, []byte(one.Body))
		if err != nil {
			t.Fatal(err)
		}
		want := one.Task
		at, _ := read.DeadlineAt()
		if read.Version != want.Version || read.Digest != want.Digest || read.Depth != want.Depth || read.Tried != want.Tried ||
			read.Eager != want.Eager || read.Shared != want.Shared || !reflect.DeepEqual(read.ShownKey(), want.Key) || (want.Deadline != nil && at != *want.Deadline) ||
			(want.Value != nil && read.Value != *want.Value) {
			t.Errorf("%+v is read as %+v", want, read)
		}
		if written := (headers{MsgID: read.LaterID()}); one.Written {
			read.Headers(func(name, value string) { written[name] = value })
			if !reflect.DeepEqual(written, one.Headers) {
				t.Errorf("%v is written as %v", one.Headers, written)
			}
		}
	}
	var ids []struct {
		Run, Step, Digest, ID string
		ParentStep            string `json:"parent_step"`
		Turn                  *int
	}
	load(t, "vectors/message_ids.json", &ids)
	for _, one := range ids {
		task := &Task{Run: one.Run, Step: one.Step, Digest: one.Digest, ParentStep: one.ParentStep, Parent: one.ParentStep}
		got := ""
		if one.Turn != nil {
			task.Turn = *one.Turn
			got = task.LaterID()
		} else {
			if task.Parent == "" {
				task.Parent = None
			}
			got = task.FirstID()
		}
		if got != one.ID {
			t.Errorf("%+v has the message id %s", one, got)
		}
	}
}

func TestRecords(t *testing.T) {
	var v []struct {
		Kind, JSON string
		Decoded    json.RawMessage
	}
	load(t, "vectors/records.json", &v)
	for _, one := range v {
		var read any
		var err error
		wanted := string(one.Decoded) != "null"
		switch one.Kind {
		case "outcome":
			outcome := DecodeOutcome([]byte(one.JSON))
			read = outcome
			if !wanted && (outcome.Error == nil || outcome.Error.Type != "MalformedOutcome") {
				t.Errorf("%s is no outcome", one.JSON)
			}
		case "attempt":
			read, err = DecodeAttempt([]byte(one.JSON))
		case "join":
			read, err = DecodeJoin([]byte(one.JSON))
		case "graph":
			read, err = DecodeGraph([]byte(one.JSON))
		case "declaration":
			read, err = DecodeDeclaration([]byte(one.JSON))
		}
		if one.Kind != "outcome" && (err == nil) != wanted && read != nil {
			t.Errorf("%s %s: %v", one.Kind, one.JSON, err)
		}
		if wanted && read != nil {
			holds(t, one.JSON, one.Decoded, read)
		}
	}
}

// holds checks that each field of a record that is not its zero value is written again as it was decoded.
func holds(t *testing.T, text string, decoded json.RawMessage, read any) {
	var want, got map[string]any
	written, err := json.Marshal(read)
	if err != nil {
		t.Fatal(err)
	}
	_ = json.Unmarshal(decoded, &want)
	_ = json.Unmarshal(written, &got)
	for name, value := range want {
		if _, is := value.(map[string]any); is || value == nil || name == "steps" || name == "nodes" || name == "members" {
			continue
		}
		rv := reflect.ValueOf(value)
		if !rv.IsZero() && (rv.Kind() != reflect.Slice || rv.Len() > 0) && got[name] != nil && !reflect.DeepEqual(got[name], value) {
			if name == "errors" {
				continue
			}
			t.Errorf("%s of %s is %v, not %v", name, text, got[name], value)
		}
	}
}

func TestGraphsAndPolicies(t *testing.T) {
	var graphs []struct {
		Graph  json.RawMessage
		First  string
		Behind map[string][]string
		Lasts  []string
		Beside map[string][]string
	}
	load(t, "vectors/graphs.json", &graphs)
	same := func(a, b []string) bool { return len(a) == len(b) && strings.Join(a, " ") == strings.Join(b, " ") }
	for _, one := range graphs {
		g, err := DecodeGraph(one.Graph)
		if err != nil {
			t.Fatal(err)
		}
		if g.First() != one.First || !same(g.Lasts(), one.Lasts) {
			t.Errorf("%s: %s %v", one.Graph, g.First(), g.Lasts())
		}
		for step, names := range one.Behind {
			if !same(g.Behind(step), names) {
				t.Errorf("behind %s of %s: %v, not %v", step, one.Graph, g.Behind(step), names)
			}
		}
		for step, names := range one.Beside {
			if !same(g.Beside(step), names) {
				t.Errorf("beside %s of %s: %v, not %v", step, one.Graph, g.Beside(step), names)
			}
		}
	}
	var decisions []struct {
		Before      []string
		Conditional bool
		Verdict     string
	}
	load(t, "vectors/decide.json", &decisions)
	for _, one := range decisions {
		if got := Decide(one.Before, one.Conditional); got != one.Verdict {
			t.Errorf("%v: %s, not %s", one.Before, got, one.Verdict)
		}
	}
	var policies []struct {
		Policy                           Policy
		Total, Succeeded, Ended, Missing int
		Verdict                          string
	}
	load(t, "vectors/policies.json", &policies)
	for _, one := range policies {
		verdict, missing := one.Policy.Verdict(one.Total, one.Succeeded, one.Ended), one.Policy.Missing(one.Total, one.Succeeded, one.Ended)
		if verdict != one.Verdict || missing != one.Missing {
			t.Errorf("%+v: %s %d", one, verdict, missing)
		}
	}
}
