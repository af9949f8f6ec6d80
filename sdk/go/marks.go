package jetflow

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"jetflow.dev/go/internal/runs"
	"jetflow.dev/go/internal/wire"
)

// marks are the cancel marks of the last hour.
type marks struct {
	w    *Worker
	lock sync.Mutex
	said map[string]mark // by run
	next time.Time       // when old ones are forgotten
}

type mark struct {
	body string
	at   time.Time
}

func newMarks(w *Worker) *marks { return &marks{w: w, said: map[string]mark{}} }

// listen hears marks that come, and reads those that are there, also behind each reconnect.
func (m *marks) listen(ctx context.Context) error {
	e := m.w.engine
	err := m.w.hear(e.Of("live.cancel.*.*"), func(msg *nats.Msg) {
		m.add(strings.Replace(msg.Subject, ".live.", ".", 1), msg.Data, time.Now())
		m.w.stopCancelled()
	})
	if err != nil {
		return err
	}
	e.OnReconnect(func() {
		go func() {
			if err := m.read(m.w.life); err != nil && m.w.life.Err() == nil {
				m.w.log.Error("cancel marks cannot be read", "error", err)
			}
			m.w.stopCancelled()
		}()
	})
	return m.read(ctx)
}

func (m *marks) read(ctx context.Context) error {
	o := m.w.engine.Op(ctx)
	for message := range o.Below(o.Of("cancel.*.*"), 0) {
		m.add(message.Subject, message.Body, message.Time)
	}
	return o.Err
}

func (m *marks) add(subject string, body []byte, at time.Time) {
	if time.Since(at) > runs.Remembered {
		return
	}
	m.lock.Lock()
	defer m.lock.Unlock()
	if time.Now().After(m.next) {
		for run, one := range m.said {
			if time.Since(one.at) > runs.Remembered {
				delete(m.said, run)
			}
		}
		m.next = time.Now().Add(time.Minute)
	}
	if wire.Token(subject, 3) != wire.None {
		m.said[wire.LastToken(subject)] = mark{string(body), at}
		return
	}
	var roots []string
	if err := json.Unmarshal(body, &roots); err != nil {
		m.w.log.Error("a mark of deleted trees cannot be read", "subject", subject, "error", err)
	}
	for _, root := range roots {
		m.said[root] = mark{runs.MarkDeleted, at}
	}
}

func (m *marks) of(run string) *string {
	m.lock.Lock()
	defer m.lock.Unlock()
	if one, is := m.said[run]; is && time.Since(one.at) < runs.Remembered {
		return &one.body
	}
	return nil
}

// cover tells whether a task's run is cancelled.
func (m *marks) cover(t *wire.Task, g *wire.Graph) bool {
	own, parent, root := m.of(t.Run), m.of(t.Parent), m.of(t.Root)
	spared := g != nil && g.FailFast && g.IsFailureStep(t.Step) // its run has just marked itself
	switch {
	case root != nil && *root == runs.MarkDeleted, own != nil && !spared:
		return true
	case parent != nil && *parent != runs.MarkAlone && *parent != runs.MarkRest+" but "+t.ParentStep+`"`:
		return true
	}
	return root != nil && t.Root != t.Run && *root != runs.MarkAlone && !strings.HasPrefix(*root, runs.MarkRest)
}

// stopCancelled tells the bodies to stop whose runs are cancelled.
func (w *Worker) stopCancelled() {
	for _, one := range w.all() {
		if x := one.body.Load(); x != nil && w.marks.cover(x.task, x.graph) {
			x.cancel(ErrCancelled)
		}
	}
}
