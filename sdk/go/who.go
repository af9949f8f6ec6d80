package jetflow

import (
	"bytes"
	"time"

	"github.com/nats-io/nats.go"

	"jetflow.dev/go/internal/wire"
)

// answerWho answers who asks whether somebody runs a workflow, or some tasks.
func (w *Worker) answerWho(workflow string) error {
	return w.hear(w.engine.Names.Of("who", workflow), func(msg *nats.Msg) {
		if len(msg.Data) == 0 {
			if !w.isStopping() {
				w.engine.Say(msg.Reply, w.name)
			}
			return
		}
		lines := bytes.Split(msg.Data, []byte("\n"))
		if asker := string(lines[0]); asker != w.id {
			w.engine.Say(msg.Reply, w.runsOf(asker, lines[1:]))
		}
	})
}

// runsOf returns the worker's own id, and a line for each of some tasks that it runs.
func (w *Worker) runsOf(asker string, subjects [][]byte) string {
	running := map[string]bool{}
	w.lock.Lock()
	for _, one := range w.held {
		_, asks := w.asking.Load(one.Subject)
		if one.hasBegun() && (!asks || w.id < asker) {
			running[one.Subject] = true
		}
	}
	w.lock.Unlock()
	said := w.id
	for _, subject := range subjects {
		if running[string(subject)] {
			said += "\n" + string(subject)
		}
	}
	return said
}

// runsElsewhere asks whether another worker runs a task.
func (w *Worker) runsElsewhere(t *wire.Task, subject string) (bool, error) {
	inbox := w.engine.NC.NewInbox()
	answers, err := w.engine.NC.SubscribeSync(inbox)
	if err != nil {
		return false, err
	}
	defer func() { _ = answers.Unsubscribe() }() // it fails where the connection is closed
	w.asking.Store(subject, true)
	defer w.asking.Delete(subject)
	if err := w.engine.NC.PublishRequest(w.engine.Names.Of("who", t.Workflow), inbox, []byte(w.id+"\n"+subject)); err != nil {
		return false, err
	}
	for until := time.Now().Add(500 * time.Millisecond); ; {
		msg, err := answers.NextMsg(time.Until(until))
		if err != nil { // nobody answers any more
			return false, nil
		}
		if lines := bytes.Split(msg.Data, []byte("\n")); len(lines) > 1 && string(lines[0]) != w.id {
			return true, nil
		}
	}
}
