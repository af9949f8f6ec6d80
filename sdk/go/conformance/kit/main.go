// Command kit hosts the workflows that the conformance suite asks for, and a client on standard input; see
// conformance/README.md in the repository.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"

	"jetflow.dev/go"
)

var prefix = os.Getenv("PREFIX")

var (
	atOnce = jetflow.Retry{Attempts: 1}
	short  = jetflow.Retry{Attempts: 3, Initial: 400 * time.Millisecond, Multiplier: 1}
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, stop); err != nil {
		log.Fatal(err)
	}
}

func setting(name string, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func run(ctx context.Context, stop func()) error {
	namespace := jetflow.Namespace(setting("JETFLOW_NAMESPACE", "default"))
	client, err := jetflow.Connect(ctx, "", namespace)
	if err != nil {
		return err
	}
	defer client.Close()
	slots, err := strconv.Atoi(setting("SLOTS", "100"))
	if err != nil {
		return fmt.Errorf("SLOTS: %w", err)
	}
	worker, err := jetflow.NewWorker(client, flows(),
		jetflow.Slots(slots), jetflow.ParkAfter(0), jetflow.Grace(5*time.Second), jetflow.UnknownStepGrace(3*time.Second),
		jetflow.OnReady(func() { fmt.Println("ready") }))
	if err != nil {
		return err
	}
	go serve(ctx, client, stop)
	return worker.Run(ctx)
}

func flows() []jetflow.Flow {
	all := slices.Concat(single(), spawning(), graphs())
	return append(all, lateFlow("late", func() error { return errors.New("lost after spawning") }), lateFlow("crash", func() error {
		os.Exit(1)
		return nil
	}))
}

func define[In, Out any](name string, do func(*jetflow.Ctx, In) (Out, error), options ...jetflow.Option) jetflow.Flow {
	return jetflow.Define(prefix+name, do, options...)
}

type again struct {
	Seconds float64 `json:"seconds"`
	Fails   *int    `json:"fails,omitempty"`
}

type big struct {
	Text string `json:"text"`
	N    *int   `json:"n,omitempty"`
}

func or(number *int, otherwise int) int {
	if number == nil {
		return otherwise
	}
	return *number
}

func sleep(ctx context.Context, seconds float64) error {
	select {
	case <-time.After(time.Duration(seconds * float64(time.Second))):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func single() []jetflow.Flow {
	return []jetflow.Flow{
		define("square", func(_ *jetflow.Ctx, n int) (int, error) { return n * n, nil }, short),
		define("echo", func(_ *jetflow.Ctx, value json.RawMessage) (json.RawMessage, error) { return value, nil }, short),
		define("flaky", func(ctx *jetflow.Ctx, n int) (int, error) {
			if ctx.Attempt() < 3 {
				return 0, fmt.Errorf("attempt %d of %d fails", ctx.Attempt(), n)
			}
			return ctx.Attempt(), nil
		}, short),
		define("fail", func(_ *jetflow.Ctx, n int) (int, error) {
			if n%10 == 3 {
				return 0, fmt.Errorf("%d ends in 3", n)
			}
			return n, nil
		}, atOnce),
		define("again", func(ctx *jetflow.Ctx, given again) (int, error) {
			if ctx.Attempt() <= or(given.Fails, 1) {
				delay := time.Duration(given.Seconds * float64(time.Second))
				return 0, jetflow.RetryAfter(delay, fmt.Errorf("attempt %d fails", ctx.Attempt()))
			}
			return ctx.Attempt(), nil
		}, jetflow.Retry{Attempts: 5}),
		define("slow", func(ctx *jetflow.Ctx, seconds float64) (int, error) { return ctx.Attempt(), sleep(ctx, seconds) }, short),
		define("big", func(_ *jetflow.Ctx, given big) (string, error) {
			text := make([]byte, 0, len(given.Text)*or(given.N, 1))
			for range or(given.N, 1) {
				text = append(text, given.Text...)
			}
			return string(text), nil
		}, atOnce),
	}
}

type spawn struct {
	Child  string            `json:"child"`
	Inputs []json.RawMessage `json:"inputs"`
	Key    *string           `json:"key,omitempty"`
}

func (s spawn) all(ctx *jetflow.Ctx) (*jetflow.Children[json.RawMessage], error) {
	return spawnAll(ctx, s.Child, s.Inputs, s.Key)
}

func spawnAll(ctx *jetflow.Ctx, child string, inputs []json.RawMessage, key *string) (*jetflow.Children[json.RawMessage], error) {
	var options []jetflow.SpawnOption
	if key != nil {
		options = append(options, jetflow.Key(func(input json.RawMessage) string {
			if *key == "each" {
				return string(input)
			}
			return *key
		}))
	}
	return jetflow.SpawnByName[json.RawMessage](ctx, child, slices.Values(inputs), options...)
}

func scatter(ctx *jetflow.Ctx, given spawn) (any, error) {
	_, err := given.all(ctx)
	return nil, err
}

func outputs(children iter.Seq2[jetflow.Child[json.RawMessage], error]) ([]json.RawMessage, error) {
	found := []json.RawMessage{}
	for child, err := range children {
		if err == nil {
			err = child.Err
		}
		if err != nil {
			return nil, err
		}
		found = append(found, child.Output)
	}
	return found, nil
}

func sum[In any](ctx *jetflow.Ctx, _ In) (float64, error) {
	total := 0.0
	for child, err := range jetflow.ChildrenOf[float64](ctx, jetflow.Name("scatter")) {
		if err == nil {
			err = child.Err
		}
		if err != nil {
			return 0, err
		}
		total += child.Output
	}
	return total, nil
}

type park struct {
	Child  string            `json:"child"`
	Inputs []json.RawMessage `json:"inputs"`
	Then   []json.RawMessage `json:"then,omitempty"`
}

type bounded struct {
	Child   string            `json:"child"`
	Inputs  []json.RawMessage `json:"inputs"`
	Seconds float64           `json:"seconds"`
}

type detach struct {
	Child string          `json:"child"`
	Input json.RawMessage `json:"input"`
	Key   *string         `json:"key,omitempty"`
}

func spawning() []jetflow.Flow {
	fan := jetflow.NewFlow[spawn, float64](prefix+"fan", short)
	first := jetflow.Step(fan, "scatter", scatter)
	jetflow.Step(fan, "sum", sum[spawn], jetflow.After(first))

	borrow := jetflow.NewFlow[spawn, any](prefix+"borrow", short)
	one, two := jetflow.Step(borrow, "one", scatter), jetflow.Step(borrow, "two", scatter)
	jetflow.Step(borrow, "end", func(ctx *jetflow.Ctx, _ spawn) ([2][]json.RawMessage, error) {
		ofOne, err := outputs(jetflow.ChildrenOf[json.RawMessage](ctx, one))
		if err != nil {
			return [2][]json.RawMessage{}, err
		}
		ofTwo, err := outputs(jetflow.ChildrenOf[json.RawMessage](ctx, two))
		return [2][]json.RawMessage{ofOne, ofTwo}, err
	}, jetflow.After(one, two))

	return []jetflow.Flow{fan, borrow,
		define("park", func(ctx *jetflow.Ctx, given park) ([]json.RawMessage, error) {
			all := []json.RawMessage{}
			for _, inputs := range [][]json.RawMessage{given.Inputs, given.Then} {
				children, err := spawnAll(ctx, given.Child, inputs, nil)
				if err != nil {
					return nil, err
				}
				found, err := children.Join(ctx)
				if err != nil {
					return nil, err
				}
				all = append(all, found...)
			}
			return all, nil
		}, short),
		define("bounded", func(ctx *jetflow.Ctx, given bounded) (int, error) {
			children, err := spawnAll(ctx, given.Child, given.Inputs, nil)
			if err != nil {
				return 0, err
			}
			limit := time.Duration(given.Seconds * float64(time.Second))
			joined, err := children.Settle(ctx, jetflow.Collect().Within(limit))
			if err != nil {
				return 0, err
			}
			return len(joined.Succeeded), nil
		}, short),
		define("nest", func(ctx *jetflow.Ctx, depth int) (int, error) {
			if depth == 0 {
				return 0, nil
			}
			children, err := jetflow.SpawnByName[int](ctx, prefix+"nest", slices.Values([]int{depth - 1}))
			if err != nil {
				return 0, err
			}
			below, err := children.Join(ctx)
			if err != nil {
				return 0, err
			}
			return below[0] + 1, nil
		}, short),
		define("detach", func(ctx *jetflow.Ctx, given detach) (string, error) {
			var options []jetflow.SpawnOption
			if given.Key != nil {
				options = append(options, jetflow.Key(func(json.RawMessage) string { return *given.Key }))
			}
			return jetflow.Detach(ctx, given.Child, given.Input, options...)
		}, short),
	}
}

type late struct {
	Child  string            `json:"child"`
	Inputs []json.RawMessage `json:"inputs"`
	Again  []json.RawMessage `json:"again"`
	Fails  *int              `json:"fails,omitempty"`
}

func lateFlow(name string, lose func() error) jetflow.Flow {
	flow := jetflow.NewFlow[late, float64](prefix+name, jetflow.Retry{Attempts: 2, Initial: 200 * time.Millisecond})
	first := jetflow.Step(flow, "scatter", func(ctx *jetflow.Ctx, given late) (any, error) {
		inputs := given.Inputs
		if ctx.Attempt() > 1 {
			inputs = given.Again
		}
		if _, err := spawnAll(ctx, given.Child, inputs, nil); err != nil {
			return nil, err
		}
		if ctx.Attempt() <= or(given.Fails, 1) {
			return nil, lose()
		}
		return nil, nil
	})
	jetflow.Step(flow, "sum", sum[late], jetflow.After(first))
	return flow
}

type steps struct {
	Fail    []string           `json:"fail,omitempty"`
	Seconds map[string]float64 `json:"seconds,omitempty"`
}

func named(name string) func(*jetflow.Ctx, steps) (string, error) {
	return func(ctx *jetflow.Ctx, given steps) (string, error) {
		if err := sleep(ctx, given.Seconds[name]); err != nil {
			return "", err
		}
		if slices.Contains(given.Fail, name) {
			return "", fmt.Errorf("%s fails", name)
		}
		return name, nil
	}
}

func undo(ctx *jetflow.Ctx, _ steps) ([]string, error) {
	told, err := ctx.Errors()
	names := []string{}
	for _, one := range told {
		if one.Step != nil {
			names = append(names, *one.Step)
		}
	}
	return names, err
}

func graphs() []jetflow.Flow {
	diamond := jetflow.NewFlow[int, any](prefix+"diamond", short)
	left := jetflow.Step(diamond, "left", func(_ *jetflow.Ctx, n int) (int, error) { return n + 1, nil })
	right := jetflow.Step(diamond, "right", func(_ *jetflow.Ctx, n int) (int, error) { return n + 2, nil })
	jetflow.Step(diamond, "sum", func(ctx *jetflow.Ctx, _ int) (int, error) {
		one, err := jetflow.Output(ctx, left)
		if err != nil {
			return 0, err
		}
		two, err := jetflow.Output(ctx, right)
		return one + two, err
	}, jetflow.After(left, right))
	jetflow.Step(diamond, "text", func(_ *jetflow.Ctx, n int) (string, error) {
		text := make([]byte, n)
		for at := range text {
			text[at] = 'x'
		}
		return string(text), nil
	}, jetflow.After(left, right))

	five := func(name string, options ...jetflow.Option) *jetflow.Workflow[steps, any] {
		flow := jetflow.NewFlow[steps, any](prefix+name, append(options, atOnce)...)
		a, b := jetflow.Step(flow, "a", named("a")), jetflow.Step(flow, "b", named("b"))
		c := jetflow.Step(flow, "c", named("c"), jetflow.After(a))
		jetflow.Step(flow, "d", named("d"), jetflow.After(a, b))
		jetflow.Step(flow, "e", named("e"), jetflow.After(c))
		return flow
	}
	fast := five("fast", jetflow.FailWhole())
	jetflow.OnFailure(fast, "undo", undo)

	saga := jetflow.NewFlow[steps, any](prefix+"saga", short)
	jetflow.Step(saga, "one", named("one"), atOnce)
	jetflow.Step(saga, "two", named("two"), atOnce)
	jetflow.OnFailure(saga, "undo", undo)
	return []jetflow.Flow{diamond, five("steps"), fast, saga}
}
