package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"jetflow.dev/go/internal/wire"
)

// Op is reads and writes in their order. Once one has failed, none is done any more, and what is read is nothing: Err
// tells why, and is asked for once, at the end. It is for one goroutine.
type Op struct {
	*Conn
	Ctx context.Context
	Err error
}

// Op begins to read and write.
func (c *Conn) Op(ctx context.Context) *Op { return &Op{Conn: c, Ctx: ctx} }

// ask makes a request of the JetStream API. It is false if the Op has failed, or if the answer is of a code that stands
// for nothing.
func (o *Op) ask(what string, request, into any, nothing ...int) bool {
	if o.Err == nil {
		if o.Err = o.API(o.Ctx, what, request, into); Is(o.Err, nothing...) {
			o.Err = nil
			return false
		}
	}
	return o.Err == nil
}

// Put stores a message, Store one that is alone at its time. What stands on its subject already is returned.
func (o *Op) Put(m *nats.Msg) *Message   { return o.put(m, o.StoreGrouped) }
func (o *Op) Store(m *nats.Msg) *Message { return o.put(m, o.Conn.Store) }

func (o *Op) put(m *nats.Msg, by func(context.Context, *nats.Msg) (Answer, error)) *Message {
	var told Answer
	if o.Err == nil {
		told, o.Err = by(o.Ctx, m)
	}
	return told.Taken
}

// Add adds to a counter. The value is 0 if the Op has failed; of those whose increments were merged, one is first.
func (o *Op) Add(counter string, by int64) (value int64, first bool) {
	if o.Err == nil {
		value, first, o.Err = o.Conn.Add(o.Ctx, counter, by)
	}
	return value, first && o.Err == nil
}

// Message is a stored message.
type Message struct {
	Subject string
	Seq     uint64
	Time    time.Time
	Header  nats.Header
	Body    []byte
}

// Last returns the newest message on a subject, which may have wildcards, from the stream's leader; nil if there is
// none.
func (o *Op) Last(subject string) *Message {
	var read struct {
		Message struct {
			Subject    string
			Seq        uint64
			Hdrs, Data []byte
			Time       time.Time
		}
	}
	if !o.ask("STREAM.MSG.GET."+o.Stream(subject), map[string]string{"last_by_subj": subject}, &read, 10037) {
		return nil
	}
	m := read.Message
	found := &Message{Subject: m.Subject, Seq: m.Seq, Time: m.Time, Body: m.Data}
	if len(m.Hdrs) > 0 {
		found.Header, o.Err = nats.DecodeHeadersMsg(m.Hdrs)
	}
	return found
}

type streamInfo struct {
	Total int
	State struct{ Subjects map[string]int }
}

func (o *Op) info(filter string, offset int) (read streamInfo) {
	o.ask("STREAM.INFO."+o.Stream(filter), map[string]any{"subjects_filter": filter, "offset": offset}, &read)
	return read
}

// Count returns how many subjects are stored below a filter.
func (o *Op) Count(filter string) int { return o.info(filter, 1<<31).Total }

// Subjects returns the subjects that are stored below a filter, each once, from the stream's leader.
func (o *Op) Subjects(filter string) []string {
	found := map[string]int{}
	for offset := 0; ; {
		read := o.info(filter, offset)
		maps.Copy(found, read.State.Subjects)
		offset += len(read.State.Subjects)
		if len(read.State.Subjects) == 0 || offset >= read.Total {
			return slices.Collect(maps.Keys(found))
		}
	}
}

// direct returns what one direct get answers.
func (c *Conn) direct(ctx context.Context, stream string, request any) (page []*Message, err error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	inbox := c.NC.NewInbox()
	answers, err := c.NC.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answers.Unsubscribe() }() // it can only fail where the connection is closed
	_ = answers.SetPendingLimits(-1, -1)
	if err := c.NC.PublishRequest(c.api+"DIRECT.GET."+stream, inbox, body); err != nil {
		return nil, err
	}
	for {
		limited, cancel := context.WithTimeout(ctx, AnswerWithin)
		msg, err := answers.NextMsgWithContext(limited)
		cancel()
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", stream, err)
		}
		switch h := msg.Header; h.Get("Status") {
		case "":
			seq, _ := strconv.ParseUint(h.Get("Nats-Sequence"), 10, 64)
			at, _ := time.Parse(time.RFC3339Nano, h.Get("Nats-Time-Stamp"))
			page = append(page, &Message{Subject: h.Get("Nats-Subject"), Seq: seq, Time: at, Header: h, Body: msg.Data})
		case "204", "404":
			return page, nil
		default:
			return nil, fmt.Errorf("reading %s: status %s %s", stream, h.Get("Status"), h.Get("Description"))
		}
	}
}

