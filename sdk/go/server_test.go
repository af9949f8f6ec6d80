package jetflow_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"jetflow.dev/go"
)

// server is a nats-server of a test.
type server struct {
	t       testing.TB
	scratch string
	port    string
	running *exec.Cmd
	url     string
}

// serverURL starts a nats-server for a test, and returns its address.
func serverURL(t testing.TB) string { return startServer(t).url }

// startServer starts a nats-server for a test. The binary is NATS_SERVER, or the one in the path.
func startServer(t testing.TB) *server {
	t.Helper()
	s := &server{t: t, scratch: t.TempDir(), port: "-1"}
	t.Cleanup(s.kill)
	s.start()
	return s
}

func (s *server) kill() {
	if s.running == nil || s.running.Process == nil {
		return
	}
	_ = s.running.Process.Kill()
	_ = s.running.Wait()
}

// start starts it, with what it has stored before, where it was before.
func (s *server) start() {
	s.t.Helper()
	binary := os.Getenv("NATS_SERVER")
	if binary == "" {
		binary = "nats-server"
	}
	path, err := exec.LookPath(binary)
	if err != nil {
		s.t.Fatalf("a nats-server is needed, in the path or as NATS_SERVER: %v", err)
	}
	s.running = exec.Command(path, "-js", "-sd", s.scratch, "-a", "127.0.0.1", "-p", s.port, "--ports_file_dir", s.scratch)
	if err := s.running.Start(); err != nil {
		s.t.Fatal(err)
	}
	for range 500 {
		files, _ := filepath.Glob(filepath.Join(s.scratch, "*_"+strconv.Itoa(s.running.Process.Pid)+".ports"))
		for _, file := range files {
			var ports struct{ NATS []string }
			if text, err := os.ReadFile(file); err == nil && json.Unmarshal(text, &ports) == nil && len(ports.NATS) > 0 {
				s.url = ports.NATS[0]
				s.port = s.url[strings.LastIndexByte(s.url, ':')+1:]
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.t.Fatal("the server did not start")
}

func connect(t testing.TB, url string) *jetflow.Client {
	t.Helper()
	quiet := jetflow.Logger(slog.New(slog.NewTextHandler(io.Discard, nil)))
	client, err := jetflow.Connect(context.Background(), url, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// work runs a worker for the time of a test, or until stop is called.
func work(t testing.TB, client *jetflow.Client, flows []jetflow.Flow, options ...jetflow.WorkerOption) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	options = append(options, jetflow.OnReady(func() { close(ready) }))
	worker, err := jetflow.NewWorker(client, flows, options...)
	if err != nil {
		t.Fatal(err)
	}
	go func() { ended <- worker.Run(ctx) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	done := false
	stop = func() {
		if !done {
			done = true
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return stop
}

func result[In, Out any](t testing.TB, client *jetflow.Client, flow *jetflow.Workflow[In, Out], input In) (Out, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	run, err := jetflow.Trigger(ctx, client, flow, input)
	if err != nil {
		t.Fatal(err)
	}
	return run.Result(ctx)
}

func failedAs(t testing.TB, err error, kind string) {
	t.Helper()
	var failed *jetflow.RunFailed
	if !errors.As(err, &failed) || len(failed.Errors) == 0 || !strings.HasSuffix(failed.Errors[0].Type, kind) {
		t.Errorf("the run must fail as %s, not by %v", kind, err)
	}
}
