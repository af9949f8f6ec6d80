package broker

import (
	"encoding/json"
	"strconv"
	"time"

	"jetflow.dev/go/internal/wire"
)

const ingestStart, ingestAppend, ingestCommit = ".0.$FI", ".1.$FI", ".2.$FI"

// batch publishes messages by fast ingest (ADR-50), with one acknowledgement for all, and ends those that were stored.
// The others are returned: each is published by itself then, which finds out what is the matter with it. Storing twice
// is right.
func (c *Conn) batch(some []*grouped) (rest []*grouped) {
	inbox := c.NC.NewInbox()
	answers, err := c.NC.SubscribeSync(inbox + ".>")
	if err != nil {
		return some
	}
	defer func() { _ = answers.Unsubscribe() }() // it fails where the connection is closed
	before := inbox + "." + wire.NewID() + "." + strconv.Itoa(batchMost) + ".ok."
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
	alone := map[int]bool{} // what was not stored with the others, counted from 1
	for until := time.Now().Add(AnswerWithin); ; {
		var answer struct {
			Type  string
			Seq   int
			Batch string
			Error *APIError
		}
		msg, err := answers.NextMsg(time.Until(until))
		if err != nil || json.Unmarshal(msg.Data, &answer) != nil {
			return some // also where there is no leader: nobody says anything then
		}
		switch {
		case answer.Type == "ack":
		case answer.Type == "err":
			alone[answer.Seq] = true
		case answer.Type != "" || answer.Error != nil || answer.Batch == "":
			return some
		default:
			for at, part := range some {
				if alone[at+1] {
					rest = append(rest, part)
				} else {
					close(part.done)
				}
			}
			return rest
		}
	}
}
