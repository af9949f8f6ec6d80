package jetflow

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// answerWho answers who asks whether somebody runs a workflow, or some tasks.
func (w *Worker) answerWho(workflow string) error {
	return w.hear(w.engine.Of("who", workflow), func(msg *nats.Msg) {
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
	for _, one := range w.all() {
		_, asks := w.asking.Load(one.Subject)
		running[one.Subject] = one.begun.Load() && (!asks || w.id < asker)
	}
	said := w.id
	for _, subject := range subjects {
		if running[string(subject)] {
			said += "\n" + string(subject)
		}
	}
	return said
}

// question asks the other workers of a workflow for tasks: as many as come up in one moment.
type question struct {
	subjects  []string
	done      chan struct{}
	elsewhere map[string]bool
	err       error
}

const (
	gatherFor  = 20 * time.Millisecond
	answersFor = 500 * time.Millisecond
	askAtOnce  = 1000
)

// runsElsewhere asks whether another worker runs a task.
func (w *Worker) runsElsewhere(workflow, subject string) (bool, error) {
	w.asking.Store(subject, true)
	defer w.asking.Delete(subject)
	w.lock.Lock()
	q := w.questions[workflow]
	if q == nil {
		q = &question{done: make(chan struct{}), elsewhere: map[string]bool{}}
		w.questions[workflow] = q
		go w.ask(workflow, q)
	}
	q.subjects = append(q.subjects, subject)
	w.lock.Unlock()
	<-q.done
	return q.elsewhere[subject], q.err
}

func (w *Worker) ask(workflow string, q *question) {
	defer close(q.done)
	time.Sleep(gatherFor)
	w.lock.Lock()
	delete(w.questions, workflow)
	w.lock.Unlock()
	inbox := w.engine.NC.NewInbox()
	answers, err := w.engine.NC.SubscribeSync(inbox)
	if q.err = err; err != nil {
		return
	}
	defer func() { _ = answers.Unsubscribe() }() // it fails where the connection is closed
	for some := range slices.Chunk(q.subjects, askAtOnce) {
		lines := strings.Join(append([]string{w.id}, some...), "\n")
		if q.err = w.engine.NC.PublishRequest(w.engine.Of("who", workflow), inbox, []byte(lines)); q.err != nil {
			return
		}
	}
	for until := time.Now().Add(answersFor); ; {
		msg, err := answers.NextMsg(time.Until(until))
		if err != nil { // nobody answers any more
			return
		}
		lines := strings.Split(string(msg.Data), "\n")
		for _, subject := range lines[1:] {
			q.elsewhere[subject] = q.elsewhere[subject] || lines[0] != w.id
		}
	}
}
