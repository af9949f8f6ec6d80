package broker

import (
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"jetflow.dev/go/internal/wire"
)

// batches are those that are under way, by fast ingest (ADR-50): one acknowledgement for all messages of a batch.
type batches struct {
	inbox string
	name  string // what their ids begin with
	sub   *nats.Subscription
	lock  sync.Mutex
	count int
	open  map[string]*batch
}

type batch struct {
	alone []bool // what was not stored with the others
	done  chan bool
}

func (b *batches) listen(nc *nats.Conn) (err error) {
	b.inbox, b.name, b.open = nc.NewInbox(), wire.NewID()+"-", map[string]*batch{}
	if b.sub, err = nc.Subscribe(b.inbox+".>", b.hear); err == nil {
		err = b.sub.SetPendingLimits(-1, -1)
	}
	return err
}

func (b *batches) begin(size int) (id string, one *batch) {
	b.lock.Lock()
	defer b.lock.Unlock()
	b.count++
	id, one = b.name+strconv.Itoa(b.count), &batch{make([]bool, size), make(chan bool, 1)}
	b.open[id] = one
	return id, one
}

func (b *batches) end(id string) {
	b.lock.Lock()
	defer b.lock.Unlock()
	delete(b.open, id)
}

const ingestStart, ingestAppend, ingestCommit = ".0.$FI", ".1.$FI", ".2.$FI"

// batch publishes a batch, and ends those that were stored with it. The others are returned: each is published by itself
// then, which finds out what is the matter with it. Storing twice is right.
func (c *Conn) batch(some []*grouped) (rest []*grouped) {
	id, one := c.batches.begin(len(some))
	defer c.batches.end(id)
	before := c.batches.inbox + "." + id + "." + strconv.Itoa(batchMost) + ".ok."
	for at, part := range some {
		operation := ingestAppend
		switch at {
		case len(some) - 1:
			operation = ingestCommit
		case 0:
			operation = ingestStart
		}
		m := *part.message
		m.Reply = before + strconv.Itoa(at+1) + operation
		if err := c.NC.PublishMsg(&m); err != nil {
			return some
		}
	}
	select {
	case stored := <-one.done:
		if !stored {
			return some
		}
	case <-time.After(AnswerWithin):
		return some
	case <-c.life.Done():
		return some
	}
	for at, part := range some {
		if one.alone[at] {
			rest = append(rest, part)
		} else {
			close(part.done)
		}
	}
	return rest
}

// hear reads an answer to a batch. One callback at a time comes here, and the last before done is read.
func (b *batches) hear(msg *nats.Msg) {
	id, _, _ := strings.Cut(msg.Subject[len(b.inbox)+1:], ".")
	b.lock.Lock()
	one := b.open[id]
	b.lock.Unlock()
	if one == nil {
		return
	}
	var answer struct {
		Type  string
		Seq   int
		Batch string
		Error *APIError
	}
	err := json.Unmarshal(msg.Data, &answer) // where there is no leader, nobody says anything
	switch {
	case answer.Type == "ack":
		return
	case answer.Type == "err" && answer.Seq >= 1 && answer.Seq <= len(one.alone):
		one.alone[answer.Seq-1] = true
		return
	}
	select {
	case one.done <- err == nil && answer.Type == "" && answer.Error == nil && answer.Batch != "":
	default:
	}
}
