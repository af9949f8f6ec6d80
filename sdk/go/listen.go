package jetflow

import (
	"sync"

	"github.com/nats-io/nats.go"

	"jetflow.dev/go/internal/wire"
)

// listener hears the live copies of the ends of a step's children.
type listener struct {
	once sync.Once
	sub  *nats.Subscription
	news chan struct{}
	err  error
}

func (x *execution) listen(of []*spawned) (<-chan struct{}, error) {
	x.lock.Lock()
	if x.children == nil {
		x.children = &listener{news: make(chan struct{}, 1)}
	}
	one := x.children
	x.lock.Unlock()
	if x.w.set.parkAfter <= 0 {
		return one.news, nil
	}
	one.once.Do(func() {
		subject := x.w.engine.Names.Of("live", "run", x.task.Root, x.task.Run, "*", "*")
		one.sub, one.err = x.w.engine.NC.Subscribe(subject, func(msg *nats.Msg) {
			x.lock.Lock()
			if child := x.byID[wire.LastToken(msg.Subject)]; child != nil && child.outcome == nil {
				child.outcome = wire.DecodeOutcome(msg.Data)
			}
			x.lock.Unlock()
			select {
			case one.news <- struct{}{}:
			default:
			}
		})
	})
	return one.news, one.err
}

func (x *execution) closeChildren() {
	x.lock.Lock()
	one := x.children
	x.lock.Unlock()
	if one != nil && one.sub != nil {
		_ = one.sub.Unsubscribe() // it fails where the connection is closed
	}
}
