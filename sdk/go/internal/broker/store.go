package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"jetflow.dev/go/internal/wire"
)

// Write is a message to store.
type Write struct {
	Stream  string
	Subject string
	Header  nats.Header
	Body    []byte
	Done    func(Answer) error // is called by StoreMany
}

// Answer is what became of a Write. Taken is the message that stands on its subject already.
type Answer struct {
	Duplicate bool
	Taken     *Message
	val       string
}

type pubAck struct {
	Error     *APIError
	Seq       uint64
	Duplicate bool
	Val       string
}

func message(w *Write) *nats.Msg {
	return &nats.Msg{Subject: w.Subject, Header: w.Header, Data: w.Body}
}

// Store publishes a message until it is stored, or another one stands on its subject.
func (c *Conn) Store(ctx context.Context, w *Write) (Answer, error) {
	told, err := c.ask(ctx, message(w))
	for delay := 50 * time.Millisecond; ; delay = min(2*delay, time.Second) {
		wait := delay
		var ack pubAck
		switch {
		case err != nil && !errors.Is(err, errSilent):
			return Answer{}, fmt.Errorf("%s is not stored: %w", w.Subject, err)
		case err != nil:
		case json.Unmarshal(told.Data, &ack) != nil:
			return Answer{}, fmt.Errorf("%s: the answer cannot be read: %.200q", w.Subject, told.Data)
		case ack.Error == nil:
			return Answer{Duplicate: ack.Duplicate, val: ack.Val}, nil
		case ack.Error.taken():
			found, err := c.Last(ctx, w.Stream, w.Subject)
			if err != nil || found != nil {
				return Answer{Taken: found}, err
			}
			wait = 0 // it was refused for the sake of one that is gone
		case !ack.Error.passing():
			return Answer{}, fmt.Errorf("%s is refused: %w", w.Subject, ack.Error)
		}
		if err := pause(ctx, wait); err != nil {
			return Answer{}, err
		}
		told, err = c.ask(ctx, message(w))
	}
}

// StoreMany publishes messages, many under way at once, and calls Done of each, in any order.
func (c *Conn) StoreMany(ctx context.Context, window int, writes func(yield func(*Write) bool)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, window)
	var waiting sync.WaitGroup
	for w := range writes {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		waiting.Go(func() {
			defer func() { <-slots }()
			told, err := c.StoreGrouped(ctx, w)
			if err == nil {
				err = w.Done(told)
			}
			if err != nil {
				cancel(err)
			}
		})
	}
	waiting.Wait()
	return context.Cause(ctx)
}

// --- batches

const (
	batchFrom = 4   // fewer messages are published one by one
	batchMost = 500 // messages of one batch
	batches   = 3   // batches of a stream that are under way at once
)

type grouped struct {
	write *Write
	done  chan struct{}
	told  Answer
	err   error
}

// group commits what is ready together: while its batches are under way, the next one grows.
type group struct {
	ready   []*grouped
	running int
}

// StoreGrouped is Store, for what may leave as one batch with others of its stream.
func (c *Conn) StoreGrouped(ctx context.Context, w *Write) (Answer, error) {
	one := &grouped{write: w, done: make(chan struct{})}
	c.lock.Lock()
	g := c.grouped[w.Stream]
	if g == nil {
		g = &group{}
		c.grouped[w.Stream] = g
	}
	g.ready = append(g.ready, one)
	if g.running < batches {
		g.running++
		go c.commit(c.life, g)
	}
	c.lock.Unlock()
	select {
	case <-one.done:
		return one.told, one.err
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
}

func (c *Conn) commit(ctx context.Context, g *group) {
	for {
		c.lock.Lock()
		some := g.ready[:min(len(g.ready), batchMost)]
		g.ready = g.ready[len(some):]
		if len(some) == 0 {
			g.running--
			c.lock.Unlock()
			return
		}
		c.lock.Unlock()
		if len(some) >= batchFrom {
			some = c.batch(ctx, some)
		}
		var waiting sync.WaitGroup
		for _, one := range some {
			waiting.Go(func() {
				one.told, one.err = c.Store(ctx, one.write)
				close(one.done)
			})
		}
		waiting.Wait()
	}
}

// --- counters

type counted struct {
	done  chan struct{}
	value int64
	err   error
}

// counter merges increments: while one is under way, the next ones become one.
type counter struct {
	by   int64
	next *counted
}

// Add adds to a counter. The value is the one behind this increment, which may have been merged with others; of those
// who merged one is first, and has to act on the value.
func (c *Conn) Add(ctx context.Context, subject string, by int64) (value int64, first bool, err error) {
	c.lock.Lock()
	n := c.counters[subject]
	if n != nil {
		if first = n.next == nil; first {
			n.next = &counted{done: make(chan struct{})}
		}
		mine := n.next
		n.by += by
		c.lock.Unlock()
		select {
		case <-mine.done:
			return mine.value, first, mine.err
		case <-ctx.Done():
			return 0, first, ctx.Err()
		}
	}
	n = &counter{}
	c.counters[subject] = n
	c.lock.Unlock()
	value, err = c.increment(ctx, subject, by)
	go c.addRest(subject, n)
	return value, true, err
}

func (c *Conn) addRest(subject string, n *counter) {
	for {
		c.lock.Lock()
		by, some := n.by, n.next
		n.by, n.next = 0, nil
		if some == nil {
			delete(c.counters, subject)
			c.lock.Unlock()
			return
		}
		c.lock.Unlock()
		some.value, some.err = c.increment(c.life, subject, by)
		close(some.done)
	}
}

func (c *Conn) increment(ctx context.Context, subject string, by int64) (int64, error) {
	told, err := c.Store(ctx, &Write{
		Stream: c.Names.Counters(), Subject: subject, Header: nats.Header{"Nats-Incr": []string{wire.Increment(by)}},
	})
	if err != nil {
		return 0, err
	}
	value, err := strconv.ParseInt(told.val, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the counter %s has no value: %w", subject, err)
	}
	return value, nil
}
