package jetflow

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/nats-io/nats.go"

	"jetflow.dev/go/internal/broker"
	"jetflow.dev/go/internal/runs"
	"jetflow.dev/go/internal/wire"
)

// Client starts runs, waits for their ends, cancels and deletes them; workers run on it. It is safe for concurrent use.
type Client struct {
	engine *runs.Engine
	owned  bool
	log    *slog.Logger
}

type connecting struct {
	namespace, domain string
	nats              []nats.Option
	streams           broker.StreamOptions
	log               *slog.Logger
}

// ConnectOption says how to connect.
type ConnectOption func(*connecting)

// Namespace separates what shares a server; without it, it is "default".
func Namespace(name string) ConnectOption { return func(c *connecting) { c.namespace = name } }

// Domain is the JetStream domain of the streams.
func Domain(name string) ConnectOption { return func(c *connecting) { c.domain = name } }

// NATS passes options on: credentials, TLS, a custom inbox prefix.
func NATS(options ...nats.Option) ConnectOption {
	return func(c *connecting) { c.nats = append(c.nats, options...) }
}

// Replicas is how many servers hold each stream that is made.
func Replicas(count int) ConnectOption { return func(c *connecting) { c.streams.Replicas = count } }

// MaxBytes bounds each stream of tasks, records, values and the inbox that is made.
func MaxBytes(bytes int64) ConnectOption { return func(c *connecting) { c.streams.MaxBytes = bytes } }

// Logger is where workers and clients log; without it, slog.Default().
func Logger(log *slog.Logger) ConnectOption { return func(c *connecting) { c.log = log } }

// Connect connects to a server, and makes the streams of the namespace if they are not there. An empty address stands
// for NATS_URL, or nats://127.0.0.1:4222. The context bounds connecting alone.
func Connect(ctx context.Context, address string, options ...ConnectOption) (*Client, error) {
	set := &connecting{nats: []nats.Option{nats.Name("jetflow"), nats.MaxReconnects(-1), nats.ReconnectBufSize(64 << 20)}}
	for _, option := range options {
		option(set)
	}
	nc, err := nats.Connect(cmp.Or(address, os.Getenv("NATS_URL"), nats.DefaultURL), set.nats...)
	if err != nil {
		return nil, fmt.Errorf("jetflow: cannot connect: %w", err)
	}
	client, err := New(ctx, nc, options...)
	if err != nil {
		nc.Close()
		return nil, err
	}
	client.owned = true
	return client, nil
}

// New uses a connection that exists, and leaves it open. Options for NATS do not count.
func New(ctx context.Context, nc *nats.Conn, options ...ConnectOption) (*Client, error) {
	set := &connecting{namespace: "default", log: slog.Default()}
	for _, option := range options {
		option(set)
	}
	if !wire.IsName(set.namespace) {
		return nil, fmt.Errorf("jetflow: the namespace %q is no name: letters, digits, - and _, 64 at most", set.namespace)
	}
	conn := broker.New(nc, set.namespace, set.domain, set.log)
	if err := conn.Provision(ctx, set.streams); err != nil {
		conn.Close()
		return nil, err
	}
	return &Client{engine: runs.New(conn), log: set.log}, nil
}

// Close closes what Connect has opened.
func (c *Client) Close() {
	c.engine.Close()
	if c.owned {
		c.engine.NC.Close()
	}
}

func checkRun(id string) error {
	if !wire.IsRunID(id) {
		return fmt.Errorf("jetflow: %.80q is no run id", id)
	}
	return nil
}

// Cancel cancels a run, and all that it has spawned if tree is true. It tells whether the run was not over.
func (c *Client) Cancel(ctx context.Context, run string, tree bool) (bool, error) {
	if err := checkRun(run); err != nil {
		return false, err
	}
	o := c.engine.Op(ctx)
	wasOpen := o.CancelRun(run, tree)
	return wasOpen && o.Err == nil, o.Err
}

// Delete removes all that is stored of the tree of a root run. A run that is under way is not stopped by it: cancel it
// before.
func (c *Client) Delete(ctx context.Context, root string) error {
	if err := checkRun(root); err != nil {
		return err
	}
	o := c.engine.Op(ctx)
	o.Delete(root)
	return o.Err
}
