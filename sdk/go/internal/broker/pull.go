package broker

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
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
	conn    *Conn
	subject string // where it asks
	room    func() int
	take    func(*Delivery)
	lost    func()
	sub     *nats.Subscription
	inbox   string
	done    chan struct{}

	lock   sync.Mutex
	hungry bool
	asked  int
	size   int
	heard  time.Time
}

// Pull begins to pull. take is called for each delivery, and must not block; lost when the consumer seems to be gone.
func (c *Conn) Pull(ctx context.Context, of Consumer, room func() int, take func(*Delivery), lost func()) (*Puller, error) {
	p := &Puller{conn: c, room: room, take: take, lost: lost, size: pullFirst, done: make(chan struct{}), inbox: c.NC.NewInbox(),
		subject: c.api + "CONSUMER.MSG.NEXT." + c.Stream(c.Of("task")) + "." + of.Workflow + "=" + of.Step}
	var err error
	if p.sub, err = c.NC.Subscribe(p.inbox, p.hear); err != nil {
		return nil, err
	}
	_ = p.sub.SetPendingLimits(-1, -1) // it fails where the connection is closed
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

// Feed asks for more, if the puller waits for room.
func (p *Puller) Feed() {
	p.lock.Lock()
	hungry := p.hungry
	p.lock.Unlock()
	if hungry {
		p.more()
	}
}

func (p *Puller) more() {
	p.lock.Lock()
	defer p.lock.Unlock()
	if p.asked > p.size/2 || !p.sub.IsValid() {
		return
	}
	number := min(p.room()-p.asked, p.size)
	if p.hungry = number <= 0 && p.asked == 0; number <= 0 {
		return
	}
	if p.asked == 0 {
		p.heard = time.Now()
	}
	request, _ := json.Marshal(map[string]any{"batch": number, "expires": pullFor, "idle_heartbeat": idleBeat})
	if p.conn.NC.PublishRequest(p.subject, p.inbox, request) == nil { // else watch asks again
		p.asked += number
	}
}

func (p *Puller) hear(msg *nats.Msg) {
	got, isTask := delivery(msg)
	status := msg.Header.Get("Status")
	isOver := status == "408" || status == "404"
	p.lock.Lock()
	p.heard = time.Now()
	switch {
	case isTask:
		if p.asked = max(0, p.asked-1); p.asked == p.size/2 {
			p.size = min(4*p.size, pullMost)
		}
	case status == "100":
	default:
		left, err := strconv.Atoi(msg.Header.Get("Nats-Pending-Messages"))
		if err != nil {
			left = p.asked
		}
		p.asked = max(0, p.asked-left)
		if p.size = pullFirst; !isOver { // it is gone, or the server is about to be: ask again in a moment
			time.AfterFunc(500*time.Millisecond, func() {
				p.lost()
				p.reset()
			})
		}
	}
	p.lock.Unlock()
	if isTask {
		p.take(got)
	}
	if isTask || isOver {
		p.more()
	}
}
