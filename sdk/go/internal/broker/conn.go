// Package broker talks to NATS JetStream: it stores until something is stored, reads from leaders, merges increments,
// commits what is ready together as one batch, and pulls tasks. Everything is safe for concurrent use.
package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"jetflow.dev/go/internal/wire"
)

// AnswerWithin is how long an answer is waited for, before what was asked is asked again.
const AnswerWithin = 5 * time.Second

// Conn is a connection to one namespace.
type Conn struct {
	NC    *nats.Conn
	Names wire.Names
	Log   *slog.Logger

	api        string
	inbox      string
	next       atomic.Uint64
	lock       sync.Mutex
	open       map[string]chan *nats.Msg
	counters   map[string]*counter
	grouped    map[string]*group
	ingests    map[string]*ingested
	ingest     string // the inbox of batches, and what their ids begin with
	ingestName string
	listening  []*nats.Subscription
	rejoin     []func()
	noValues   atomic.Bool
	life       context.Context // of what goes on for others than who began it
	end        context.CancelFunc
}

// New begins to listen for answers on a connection.
func New(nc *nats.Conn, namespace, domain string, log *slog.Logger) (*Conn, error) {
	c := &Conn{
		NC: nc, Names: wire.Names{Namespace: namespace}, Log: log, api: "$JS.API.", inbox: nc.NewInbox(),
		open: map[string]chan *nats.Msg{}, counters: map[string]*counter{}, grouped: map[string]*group{}, ingests: map[string]*ingested{}, ingest: nc.NewInbox(), ingestName: wire.NewID() + "-",
	}
	c.life, c.end = context.WithCancel(context.Background())
	if domain != "" {
		c.api = "$JS." + domain + ".API."
	}
	for subject, on := range map[string]nats.MsgHandler{c.inbox + ".*": c.onReply, c.ingest + ".>": c.onIngest} {
		sub, err := nc.Subscribe(subject, on)
		if err != nil {
			return nil, err
		}
		_ = sub.SetPendingLimits(-1, -1) // it fails where the connection is closed
		c.listening = append(c.listening, sub)
	}
	return c, nil
}

// Close stops listening. It leaves the NATS connection open.
func (c *Conn) Close() {
	c.end()
	for _, sub := range c.listening {
		if err := sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
			c.Log.Warn("could not unsubscribe", "error", err)
		}
	}
}

// OnReconnect has something done behind each reconnect.
func (c *Conn) OnReconnect(do func()) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.rejoin = append(c.rejoin, do)
}

// Reconnected gives up all answers that the connection that broke can bring no more.
func (c *Conn) Reconnected() {
	c.lock.Lock()
	open, rejoin := c.open, c.rejoin
	c.open = map[string]chan *nats.Msg{}
	c.lock.Unlock()
	for _, answer := range open {
		close(answer)
	}
	for _, do := range rejoin {
		do()
	}
}

func (c *Conn) onReply(msg *nats.Msg) {
	token := msg.Subject[len(c.inbox)+1:]
	c.lock.Lock()
	answer := c.open[token]
	if answer != nil && (len(msg.Data) > 0 || len(msg.Header) > 0) { // the first of a batch is answered by nothing
		delete(c.open, token)
	} else {
		answer = nil
	}
	c.lock.Unlock()
	if answer != nil {
		answer <- msg
	}
}

// reply returns a new reply subject, and where its answer comes.
func (c *Conn) reply() (subject string, answer chan *nats.Msg) {
	token := strconv.FormatUint(c.next.Add(1), 36)
	answer = make(chan *nats.Msg, 1)
	c.lock.Lock()
	c.open[token] = answer
	c.lock.Unlock()
	return c.inbox + "." + token, answer
}

func (c *Conn) forget(subject string) {
	c.lock.Lock()
	delete(c.open, subject[len(c.inbox)+1:])
	c.lock.Unlock()
}

// errSilent says that no answer came, so that what was asked for must be asked for again.
var errSilent = errors.New("the server does not answer")

func (c *Conn) wait(ctx context.Context, subject string, answer chan *nats.Msg) (*nats.Msg, error) {
	timer := time.NewTimer(AnswerWithin)
	defer timer.Stop()
	select {
	case msg, ok := <-answer:
		if !ok || msg.Header.Get("Status") == "503" {
			return nil, errSilent
		}
		return msg, nil
	case <-timer.C:
		c.forget(subject)
		return nil, errSilent
	case <-ctx.Done():
		c.forget(subject)
		return nil, ctx.Err()
	}
}

func (c *Conn) ask(ctx context.Context, msg *nats.Msg) (*nats.Msg, error) {
	reply, answer := c.reply()
	msg.Reply = reply
	if err := c.NC.PublishMsg(msg); err != nil {
		c.forget(reply)
		if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrMaxPayload) {
			return nil, err
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return nil, err
		}
		return nil, errSilent
	}
	return c.wait(ctx, reply, answer)
}

func pause(ctx context.Context, delay time.Duration) error {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// APIError is what the server refuses with.
type APIError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *APIError) Error() string { return fmt.Sprintf("%s (%d)", e.Description, e.ErrCode) }

// passing tells whether what was refused so may be taken later.
func (e *APIError) passing() bool {
	switch e.ErrCode {
	case 10158, 10164:
		return true
	case 10077:
		return !strings.Contains(e.Description, "per subject")
	case 10039, 10076:
		return false
	}
	return e.Code >= 500
}

func (e *APIError) taken() bool {
	return e.ErrCode == 10071 || (e.ErrCode == 10077 && strings.Contains(e.Description, "per subject"))
}

// API makes a request of the JetStream API, again and again until there is an answer.
func (c *Conn) API(ctx context.Context, what string, request, into any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	for delay := 50 * time.Millisecond; ; delay = min(2*delay, time.Second) {
		answer, err := c.ask(ctx, &nats.Msg{Subject: c.api + what, Data: body})
		if err == nil {
			read := struct{ Error *APIError }{}
			if err := json.Unmarshal(answer.Data, &read); err != nil {
				return fmt.Errorf("%s: the answer cannot be read: %w", what, err)
			}
			if read.Error == nil {
				return json.Unmarshal(answer.Data, into)
			}
			if err = read.Error; !read.Error.passing() {
				return fmt.Errorf("%s: %w", what, err)
			}
		} else if !errors.Is(err, errSilent) {
			return err
		}
		if err := pause(ctx, delay); err != nil {
			return err
		}
	}
}

// Is tells whether an error is the server's with such a code.
func Is(err error, codes ...int) bool {
	var refused *APIError
	if errors.As(err, &refused) {
		for _, code := range codes {
			if refused.ErrCode == code {
				return true
			}
		}
	}
	return false
}
