package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"

	"github.com/nats-io/nats.go"

	"jetflow.dev/go/internal/wire"
)

// Answer is what became of a message that was to be stored. Taken is the one that stands on its subject already.
type Answer struct {
	Taken *Message
	val   string
}

// Store publishes a message until it is stored, or another one stands on its subject.
func (c *Conn) Store(ctx context.Context, m *nats.Msg) (Answer, error) {
	for range again(ctx) {
		told, err := c.ask(ctx, m)
		if errors.Is(err, errSilent) {
			continue
		}
		var ack struct {
			Error *APIError
			Val   string
		}
		if err == nil {
			err = json.Unmarshal(told.Data, &ack)
		}
		switch {
		case err != nil:
			return Answer{}, fmt.Errorf("%s is not stored: %w", m.Subject, err)
		case ack.Error == nil:
			return Answer{val: ack.Val}, nil
		case ack.Error.taken():
			o := c.Op(ctx)
			if found := o.Last(cmp.Or(m.Header.Get(wire.HdrExpectedOn), m.Subject)); found != nil || o.Err != nil {
				return Answer{Taken: found}, o.Err
			} // it was refused for the sake of one that is gone
		case !ack.Error.passing():
			return Answer{}, fmt.Errorf("%s is refused: %w", m.Subject, ack.Error)
		}
	}
	return Answer{}, ctx.Err()
}

// StoreMany publishes messages, many under way at once, and calls what stands with each, in any order.
func (c *Conn) StoreMany(ctx context.Context, window int, messages iter.Seq2[*nats.Msg, func(Answer) error]) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, window)
	for m, done := range messages {
		slots <- struct{}{} // each is given back, at the latest when the context is done
		go func() {
			defer func() { <-slots }()
			told, err := c.StoreGrouped(ctx, m)
			if err == nil {
				err = done(told)
			}
			if err != nil {
				cancel(err)
			}
		}()
		if ctx.Err() != nil {
			break
		}
	}
	for range window { // until all have ended
		slots <- struct{}{}
	}
	return context.Cause(ctx)
}

// --- groups

const (
	batchFrom   = 4   // fewer messages are published one by one
	batchMost   = 500 // messages of one batch
	batchesMost = 3   // batches of a stream that are under way at once
)

type grouped struct {
	message *nats.Msg
	done    chan struct{}
	told    Answer
	err     error
}

// group commits what is ready together: while its batches are under way, the next one grows.
type group struct {
	ready   []*grouped
	running int
}

// StoreGrouped is Store, for what may leave as one batch with others of its stream.
func (c *Conn) StoreGrouped(ctx context.Context, m *nats.Msg) (Answer, error) {
	one := &grouped{message: m, done: make(chan struct{})}
	stream := c.Stream(m.Subject)
	c.lock.Lock()
	g := c.groups[stream]
	if g == nil {
		g = &group{}
		c.groups[stream] = g
	}
	g.ready = append(g.ready, one)
	if g.running < batchesMost {
		g.running++
		go c.commit(g)
	}
	c.lock.Unlock()
	select {
	case <-one.done:
		return one.told, one.err
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
}

func (c *Conn) commit(g *group) {
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
			some = c.batch(some)
		}
		for _, one := range some {
			go func() {
				one.told, one.err = c.Store(c.life, one.message)
				close(one.done)
			}()
		}
		for _, one := range some {
			<-one.done
		}
	}
}

// --- counters

type counted struct {
	by    int64
	done  chan struct{}
	value int64
	err   error
}

// counter merges increments: while one is under way, the next ones become one.
type counter struct{ next *counted }

// Add adds to a counter. The value is the one behind this increment, which may have been merged with others; of those
// who merged one is first, and has to act on the value.
func (c *Conn) Add(ctx context.Context, subject string, by int64) (value int64, first bool, err error) {
	c.lock.Lock()
	n := c.counters[subject]
	if n == nil {
		n = &counter{}
		c.counters[subject] = n
		go c.count(subject, n)
	}
	if first = n.next == nil; first {
		n.next = &counted{done: make(chan struct{})}
	}
	mine := n.next
	mine.by += by
	c.lock.Unlock()
	select {
	case <-mine.done:
		return mine.value, first, mine.err
	case <-ctx.Done():
		return 0, first, ctx.Err()
	}
}

func (c *Conn) count(subject string, n *counter) {
	for {
		c.lock.Lock()
		some := n.next
		n.next = nil
		if some == nil {
			delete(c.counters, subject)
			c.lock.Unlock()
			return
		}
		c.lock.Unlock()
		header := nats.Header{"Nats-Incr": {wire.Increment(some.by)}}
		var told Answer
		if told, some.err = c.Store(c.life, &nats.Msg{Subject: subject, Header: header}); some.err == nil {
			some.value, some.err = strconv.ParseInt(told.val, 10, 64)
		}
		close(some.done)
	}
}
