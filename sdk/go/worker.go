package jetflow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"jetflow.dev/go/internal/broker"
	"jetflow.dev/go/internal/runs"
	"jetflow.dev/go/internal/wire"
)

type workerSettings struct {
	slots        int
	parkAfter    time.Duration
	grace        time.Duration
	unknownGrace time.Duration
	maxDepth     int
	maxTree      int64
	ready        func()
}

// WorkerOption says how a worker works.
type WorkerOption func(*workerSettings)

// Slots is how many steps run at once; 100 by default.
func Slots(count int) WorkerOption { return func(s *workerSettings) { s.slots = count } }

// ParkAfter is how long a step waits in memory for its children, before it is parked; a minute by default.
func ParkAfter(delay time.Duration) WorkerOption {
	return func(s *workerSettings) { s.parkAfter = delay }
}

// Grace is how long running steps have to end when the worker stops; 30 s by default.
func Grace(delay time.Duration) WorkerOption { return func(s *workerSettings) { s.grace = delay } }

// UnknownStepGrace is how long a task that no worker knows is left to others; 10 s by default.
func UnknownStepGrace(delay time.Duration) WorkerOption {
	return func(s *workerSettings) { s.unknownGrace = delay }
}

// Limits bounds how deep runs nest, and how many descendants a root run may have; 1,000 and 1,000,000 by default.
func Limits(depth, descendants int) WorkerOption {
	return func(s *workerSettings) { s.maxDepth, s.maxTree = depth, int64(descendants) }
}

// OnReady is called once the worker pulls tasks.
func OnReady(do func()) WorkerOption { return func(s *workerSettings) { s.ready = do } }

// Worker runs the tasks of workflows. Any number of workers, in any language, may run the same workflows.
type Worker struct {
	client  *Client
	engine  *runs.Engine
	log     *slog.Logger
	set     workerSettings
	flows   map[string]*definition
	name    string // shown in records
	id      string // nobody else has it
	marks   *marks
	slots   chan struct{}
	started atomic.Int64 // bodies, since the last look at the pace
	recent  atomic.Int64
	waiting atomic.Int64 // for a slot
	running atomic.Int64 // holding one
	asking  sync.Map     // subjects of tasks that others are asked for

	lock      sync.Mutex
	held      map[uint64]*held
	questions map[string]*question // by workflow
	pullers   []*broker.Puller
	heard     []*nats.Subscription
	tasks     sync.WaitGroup
	stopping  chan struct{}
	life      context.Context // of what is recorded
	bodies    context.Context // of what runs
}

// NewWorker returns a worker of workflows. What is wrong with their declarations is told here.
func NewWorker(client *Client, flows []Flow, options ...WorkerOption) (*Worker, error) {
	host, _ := os.Hostname()
	w := &Worker{
		client: client, engine: client.engine, log: client.log, flows: map[string]*definition{}, id: wire.NewID(),
		name: fmt.Sprintf("%s-%d", host, os.Getpid()), held: map[uint64]*held{}, questions: map[string]*question{}, stopping: make(chan struct{}),
		set: workerSettings{slots: 100, parkAfter: time.Minute, grace: 30 * time.Second, unknownGrace: 10 * time.Second,
			maxDepth: 1000, maxTree: 1_000_000},
	}
	for _, option := range options {
		option(&w.set)
	}
	var faults []error
	for _, flow := range flows {
		def := flow.definition()
		if w.flows[def.name] != nil {
			def.fault("it is given twice")
		}
		w.flows[def.name] = def
		faults = append(faults, def.check())
	}
	if len(flows) == 0 || w.set.slots < 1 {
		faults = append(faults, errors.New("jetflow: a worker has at least one workflow, and one slot"))
	}
	w.slots = make(chan struct{}, max(1, w.set.slots))
	w.marks = newMarks(w)
	return w, errors.Join(faults...)
}

// Run runs tasks until the context is done. Then it stops pulling, parks the steps that wait for children, lets the
// running ones finish within the grace time, hands back the rest, and returns nil. A worker runs once.
func (w *Worker) Run(ctx context.Context) error {
	life, end := context.WithCancel(context.Background())
	defer end()
	bodies, stopBodies := context.WithCancelCause(life)
	defer stopBodies(nil)
	w.life, w.bodies = life, bodies
	if err := w.start(ctx); err != nil {
		return err
	}
	if w.set.ready != nil {
		w.set.ready()
	}
	<-ctx.Done()
	close(w.stopping)
	var stopped sync.WaitGroup
	stopped.Add(len(w.pullers))
	for _, one := range w.pullers {
		go func() { one.Stop(); stopped.Done() }()
	}
	stopped.Wait()
	if !w.idle(w.set.grace) {
		stopBodies(ErrStopping)
		if !w.idle(5 * time.Second) {
			w.log.Error("steps go on although their worker has stopped: they do not heed their context")
		}
	}
	for _, sub := range w.heard {
		_ = sub.Unsubscribe() // it fails where the connection is closed
	}
	return w.engine.NC.FlushTimeout(broker.AnswerWithin)
}

// hear subscribes for the time of the worker.
func (w *Worker) hear(subject string, on nats.MsgHandler) error {
	sub, err := w.engine.NC.Subscribe(subject, on)
	if err == nil {
		w.heard = append(w.heard, sub)
	}
	return err
}

// idle waits until no task is held, and tells whether that was in time.
func (w *Worker) idle(limit time.Duration) bool {
	done := make(chan struct{})
	go func() { w.tasks.Wait(); close(done) }()
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}

