package broker

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// Delivery is one delivery of a task.
type Delivery struct {
	*nats.Msg
	Count int
	Seq   uint64
	Time  time.Time
}

func delivery(msg *nats.Msg) (*Delivery, bool) {
	tokens := strings.Split(msg.Reply, ".")
	if len(tokens) >= 11 { // with a domain and an account
		tokens = tokens[2:]
	}
	if len(tokens) < 9 {
		return nil, false
	}
	count, wrong := strconv.Atoi(tokens[4])
	seq, bad := strconv.ParseUint(tokens[5], 10, 64)
	at, ill := strconv.ParseInt(tokens[7], 10, 64)
	return &Delivery{msg, count, seq, time.Unix(0, at)}, wrong == nil && bad == nil && ill == nil
}

// Say answers a delivery: it publishes to a reply subject.
func (c *Conn) Say(reply, what string) {
	if err := c.NC.Publish(reply, []byte(what)); err != nil {
		c.Log.Warn("a task's delivery is not answered, and will be repeated", "error", err)
	}
}

const (
	pullFor   = 30 * time.Second
	idleBeat  = 5 * time.Second
	pullFirst = 8    // tasks that a step is asked for that had none
	pullMost  = 1000 // tasks that are asked for at once
)

// Puller pulls the tasks of a step, as many as there is room for: more at a time while they come at once, and few
// where none comes.
type Puller struct {
	conn     *Conn
	consumer Consumer
	room     func() int
	take     func(*Delivery)
	lost     func()

	sub    *nats.Subscription
	inbox  string
	done   chan struct{}
	hungry atomic.Bool
	lock   sync.Mutex
	asked  int
	size   int
	heard  time.Time
}

// Pull begins to pull. take is called for each delivery, and must not block; lost when the consumer seems to be gone.
func (c *Conn) Pull(ctx context.Context, consumer Consumer, room func() int, take func(*Delivery), lost func()) (*Puller, error) {
	p := &Puller{conn: c, consumer: consumer, room: room, take: take, lost: lost, size: pullFirst, done: make(chan struct{})}
	p.inbox = c.NC.NewInbox()
	var err error
	if p.sub, err = c.NC.Subscribe(p.inbox, p.on); err != nil {
		return nil, err
	}
	_ = p.sub.SetPendingLimits(-1, -1)
	p.sub.SetClosedHandler(func(string) { close(p.done) })
	c.OnReconnect(p.reset)
	p.more()
	go p.watch(ctx)
	return p, nil
}

// Stop stops pulling; what has arrived is taken before it returns.
func (p *Puller) Stop() {
	if p.sub.Drain() != nil {
		return // the connection is closed
	}
	select {
	case <-p.done:
	case <-time.After(2 * time.Second):
	}
}

// Feed asks for more, if the puller waits for room.
func (p *Puller) Feed() {
	if p.hungry.Load() {
		p.more()
	}
}

// watch asks anew where the server has forgotten what it was asked for.
func (p *Puller) watch(ctx context.Context) {
	ticker := time.NewTicker(idleBeat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		p.lock.Lock()
		silent := time.Since(p.heard) > 3*idleBeat
		p.lock.Unlock()
		if silent {
			p.reset()
		}
		p.more()
	}
}

func (p *Puller) reset() {
	p.lock.Lock()
	p.asked, p.size, p.heard = 0, pullFirst, time.Now()
	p.lock.Unlock()
	p.more()
}

func (p *Puller) more() {
	if !p.sub.IsValid() {
		return
	}
	p.lock.Lock()
	defer p.lock.Unlock()
	if p.asked > p.size/2 {
		return
	}
	number := min(p.room()-p.asked, p.size)
	p.hungry.Store(number <= 0 && p.asked == 0)
	if number <= 0 {
		return
	}
	if p.asked == 0 {
		p.heard = time.Now()
	}
	p.asked += number
	request, _ := json.Marshal(map[string]any{"batch": number, "expires": pullFor, "idle_heartbeat": idleBeat})
	subject := p.conn.api + "CONSUMER.MSG.NEXT." + p.conn.Names.Tasks() + "." + p.consumer.Workflow + "=" + p.consumer.Step
	if err := p.conn.NC.PublishRequest(subject, p.inbox, request); err != nil {
		p.asked -= number // it is asked again by watch
	}
}

func (p *Puller) on(msg *nats.Msg) {
	if got, is := delivery(msg); is {
		p.lock.Lock()
		p.heard = time.Now()
		if p.asked = max(0, p.asked-1); p.asked == p.size/2 {
			p.size = min(4*p.size, pullMost)
		}
		p.lock.Unlock()
		p.take(got)
		p.more()
		return
	}
	status := msg.Header.Get("Status")
	p.lock.Lock()
	p.heard = time.Now()
	if status != "100" {
		left, err := strconv.Atoi(msg.Header.Get("Nats-Pending-Messages"))
		if err != nil {
			left = p.asked
		}
		p.asked = max(0, p.asked-left)
	}
	if status == "408" || status == "404" {
		p.size = pullFirst
	}
	p.lock.Unlock()
	switch status {
	case "100":
	case "408", "404":
		p.more()
	default: // it is gone, or the server is about to be: ask again in a moment
		time.AfterFunc(500*time.Millisecond, func() {
			p.lost()
			p.reset()
		})
	}
}
