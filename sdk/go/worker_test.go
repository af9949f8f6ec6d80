package jetflow_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jetflow.dev/go"
)

var fast = jetflow.Retry{Attempts: 3, Initial: 10 * time.Millisecond}

var square = jetflow.Define("square", func(_ *jetflow.Ctx, n int) (int, error) { return n * n, nil })

func upTo(count int) []int {
	numbers := make([]int, count)
	for at := range numbers {
		numbers[at] = at
	}
	return numbers
}

func TestAPanicFailsThatAttemptOnly(t *testing.T) {
	client := connect(t, serverURL(t))
	panics := jetflow.Define("panics", func(ctx *jetflow.Ctx, n int) (int, error) {
		if ctx.Attempt() < 2 {
			panic("at the disco")
		}
		return ctx.Attempt(), nil
	}, fast)
	always := jetflow.Define("always", func(*jetflow.Ctx, int) (int, error) { panic(errors.New("again")) }, fast)
	work(t, client, []jetflow.Flow{panics, always, square})
	if got, err := result(t, client, panics, 1); err != nil || got != 2 {
		t.Errorf("the second attempt must succeed: %d, %v", got, err)
	}
	_, err := result(t, client, always, 1)
	failedAs(t, err, "Panic")
	if got, err := result(t, client, square, 3); err != nil || got != 9 {
		t.Errorf("the worker must go on: %d, %v", got, err)
	}
}

