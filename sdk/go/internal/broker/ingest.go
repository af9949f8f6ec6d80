package broker

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// ingested is a batch that goes by fast ingest (ADR-50): one acknowledgement for all of its messages.
type ingested struct {
	alone []bool // what was not stored with the others
	done  chan bool
}

const (
	ingestStart  = 0
	ingestAppend = 1
	ingestCommit = 2
)

// batch publishes a batch, and ends those that were stored with it. The others are returned: each is published by itself
// then, which finds out what is the matter with it. Storing twice is right.
func (c *Conn) batch(ctx context.Context, some []*grouped) []*grouped {
	id := c.ingestName + strconv.FormatUint(c.next.Add(1), 36)
	one := &ingested{alone: make([]bool, len(some)), done: make(chan bool, 1)}
	c.lock.Lock()
	c.ingests[id] = one
	c.lock.Unlock()
	defer func() {
		c.lock.Lock()
		delete(c.ingests, id)
		c.lock.Unlock()
	}()
	before := c.ingest + "." + id + "." + strconv.Itoa(batchMost) + ".ok."
	for at, part := range some {
		operation := ingestAppend
		switch at {
		case len(some) - 1:
			operation = ingestCommit
		case 0:
			operation = ingestStart
		}
		msg := message(part.write)
		msg.Reply = before + strconv.Itoa(at+1) + "." + strconv.Itoa(operation) + ".$FI"
		if err := c.NC.PublishMsg(msg); err != nil {
			return some
		}
	}
	timer := time.NewTimer(AnswerWithin)
	defer timer.Stop()
	select {
	case stored := <-one.done:
		if !stored {
			return some
		}
	case <-timer.C:
		return some
	case <-ctx.Done():
		return some
	}
	var rest []*grouped
	for at, part := range some {
		if one.alone[at] {
			rest = append(rest, part)
		} else {
			close(part.done)
		}
	}
	return rest
}

// onIngest reads an answer to a batch. One callback at a time comes here, and the last before done is read.
func (c *Conn) onIngest(msg *nats.Msg) {
	id, _, _ := strings.Cut(msg.Subject[len(c.ingest)+1:], ".")
	c.lock.Lock()
	one := c.ingests[id]
	c.lock.Unlock()
	if one == nil {
		return
	}
	var answer struct {
		Type  string
		Seq   int
		Batch string
		Error *APIError
	}
	stored := false
	switch err := json.Unmarshal(msg.Data, &answer); {
	case err != nil: // also without a leader: nobody listens then
	case answer.Type == "ack":
		return
	case answer.Type == "err" && answer.Seq >= 1 && answer.Seq <= len(one.alone):
		one.alone[answer.Seq-1] = true
		return
	case answer.Type == "" && answer.Error == nil && answer.Batch != "":
		stored = true
	}
	select {
	case one.done <- stored:
	default:
	}
}
