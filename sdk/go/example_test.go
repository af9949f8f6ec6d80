package jetflow_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"jetflow.dev/go"
)

// exampleServer starts a server for an example; where there is none, nats://127.0.0.1:4222 is taken.
func exampleServer() (url string, stop func()) {
	binary := os.Getenv("NATS_SERVER")
	scratch, err := os.MkdirTemp("", "jetflow-example-")
	if binary == "" || err != nil {
		return "", func() {}
	}
	server := exec.Command(binary, "-js", "-sd", scratch, "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", scratch)
	if err := server.Start(); err != nil {
		log.Fatal(err)
	}
	for url == "" {
		time.Sleep(10 * time.Millisecond)
		files, _ := filepath.Glob(filepath.Join(scratch, "*.ports"))
		for _, file := range files {
			if text, _ := os.ReadFile(file); strings.Contains(string(text), "nats://") {
				url, _, _ = strings.Cut("nats://"+strings.SplitN(string(text), "nats://", 2)[1], `"`)
			}
		}
	}
	return url, func() {
		_ = server.Process.Kill()
		_ = server.Wait()
		_ = os.RemoveAll(scratch)
	}
}

// A fan-out that is known at run time only: a child for each word, then the sum. Without a key equal inputs are one child,
// so that "fish" is counted once.
func Example() {
	url, stop := exampleServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	client, err := jetflow.Connect(ctx, url)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	count := jetflow.Define("count-letters", func(_ *jetflow.Ctx, word string) (int, error) {
		return len(word), nil
	}, jetflow.Retry{Attempts: 5}, jetflow.Timeout(30*time.Second))

	text := jetflow.NewFlow[string, int]("count-text")
	scatter := jetflow.Step(text, "scatter", func(ctx *jetflow.Ctx, text string) (int, error) {
		children, err := jetflow.Spawn(ctx, count, strings.Fields(text))
		return children.Len(), err // the join is at the step's end: nothing waits in memory
	})
	jetflow.Step(text, "sum", func(ctx *jetflow.Ctx, _ string) (int, error) {
		sum := 0
		for child, err := range jetflow.ChildrenOf[int](ctx, scatter) {
			if err != nil {
				return 0, err
			}
			sum += child.Output
		}
		return sum, nil
	}, jetflow.After(scatter))

	ready, done := make(chan struct{}), make(chan error)
	worker, err := jetflow.NewWorker(client, []jetflow.Flow{count, text}, jetflow.OnReady(func() { close(ready) }))
	if err != nil {
		log.Fatal(err)
	}
	go func() { done <- worker.Run(ctx) }()
	<-ready

	run, err := jetflow.Trigger(ctx, client, text, "one fish two fish red fish", jetflow.WithKey("seuss"))
	if err != nil {
		log.Fatal(err)
	}
	letters, err := run.Result(ctx)
	fmt.Println(letters, err)
	_, err = jetflow.Trigger(ctx, client, text, "blue fish", jetflow.WithKey("seuss"))
	fmt.Println(errors.Is(err, jetflow.ErrKeyConflict))
	cancel()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	// Output:
	// 13 <nil>
	// true
}

// A join in the step: the slot is free while it waits.
func ExampleChildren_Join() {
	resize := jetflow.Define("resize", func(_ *jetflow.Ctx, path string) (string, error) { return path + ".small", nil })
	_ = jetflow.Define("album", func(ctx *jetflow.Ctx, paths []string) ([]string, error) {
		children, err := jetflow.Spawn(ctx, resize, paths, jetflow.Key(func(path string) string { return path }))
		if err != nil {
			return nil, err
		}
		return children.Join(ctx) // ErrParked, too, is returned as it is
	})
	fmt.Println(resize.Name())
	// Output: resize
}

// What a join bears is a policy: here half of the children may fail, and what has not ended in a minute does not count.
func ExampleChildren_Settle() {
	probe := jetflow.Define("probe", func(_ *jetflow.Ctx, host string) (bool, error) { return host != "", nil })
	_ = jetflow.Define("survey", func(ctx *jetflow.Ctx, hosts []string) (int, error) {
		children, err := jetflow.Spawn(ctx, probe, hosts)
		if err != nil {
			return 0, err
		}
		joined, err := children.Settle(ctx, jetflow.TolerateShare(0.5).Within(time.Minute))
		if err != nil {
			return 0, err
		}
		return len(joined.Succeeded), nil
	})
	fmt.Println(probe.Name())
	// Output: probe
}

// A side effect that is recorded once, and is not made again by later attempts.
func ExampleOnce() {
	order := jetflow.Define("order", func(ctx *jetflow.Ctx, item string) (string, error) {
		return jetflow.Once(ctx, "charge", func(context.Context) (string, error) {
			return "receipt for " + item, nil // hand ctx.IdempotencyKey() to the service
		})
	})
	fmt.Println(order.Name())
	// Output: order
}