func TestBadMessagesDoNotEndAWorker(t *testing.T) {
	url := serverURL(t)
	client := connect(t, url)
	work(t, client, []jetflow.Flow{square})
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	id := strings.Repeat("0a", 16)
	for number, body := range []string{"", "nul", "\xff", "[", `{"a":1}`, `"three"`, "1e400", strings.Repeat("[", 5000)} {
		run := fmt.Sprintf("%032x", number+1)
		for _, subject := range []string{
			"jf.default.task.square.run." + run + ".-." + run + ".0", "jf.default.task.square.run." + run + "." + id + "." + run + ".01",
			"jf.default.task.square.run.x.y", "jf.default.cancel." + run + ".x", "jf.default.live.cancel.-.x",
			"jf.default.who.square",
		} {
			msg := &nats.Msg{Subject: subject, Data: []byte(body), Header: nats.Header{"Jf-Depth": {"deep"}, "Jf-Value": {"x"}}}
			if err := nc.PublishMsg(msg); err != nil {
				t.Fatal(err)
			}
			msg.Header = nil
			msg.Subject = strings.Replace(msg.Subject, ".01", ".1", 1)
			if err := nc.PublishMsg(msg); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, err := result(t, client, square, 4); err != nil || got != 16 {
		t.Errorf("the worker must go on: %d, %v", got, err)
	}
	run, err := jetflow.TriggerByName[int](context.Background(), client, "square", "three")
	if err != nil {
		t.Fatal(err)
	}
	_, err = run.Result(context.Background())
	failedAs(t, err, "InvalidInput")
}

func TestJoins(t *testing.T) {
	client := connect(t, serverURL(t))
	odd := jetflow.Define("odd", func(ctx *jetflow.Ctx, n int) (int, error) {
		switch {
		case n < 0:
			<-ctx.Done()
			return 0, ctx.Err()
		case n%2 == 0:
			return 0, jetflow.NonRetryable(fmt.Errorf("%d is even", n))
		}
		return n, nil
	})
	warm := jetflow.Define("warm", func(ctx *jetflow.Ctx, count int) (int, error) {
		children, err := jetflow.Spawn(ctx, square, upTo(count))
		if err != nil {
			return 0, err
		}
		outputs, err := children.Join(ctx)
		total := 0
		for _, one := range outputs {
			total += one
		}
		return total, err
	})
	completed := jetflow.Define("completed", func(ctx *jetflow.Ctx, count int) (int, error) {
		children, err := jetflow.Spawn(ctx, odd, upTo(count), jetflow.Key(func(n int) string { return fmt.Sprint(n) }))
		if err != nil {
			return 0, err
		}
		failures := 0
		for child, err := range children.AsCompleted(ctx) {
			if err != nil {
				return 0, err
			}
			if child.Err != nil {
				failures++
			}
		}
		return failures, nil
	})
	policies := jetflow.Define("policies", func(ctx *jetflow.Ctx, _ int) (string, error) {
		children, err := jetflow.Spawn(ctx, odd, []int{1, 2, 3, -1})
		if err != nil {
			return "", err
		}
		joined, err := children.Settle(ctx, jetflow.Quorum(2))
		if errors.Is(err, jetflow.ErrParked) || joined == nil {
			return "", err
		}
		late, err := jetflow.Spawn(ctx, odd, []int{5, -5})
		if err != nil {
			return "", err
		}
		bounded, err := late.Settle(ctx, jetflow.Collect().Within(300*time.Millisecond))
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%d of quorum, %d in time, %d open", len(joined.Succeeded), len(bounded.Succeeded), len(bounded.Open)), nil
	})
	fails := jetflow.Define("fails", func(ctx *jetflow.Ctx, _ int) (int, error) {
		children, err := jetflow.Spawn(ctx, odd, []int{1, 2})
		if err != nil {
			return 0, err
		}
		_, err = children.Join(ctx)
		var failed *jetflow.ChildrenFailed
		if errors.As(err, &failed) && (failed.Total != 2 || len(failed.Failed) != 1) {
			return 0, fmt.Errorf("wrong: %w", err)
		}
		return 0, err
	})
	flows := []jetflow.Flow{odd, square, warm, completed, policies, fails}
	for name, options := range map[string][]jetflow.WorkerOption{
		"warm": {jetflow.Slots(2), jetflow.Grace(50 * time.Millisecond)}, "cold": {jetflow.Slots(2), jetflow.ParkAfter(0), jetflow.Grace(50 * time.Millisecond)},
	} {
		t.Run(name, func(t *testing.T) {
			stop := work(t, client, flows, options...)
			defer stop()
			if got, err := result(t, client, warm, 2000); err != nil || got != 2664667000 {
				t.Errorf("join: %d, %v", got, err)
			}
			if got, err := result(t, client, completed, 10); err != nil || got != 5 {
				t.Errorf("as completed: %d, %v", got, err)
			}
			_, err := result(t, client, fails, 1)
			failedAs(t, err, "ChildrenFailed")
			if name == "warm" { // a limit needs a full worker to wake what is cold
				if got, err := result(t, client, policies, 1); err != nil || got != "2 of quorum, 1 in time, 1 open" {
					t.Errorf("policies: %q, %v", got, err)
				}
			}
		})
	}
}

func TestOnceTimeoutsAndOutputs(t *testing.T) {
	client := connect(t, serverURL(t))
	var calls atomic.Int32
	once := jetflow.Define("once", func(ctx *jetflow.Ctx, _ int) (int, error) {
		value, err := jetflow.Once(ctx, "charge it", func(context.Context) (int, error) { return int(calls.Add(1)), nil })
		if err == nil && ctx.Attempt() < 3 {
			err = errors.New("not yet")
		}
		return value, err
	}, fast)
	slow := jetflow.Define("slow", func(ctx *jetflow.Ctx, _ int) (int, error) {
		<-ctx.Done()
		return 0, context.Cause(ctx)
	}, jetflow.Timeout(20*time.Millisecond), jetflow.Retry{Attempts: 2, Initial: time.Millisecond})
	dead := jetflow.Define("dead", func(ctx *jetflow.Ctx, _ int) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	}, jetflow.Deadline(100*time.Millisecond))
	large := jetflow.Define("large", func(_ *jetflow.Ctx, text string) (string, error) { return text + text, nil })
	work(t, client, []jetflow.Flow{once, slow, dead, large})
	if got, err := result(t, client, once, 1); err != nil || got != 1 || calls.Load() != 1 {
		t.Errorf("once: %d, %v, %d calls", got, err, calls.Load())
	}
	_, err := result(t, client, slow, 1)
	failedAs(t, err, "StepTimeout")
	_, err = result(t, client, dead, 1)
	failedAs(t, err, "RunTimeout")
	text := strings.Repeat("ü", 300_000)
	if got, err := result(t, client, large, text); err != nil || got != text+text {
		t.Errorf("large: %d bytes, %v", len(got), err)
	}
	if _, err := jetflow.Trigger(context.Background(), client, large, "\xff"); !errors.Is(err, jetflow.ErrInvalidInput) {
		t.Errorf("what is no UTF-8 is refused: %v", err)
	}
}

func TestAWorkerStopsGracefully(t *testing.T) {
	url := serverURL(t)
	client := connect(t, url)
	begun := make(chan struct{}, 10)
	stubborn := jetflow.Define("stubborn", func(ctx *jetflow.Ctx, n int) (string, error) {
		begun <- struct{}{}
		select {
		case <-time.After(time.Duration(n) * time.Millisecond):
			return fmt.Sprintf("attempt %d", ctx.Attempt()), nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	})
	stop := work(t, client, []jetflow.Flow{stubborn}, jetflow.Grace(500*time.Millisecond))
	short, err := jetflow.Trigger(context.Background(), client, stubborn, 200)
	if err != nil {
		t.Fatal(err)
	}
	long, err := jetflow.Trigger(context.Background(), client, stubborn, 2000)
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	<-begun
	began := time.Now()
	stop()
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("stopping took %s", took)
	}
	if got, err := short.Result(context.Background()); err != nil || got != "attempt 1" {
		t.Errorf("what ends within the grace time ends: %q, %v", got, err)
	}
	work(t, client, []jetflow.Flow{stubborn})
	if got, err := long.Result(context.Background()); err != nil || got != "attempt 1" {
		t.Errorf("what was handed back is no attempt: %q, %v", got, err)
	}
}

func TestTheServerIsKilled(t *testing.T) {
	broker := startServer(t)
	client := connect(t, broker.url)
	var ran atomic.Int32
	half := make(chan struct{})
	child := jetflow.Define("child", func(_ *jetflow.Ctx, n int) (int, error) {
		if ran.Add(1) == 1000 {
			close(half)
		}
		return n, nil
	})
	fan := jetflow.NewFlow[int, int]("fan")
	scatter := jetflow.Step(fan, "scatter", func(ctx *jetflow.Ctx, count int) (int, error) {
		children, err := jetflow.Spawn(ctx, child, upTo(count))
		return children.Len(), err
	})
	jetflow.Step(fan, "sum", func(ctx *jetflow.Ctx, _ int) (int, error) {
		total := 0
		for one, err := range jetflow.ChildrenOf[int](ctx, scatter) {
			if err != nil {
				return 0, err
			}
			total += one.Output
		}
		return total, nil
	}, jetflow.After(scatter))
	work(t, client, []jetflow.Flow{child, fan})
	run, err := jetflow.Trigger(context.Background(), client, fan, 2000)
	if err != nil {
		t.Fatal(err)
	}
	<-half
	broker.kill()
	broker.start()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if got, err := run.Result(ctx); err != nil || got != 1999000 {
		t.Errorf("the sum is %d, %v", got, err)
	}
}

func TestDeclarationsAreChecked(t *testing.T) {
	client := connect(t, serverURL(t))
	nothing := func(*jetflow.Ctx, int) (int, error) { return 0, nil }
	twice := jetflow.NewFlow[int, int]("twice")
	jetflow.Step(twice, "a", nothing)
	jetflow.Step(twice, "a", nothing)
	before := jetflow.NewFlow[int, int]("before")
	jetflow.Step(before, "b", nothing, jetflow.After(jetflow.Name("c")))
	for name, flows := range map[string][]jetflow.Flow{
		"a name with a dot": {jetflow.Define("a.b", nothing)}, "no step": {jetflow.NewFlow[int, int]("empty")},
		"a step twice": {twice}, "an unknown step": {before}, "a workflow twice": {square, square}, "none": {},
	} {
		if _, err := jetflow.NewWorker(client, flows); err == nil {
			t.Errorf("%s must be refused", name)
		}
	}
}