func (w *Worker) start(ctx context.Context) error {
	if err := w.marks.listen(ctx); err != nil {
		return fmt.Errorf("jetflow: cancel marks cannot be read: %w", err)
	}
	shortest := time.Minute
	var consumers []broker.Consumer
	for _, def := range w.flows {
		if err := w.declare(ctx, def); err != nil {
			return err
		}
		steps, err := w.steps(ctx, def)
		if err != nil {
			return err
		}
		for _, name := range steps {
			consumer, err := w.engine.Consumer(ctx, def.name, name, w.maxRunning(def, name))
			if err != nil {
				return err
			}
			shortest = min(shortest, consumer.AckWait)
			consumers = append(consumers, consumer)
		}
		if err := w.answerWho(def.name); err != nil {
			return err
		}
	}
	go w.beat(shortest)
	for _, consumer := range consumers {
		lost := func() { w.restore(consumer) }
		puller, err := w.engine.Pull(w.life, consumer, w.room, func(d *broker.Delivery) { w.take(consumer, d) }, lost)
		if err != nil {
			return fmt.Errorf("jetflow: %w", err)
		}
		w.lock.Lock()
		w.pullers = append(w.pullers, puller)
		w.lock.Unlock()
	}
	return nil
}

// restore makes a consumer again that is gone.
func (w *Worker) restore(consumer broker.Consumer) {
	ctx, cancel := context.WithTimeout(w.life, broker.AnswerWithin)
	defer cancel()
	limit := w.maxRunning(w.flows[consumer.Workflow], consumer.Step)
	if _, err := w.engine.Consumer(ctx, consumer.Workflow, consumer.Step, limit); err != nil && w.life.Err() == nil {
		w.log.Error("a consumer cannot be made again now", "step", consumer.Step, "error", err)
	}
}

func (w *Worker) maxRunning(def *definition, step string) int {
	if one := def.step(step); one != nil && one.set.maxRunning > 0 {
		return one.set.maxRunning
	}
	return -1
}

// steps returns the steps to pull: those of the code, and those of before that still have consumers.
func (w *Worker) steps(ctx context.Context, def *definition) ([]string, error) {
	names, err := w.engine.Consumers(ctx, def.name)
	if err != nil {
		return nil, fmt.Errorf("jetflow: the consumers of %q cannot be listed: %w", def.name, err)
	}
	names = append(names, def.declaration().Graph.First())
	for _, one := range def.all() {
		names = append(names, one.name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// declare writes a workflow into the registry, its graph first.
func (w *Worker) declare(ctx context.Context, def *definition) error {
	made := def.declaration()
	if err := made.Graph.Check(); err != nil {
		return fmt.Errorf("jetflow: workflow %q: %w", def.name, err)
	}
	o := w.engine.Op(ctx)
	o.Register(o.Workflow(def.name, made.Version), made.Graph)
	if o.Register(o.Workflow(def.name, ""), made); o.Err != nil {
		return fmt.Errorf("jetflow: workflow %q cannot be declared: %w", def.name, o.Err)
	}
	return nil
}

// mostHeld bounds the tasks whose ends are being stored, with all others.
const mostHeld = 5000

// room is how many tasks may be asked for: as many as have free slots, and as began in the last moment.
func (w *Worker) room() int {
	if w.isStopping() {
		return 0
	}
	free := w.set.slots + int(w.recent.Load()-w.running.Load()-w.waiting.Load())
	w.lock.Lock()
	defer w.lock.Unlock()
	return min(free, max(mostHeld, w.set.slots)-len(w.held))
}

// beat keeps the tasks alive that are held, those that wait for a slot as well, and takes the pace.
func (w *Worker) beat(ackWait time.Duration) {
	pace := time.NewTicker(10 * time.Millisecond)
	signs := time.NewTicker(ackWait / 4)
	defer pace.Stop()
	defer signs.Stop()
	for {
		select {
		case <-w.life.Done():
			return
		case <-pace.C:
			w.recent.Store(max(10*w.started.Swap(0), w.recent.Load()*9/10))
		case now := <-signs.C:
			for _, one := range w.all() {
				if now.Sub(one.since) > ackWait/12 {
					one.say(inProgress)
				}
			}
		}
	}
}

// take holds a delivery until it is ended. One of a task that is held already only renews where its end is told.
func (w *Worker) take(consumer broker.Consumer, d *broker.Delivery) {
	w.lock.Lock()
	if known := w.held[d.Seq]; known != nil {
		w.lock.Unlock()
		known.renew(d.Reply)
		return
	}
	one := &held{w: w, Delivery: d, consumer: consumer, reply: d.Reply, since: time.Now(), op: w.engine.Op(w.life)}
	w.held[d.Seq] = one
	w.tasks.Add(1)
	w.lock.Unlock()
	w.waiting.Add(1)
	go one.run()
}

// all returns what is held.
func (w *Worker) all() []*held {
	w.lock.Lock()
	defer w.lock.Unlock()
	return slices.Collect(maps.Values(w.held))
}

func (w *Worker) letGo(one *held) {
	w.lock.Lock()
	delete(w.held, one.Seq)
	pullers := w.pullers
	w.lock.Unlock()
	w.tasks.Done()
	for _, puller := range pullers {
		puller.Feed()
	}
}

func (w *Worker) isStopping() bool {
	select {
	case <-w.stopping:
		return true
	default:
		return false
	}
}
