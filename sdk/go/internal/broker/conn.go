// Package broker talks to NATS JetStream: it stores until something is stored, reads from leaders, merges increments,
// commits what is ready together as one batch, and pulls tasks. Everything is safe for concurrent use.
package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
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
	wire.Names
	NC  *nats.Conn
	Log *slog.Logger

	api      string
	lock     sync.Mutex
	link     context.Context // of the present connection to the server: what was asked there is answered there, or never
	breaks   context.CancelFunc
	rejoin   []func()
	counters map[string]*counter
	groups   map[string]*group // by stream
	noValues atomic.Bool
	life     context.Context // of what goes on for others than who began it
	end      context.CancelFunc
}

// New uses a connection.
func New(nc *nats.Conn, namespace, domain string, log *slog.Logger) *Conn {
	c := &Conn{Names: wire.Names{Namespace: namespace}, NC: nc, Log: log, api: "$JS.API.", counters: map[string]*counter{},
		groups: map[string]*group{}}
	if domain != "" {
		c.api = "$JS." + domain + ".API."
	}
	c.life, c.end = context.WithCancel(context.Background())
	c.link, c.breaks = context.WithCancel(c.life)
	before := nc.ReconnectHandler()
	nc.SetReconnectHandler(func(nc *nats.Conn) {
		c.reconnected()
		if before != nil {
			before(nc)
		}
	})
	return c
}

// Close stops what goes on. It leaves the NATS connection open.
func (c *Conn) Close() { c.end() }

// OnReconnect has something done behind each reconnect.
func (c *Conn) OnReconnect(do func()) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.rejoin = append(c.rejoin, do)
}

func (c *Conn) reconnected() {
	c.lock.Lock()
	rejoin := c.rejoin
	c.breaks()
	c.link, c.breaks = context.WithCancel(c.life)
	c.lock.Unlock()
	for _, do := range rejoin {
		do()
	}
}

// errSilent says that no answer came, so that what was asked for must be asked for again.
var errSilent = errors.New("the server does not answer")

func (c *Conn) ask(ctx context.Context, msg *nats.Msg) (*nats.Msg, error) {
	c.lock.Lock()
	link := c.link
	c.lock.Unlock()
	limited, cancel := context.WithTimeout(ctx, AnswerWithin)
	defer cancel()
	defer context.AfterFunc(link, cancel)()
	answer, err := c.NC.RequestMsgWithContext(limited, msg)
	switch {
	case err == nil, errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrMaxPayload):
		return answer, err
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case c.life.Err() != nil:
		return nil, nats.ErrConnectionClosed
	}
	return nil, errSilent
}

// again yields until the context is done, with growing pauses.
func again(ctx context.Context) iter.Seq[time.Duration] {
	return func(yield func(time.Duration) bool) {
		for delay := 50 * time.Millisecond; yield(delay); delay = min(2*delay, time.Second) {
			select {
			case <-time.After(delay):
			case <-ctx.Done():
				return
			}
		}
	}
}

// APIError is what the server refuses with.
type APIError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *APIError) Error() string { return fmt.Sprintf("%s (%d)", e.Description, e.ErrCode) }

// taken tells whether a subject's one message is there, passing whether what was refused may be taken later.
func (e *APIError) taken() bool {
	return e.ErrCode == 10071 || (e.ErrCode == 10077 && strings.Contains(e.Description, "per subject"))
}

func (e *APIError) passing() bool {
	switch e.ErrCode {
	case 10077, 10158, 10164:
		return !e.taken()
	case 10039, 10076:
		return false
	}
	return e.Code >= 500
}

// Is tells whether an error is the server's with such a code.
func Is(err error, codes ...int) bool {
	var refused *APIError
	return errors.As(err, &refused) && slices.Contains(codes, refused.ErrCode)
}

// API makes a request of the JetStream API, again and again until there is an answer.
func (c *Conn) API(ctx context.Context, what string, request, into any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	for range again(ctx) {
		answer, err := c.ask(ctx, &nats.Msg{Subject: c.api + what, Data: body})
		var read struct{ Error *APIError }
		switch {
		case errors.Is(err, errSilent):
			continue
		case err == nil:
			err = json.Unmarshal(answer.Data, &read)
		}
		switch {
		case err == nil && read.Error == nil:
			return json.Unmarshal(answer.Data, into)
		case err == nil && read.Error.passing():
			continue
		case err == nil:
			err = read.Error
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	return ctx.Err()
}
