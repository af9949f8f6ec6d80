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

// Message is a stored message.
type Message struct {
	Subject string
	Seq     uint64
	Time    time.Time
	Header  nats.Header
	Body    []byte
}

// Last returns the newest message on a subject, which may have wildcards, from the stream's leader; nil if none is
// there.
func (c *Conn) Last(ctx context.Context, subject string) (*Message, error) {
	var read struct {
		Message struct {
			Subject    string
			Seq        uint64
			Hdrs, Data []byte
			Time       time.Time
		}
	}
	err := c.API(ctx, "STREAM.MSG.GET."+c.Stream(subject), map[string]string{"last_by_subj": subject}, &read)
	if Is(err, 10037) {
		return nil, nil
	}
	m := read.Message
	found := &Message{Subject: m.Subject, Seq: m.Seq, Time: m.Time, Body: m.Data}
	if err == nil && len(m.Hdrs) > 0 {
		found.Header, err = nats.DecodeHeadersMsg(m.Hdrs)
	}
	return found, err
}

type streamInfo struct {
	Total int
	State struct{ Subjects map[string]int }
}

// Count returns how many subjects are stored below a filter.
func (c *Conn) Count(ctx context.Context, filter string) (int, error) {
	var read streamInfo
	request := map[string]any{"subjects_filter": filter, "offset": 1 << 31}
	err := c.API(ctx, "STREAM.INFO."+c.Stream(filter), request, &read)
	return read.Total, err
}

// Subjects returns the subjects that are stored below a filter, each once, from the stream's leader.
func (c *Conn) Subjects(ctx context.Context, filter string) ([]string, error) {
	found := map[string]int{}
	for offset := 0; ; {
		var read streamInfo
		request := map[string]any{"subjects_filter": filter, "offset": offset}
		if err := c.API(ctx, "STREAM.INFO."+c.Stream(filter), request, &read); err != nil {
			return nil, err
		}
		maps.Copy(found, read.State.Subjects)
		offset += len(read.State.Subjects)
		if len(read.State.Subjects) == 0 || offset >= read.Total {
			return slices.Collect(maps.Keys(found)), nil
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
func (c *Conn) Many(ctx context.Context, subjects []string) (map[string]*Message, error) {
	found := make(map[string]*Message, len(subjects))
	for some := range slices.Chunk(subjects, 500) {
		if len(some) > 1 {
			page, err := c.direct(ctx, c.Stream(some[0]), map[string]any{"multi_last": some, "batch": len(some)})
			if err != nil {
				c.Log.Debug("a direct get failed, so the leader is read", "error", err)
			}
			for _, m := range page {
				found[m.Subject] = m
			}
		}
		for _, subject := range some {
			if found[subject] != nil {
				continue
			}
			last, err := c.Last(ctx, subject)
			if err != nil {
				return nil, err
			}
			if last != nil {
				found[subject] = last
			}
		}
	}
	return found, nil
}

// Below yields the messages below a filter in their order, up to a sequence (0: all). It stops at the first error.
func (c *Conn) Below(ctx context.Context, filter string, upTo uint64) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		for next := uint64(1); ; {
			page, err := c.direct(ctx, c.Stream(filter), map[string]any{"next_by_subj": filter, "batch": 500, "seq": next})
			if err != nil {
				yield(nil, err)
				return
			}
			for _, m := range page {
				if (upTo > 0 && m.Seq > upTo) || !yield(m, nil) {
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

// Purge removes what is stored below a filter.
func (c *Conn) Purge(ctx context.Context, filter string) error {
	return c.API(ctx, "STREAM.PURGE."+c.Stream(filter), map[string]string{"filter": filter}, &struct{}{})
}

// Remove removes the message on a subject by its sequence, which costs less than a purge; one that is gone is no error.
func (c *Conn) Remove(ctx context.Context, subject string) error {
	stored, err := c.Last(ctx, subject)
	if err != nil || stored == nil {
		return err
	}
	request := map[string]any{"seq": stored.Seq, "no_erase": true}
	if err = c.API(ctx, "STREAM.MSG.DELETE."+c.Stream(subject), request, &struct{}{}); Is(err, 10057, 10037, 10043) {
		return nil
	}
	return err
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
func (c *Conn) PutValue(ctx context.Context, root string, value []byte) (string, error) {
	if len(value) > wire.MaxValue {
		return "", fmt.Errorf("%w: %d bytes of JSON, and %d are allowed", ErrTooLarge, len(value), wire.MaxValue)
	}
	if c.noValues.Load() {
		return "", fmt.Errorf("%w: the account may have no stream of values", ErrTooLarge)
	}
	ref, chunks := wire.ValueRef(value, wire.ChunkSize(c.NC.MaxPayload()))
	name, _, _ := wire.SplitRef(ref)
	for number, chunk := range chunks {
		subject := c.Of("value", root, name, strconv.Itoa(number))
		if _, err := c.Store(ctx, &nats.Msg{Subject: subject, Data: chunk}); err != nil {
			return "", err
		}
	}
	return ref, nil
}

// Value reads a large value. It is ErrLost where that can never be read.
func (c *Conn) Value(ctx context.Context, root, ref string) ([]byte, error) {
	name, count, err := wire.SplitRef(ref)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLost, err)
	}
	var value []byte
	for number := range count {
		chunk, err := c.Last(ctx, c.Of("value", root, name, strconv.Itoa(number)))
		if err != nil && !Is(err, 10059) {
			return nil, err
		}
		if chunk == nil || err != nil {
			return nil, fmt.Errorf("%w: chunk %d of %s", ErrLost, number, ref)
		}
		value = append(value, chunk.Body...)
	}
	if wire.Hash(value) != name[:32] {
		return nil, fmt.Errorf("%w: %s has another hash", ErrLost, ref)
	}
	return value, nil
}