// Many returns what is stored on subjects of one stream, by subject. What a replica does not have is read from the
// leader.
func (o *Op) Many(subjects []string) map[string]*Message {
	found := make(map[string]*Message, len(subjects))
	for some := range slices.Chunk(subjects, 500) {
		if len(some) > 1 && o.Err == nil {
			page, err := o.direct(o.Ctx, o.Stream(some[0]), map[string]any{"multi_last": some, "batch": len(some)})
			if err != nil {
				o.Log.Debug("a direct get failed, so the leader is read", "error", err)
			}
			for _, m := range page {
				found[m.Subject] = m
			}
		}
		for _, subject := range some {
			if found[subject] == nil {
				if last := o.Last(subject); last != nil {
					found[subject] = last
				}
			}
		}
	}
	return found
}

// Below yields the messages below a filter in their order, up to a sequence (0: all).
func (o *Op) Below(filter string, upTo uint64) iter.Seq[*Message] {
	return func(yield func(*Message) bool) {
		for next := uint64(1); o.Err == nil; {
			var page []*Message
			page, o.Err = o.direct(o.Ctx, o.Stream(filter), map[string]any{"next_by_subj": filter, "batch": 500, "seq": next})
			for _, m := range page {
				if (upTo > 0 && m.Seq > upTo) || !yield(m) {
					return
				}
				next = m.Seq + 1
			}
			if len(page) == 0 {
				return
			}
		}
	}
}

// Purge removes what is stored below filters.
func (o *Op) Purge(filters ...string) {
	for _, filter := range filters {
		o.ask("STREAM.PURGE."+o.Stream(filter), map[string]string{"filter": filter}, &struct{}{})
	}
}

// Remove removes messages by their sequences, which costs less than a purge.
func (o *Op) Remove(subjects []string) {
	for _, subject := range subjects {
		if stored := o.Last(subject); stored != nil {
			request := map[string]any{"seq": stored.Seq, "no_erase": true}
			o.ask("STREAM.MSG.DELETE."+o.Stream(subject), request, &struct{}{}, 10057, 10037, 10043)
		}
	}
}

// --- values

// ErrLost says that a large value is gone, or was changed; ErrTooLarge that a value has too many bytes.
var (
	ErrLost     = errors.New("a large value is gone, or was changed")
	ErrTooLarge = errors.New("a value is too large")
)

// IsLarge tells whether a value must travel in chunks.
func (c *Conn) IsLarge(value []byte) bool { return len(value) > wire.ChunkSize(c.NC.MaxPayload()) }

// PutValue stores a large value, and returns its reference.
func (o *Op) PutValue(root string, value []byte) string {
	if len(value) > wire.MaxValue {
		o.Err = fmt.Errorf("%w: %d bytes of JSON, and %d are allowed", ErrTooLarge, len(value), wire.MaxValue)
	} else if o.noValues.Load() {
		o.Err = fmt.Errorf("%w: the account may have no stream of values", ErrTooLarge)
	}
	ref, chunks := wire.ValueRef(value, wire.ChunkSize(o.NC.MaxPayload()))
	name, _, _ := wire.SplitRef(ref)
	for number, chunk := range chunks {
		o.Store(&nats.Msg{Subject: o.Of("value", root, name, strconv.Itoa(number)), Data: chunk})
	}
	return ref
}

// Value reads a large value. The Op fails as ErrLost where that can never be read.
func (o *Op) Value(root, ref string) (value []byte) {
	name, count, err := wire.SplitRef(ref)
	if err != nil && o.Err == nil {
		o.Err = fmt.Errorf("%w: %w", ErrLost, err)
	}
	for number := 0; number < count && o.Err == nil; number++ {
		chunk := o.Last(o.Of("value", root, name, strconv.Itoa(number)))
		switch {
		case chunk != nil:
			value = append(value, chunk.Body...)
		case o.Err == nil || Is(o.Err, 10059):
			o.Err = fmt.Errorf("%w: chunk %d of %s", ErrLost, number, ref)
		}
	}
	if o.Err == nil && wire.Hash(value) != name[:32] {
		o.Err = fmt.Errorf("%w: %s has another hash", ErrLost, ref)
	}
	return value
}
