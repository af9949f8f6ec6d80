package broker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
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
func (c *Conn) Last(ctx context.Context, stream, subject string) (*Message, error) {
	var read struct {
		Message struct {
			Subject    string
			Seq        uint64
			Hdrs, Data string
			Time       time.Time
		}
	}
	err := c.API(ctx, "STREAM.MSG.GET."+stream, map[string]string{"last_by_subj": subject}, &read)
	if Is(err, 10037) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found := &Message{Subject: read.Message.Subject, Seq: read.Message.Seq, Time: read.Message.Time}
	if found.Body, err = base64.StdEncoding.DecodeString(read.Message.Data); err != nil {
		return nil, err
	}
	header, err := base64.StdEncoding.DecodeString(read.Message.Hdrs)
	if err == nil && len(header) > 0 {
		found.Header, err = nats.DecodeHeadersMsg(header)
	}
	return found, err
}

// Subjects returns the subjects that are stored below a filter, each once, from the stream's leader.
func (c *Conn) Subjects(ctx context.Context, stream, filter string) ([]string, error) {
	found := map[string]bool{}
	for offset := 0; ; {
		var read struct {
			Total int
			State struct{ Subjects map[string]int }
		}
		request := map[string]any{"subjects_filter": filter, "offset": offset}
		if err := c.API(ctx, "STREAM.INFO."+stream, request, &read); err != nil {
			return nil, err
		}
		for subject := range read.State.Subjects {
			found[subject] = true
		}
		offset += len(read.State.Subjects)
		if len(read.State.Subjects) == 0 || offset >= read.Total {
			return slices.Collect(maps.Keys(found)), nil
		}
	}
}

// direct yields what one direct get answers.
func (c *Conn) direct(ctx context.Context, stream string, request any, each func(*Message)) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	inbox := c.NC.NewInbox()
	answers, err := c.NC.SubscribeSync(inbox)
	if err != nil {
		return err
	}
	defer func() { _ = answers.Unsubscribe() }() // it can only fail where the connection is closed
	_ = answers.SetPendingLimits(-1, -1)
	if err := c.NC.PublishRequest(c.api+"DIRECT.GET."+stream, inbox, body); err != nil {
		return err
	}
	for {
		limited, cancel := context.WithTimeout(ctx, AnswerWithin)
		msg, err := answers.NextMsgWithContext(limited)
		cancel()
		if err != nil {
			return fmt.Errorf("reading %s: %w", stream, err)
		}
		switch status := msg.Header.Get("Status"); status {
		case "":
		case "204", "404":
			return nil
		default:
			return fmt.Errorf("reading %s: status %s %s", stream, status, msg.Header.Get("Description"))
		}
		seq, _ := strconv.ParseUint(msg.Header.Get("Nats-Sequence"), 10, 64)
		at, _ := time.Parse(time.RFC3339Nano, msg.Header.Get("Nats-Time-Stamp"))
		each(&Message{Subject: msg.Header.Get("Nats-Subject"), Seq: seq, Time: at, Header: msg.Header, Body: msg.Data})
	}
}

// Many returns what is stored on subjects, by subject. What a replica does not have is read from the leader.
func (c *Conn) Many(ctx context.Context, stream string, subjects []string) (map[string]*Message, error) {
	found := make(map[string]*Message, len(subjects))
	for some := range slices.Chunk(subjects, 500) {
		if len(some) > 1 {
			request := map[string]any{"multi_last": some, "batch": len(some)}
			err := c.direct(ctx, stream, request, func(m *Message) { found[m.Subject] = m })
			if ctx.Err() != nil {
				return nil, err
			}
			if err != nil {
				c.Log.Debug("a direct get failed, so the leader is read", "error", err)
			}
		}
		for _, subject := range some {
			if found[subject] != nil {
				continue
			}
			last, err := c.Last(ctx, stream, subject)
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

// After yields the messages below a filter in their order, up to a sequence (0: all). It stops at the first error.
func (c *Conn) After(ctx context.Context, stream, filter string, upTo uint64) func(yield func(*Message, error) bool) {
	return func(yield func(*Message, error) bool) {
		for next := uint64(1); ; {
			var page []*Message
			request := map[string]any{"next_by_subj": filter, "batch": 500, "seq": next}
			if err := c.direct(ctx, stream, request, func(m *Message) { page = append(page, m) }); err != nil {
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
func (c *Conn) Purge(ctx context.Context, stream, filter string) error {
	var read struct{}
	return c.API(ctx, "STREAM.PURGE."+stream, map[string]string{"filter": filter}, &read)
}

// Remove removes one message by its sequence; one that is gone is no error.
func (c *Conn) Remove(ctx context.Context, stream string, seq uint64) error {
	var read struct{}
	err := c.API(ctx, "STREAM.MSG.DELETE."+stream, map[string]any{"seq": seq, "no_erase": true}, &read)
	if Is(err, 10057, 10037, 10043) {
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

// IsLarge tells whether a value has to travel in chunks.
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
		subject := c.Names.Of("value", root, name, strconv.Itoa(number))
		if _, err := c.Store(ctx, &Write{Stream: c.Names.Values(), Subject: subject, Body: chunk}); err != nil {
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
		chunk, err := c.Last(ctx, c.Names.Values(), c.Names.Of("value", root, name, strconv.Itoa(number)))
		if err != nil && !Is(err, 10059) {
			return nil, err
		}
		if chunk == nil {
			return nil, fmt.Errorf("%w: chunk %d of %s", ErrLost, number, ref)
		}
		value = append(value, chunk.Body...)
	}
	if wire.Hash(value) != name[:32] {
		return nil, fmt.Errorf("%w: %s has another hash", ErrLost, ref)
	}
	return value, nil
}
