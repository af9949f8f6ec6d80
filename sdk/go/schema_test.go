package jetflow

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"jetflow.dev/go/internal/wire"
)

type inner struct {
	CPU float64 `json:"cpu"`
}

type job struct {
	Path   string            `json:"path"`
	Ratio  float64           `json:"ratio,omitempty"`
	Tags   []string          `json:"tags,omitempty"`
	Limits map[string]*inner `json:"limits,omitempty"`
	Next   *job              `json:"next,omitempty"`
	At     time.Time         `json:"at,omitzero"`
	hidden int
	Left   string `json:"-"`
}

// digest returns the digest of a text by the schema of a type.
func digest(t *testing.T, kind reflect.Type, text string) string {
	t.Helper()
	schema, err := wire.ParseSchema(schemaOf(kind))
	if err != nil {
		t.Fatal(err)
	}
	found, err := wire.Digest([]byte(text), schema)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestWhatIsEmptyIsLeftOutOfIdentity(t *testing.T) {
	kind := reflect.TypeFor[job]()
	short := digest(t, kind, `{"path":"a"}`)
	for _, text := range []string{
		`{"path":"a","ratio":0,"tags":[],"limits":{},"next":null,"at":"0001-01-01T00:00:00Z"}`, `{"ratio":0.0,"path":"a"}`,
	} {
		if digest(t, kind, text) != short {
			t.Errorf("%s must be one input with what leaves it out", text)
		}
	}
	for _, text := range []string{`{"path":"a","ratio":1}`, `{"path":"b"}`, `{"path":"a","tags":["x"]}`, `{"path":"a","next":{"path":""}}`} {
		if digest(t, kind, text) == short {
			t.Errorf("%s is another input", text)
		}
	}
	whole, _ := encode(job{Path: "a", hidden: 1, Left: "x", Next: &job{Path: "b", Ratio: 1}})
	if got := digest(t, kind, string(whole)); got != digest(t, kind, `{"next":{"ratio":1.0,"path":"b"},"path":"a"}`) {
		t.Errorf("%s is the same input as by hand", whole)
	}
}

func TestNumbersAreToldApartByType(t *testing.T) {
	big := "9007199254740993"
	if digest(t, reflect.TypeFor[[]float64](), "["+big+"]") != digest(t, reflect.TypeFor[[]float64](), "[9007199254740992]") {
		t.Error("as doubles they are one")
	}
	if digest(t, reflect.TypeFor[[]int64](), "["+big+"]") == digest(t, reflect.TypeFor[[]int64](), "[9007199254740992]") {
		t.Error("as integers they are two")
	}
}

func TestWhatCannotBeWrittenIsRefused(t *testing.T) {
	for _, value := range []any{math.NaN(), math.Inf(1), "\xff", map[string]string{"\xff": ""}, make(chan int), []string{"ok", "\\\xff"}} {
		if text, err := encode(value); err == nil {
			t.Errorf("%q is refused, not %s", fmt.Sprint(value), text)
		}
	}
	for _, value := range []any{"\ufffd", `\ufffd`, `\\ufffd`, "<&>", json.RawMessage(nil)} {
		text, err := encode(value)
		if err != nil {
			t.Errorf("%q is text: %v", value, err)
		}
		var again string
		if given, is := value.(string); is && (json.Unmarshal(text, &again) != nil || again != given) {
			t.Errorf("%q comes back as %q", given, again)
		}
	}
}

type checked struct{ N int }

func (c checked) Validate() error {
	if c.N < 0 {
		return errors.New("N is negative")
	}
	return nil
}

func TestWhatDoesNotFitIsRefused(t *testing.T) {
	refused := func(err error) {
		t.Helper()
		if !errors.Is(err, ErrInvalidInput) || errors.Is(err, ErrKeyConflict) {
			t.Errorf("an InvalidInput is expected, not %v", err)
		}
	}
	_, err := decode[int]([]byte(`"three"`), "InvalidInput")
	refused(err)
	_, err = decode[int]([]byte(``), "InvalidInput")
	refused(err)
	_, err = decode[job]([]byte(`null`), "InvalidInput")
	refused(err)
	_, err = decode[checked]([]byte(`{"N":-1}`), "InvalidInput")
	refused(err)
	if got, err := decode[*int]([]byte(`null`), "InvalidInput"); err != nil || got != nil {
		t.Errorf("a pointer may be null: %v, %v", got, err)
	}
}

func TestErrorsHaveNames(t *testing.T) {
	for want, err := range map[string]error{
		"Error": fmt.Errorf("a: %w", errors.New("b")), "SyntaxError": fmt.Errorf("a: %w", &json.SyntaxError{}),
		"NonRetryable": NonRetryable(errors.New("a")), "Panic": &panicked{value: "x"}, "KeyConflict": fmt.Errorf("x: %w", ErrKeyConflict),
		"ChildrenFailed": fmt.Errorf("x: %w", &ChildrenFailed{Total: 1}), "ChildFailed": &RunFailed{Status: "failed"},
		"PathError": RetryAfter(time.Second, fmt.Errorf("x: %w", &pathError{})),
	} {
		if got := failure("s", err).Type; got != want && !(want == "PathError" && got == "pathError") {
			t.Errorf("%v is called %s, not %s", err, got, want)
		}
	}
}

type pathError struct{}

func (*pathError) Error() string { return "path" }

func TestDelaysGrow(t *testing.T) {
	retry := Retry{Initial: time.Second, Max: 5 * time.Second}
	for attempt, want := range []float64{1, 2, 4, 5, 5} {
		if got := retry.delay(attempt + 1); got != want {
			t.Errorf("behind attempt %d: %g s, not %g", attempt+1, got, want)
		}
	}
}
