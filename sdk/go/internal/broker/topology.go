package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// MinServer is the oldest server that does all that is needed.
const MinServer = "2.14.3"

const (
	edition, editionKey = "2", "jetflow_edition"
	layout, layoutKey   = "1", "jetflow_layout"
)

// StreamOptions say how streams are made that do not exist.
type StreamOptions struct {
	Replicas int
	MaxBytes int64
}

type config map[string]any

func (c *Conn) streams(options StreamOptions) []config {
	n := c.Names
	jf, month := "jf."+n.Namespace+".", 30*24*time.Hour
	once := func(name string, more config, subjects ...string) config {
		made := config{
			"name": name, "subjects": subjects, "max_msgs_per_subject": 1, "max_age": month, "allow_direct": true,
			"discard": "new", "discard_new_per_subject": true, "allow_batched": true, "allow_atomic": true,
			"duplicate_window": 2 * time.Minute,
		}
		for name, value := range more {
			made[name] = value
		}
		return made
	}
	var records []string
	for _, kind := range []string{"run", "step", "join", "mark", "try", "once"} {
		records = append(records, jf+kind+".>")
	}
	ended := map[string]string{"src": jf + "run.*.-.-.*", "dest": jf + "live.run.{{wildcard(1)}}.-.-.{{wildcard(2)}}"}
	cancel := map[string]string{"src": jf + "cancel.>", "dest": jf + "live.cancel.>"}
	all := []config{
		once(n.Tasks(), config{"max_consumers": 100_000, "republish": cancel}, jf+"task.>", jf+"cancel.>"),
		once(n.Records(), config{"republish": ended}, records...),
		{"name": n.Timers(), "subjects": []string{jf + "timer.>", jf + "due.>"}, "retention": "workqueue", "discard": "old",
			"allow_direct": true, "allow_msg_schedules": true, "allow_msg_ttl": true, "allow_atomic": true, "allow_batched": true},
		{"name": n.Counters(), "subjects": []string{"$KV.jf_" + n.Namespace + "_counters.>"}, "max_msgs_per_subject": 1,
			"max_age": month, "allow_direct": true, "allow_msg_counter": true},
		{"name": n.Workflows(), "subjects": []string{"$KV.jf_" + n.Namespace + "_workflows.>"}, "max_msgs_per_subject": 1,
			"allow_direct": true},
		{"name": n.Inbox(), "subjects": []string{jf + "in.>"}, "retention": "workqueue", "discard": "new"},
		once(n.Values(), nil, jf+"value.>"),
	}
	for _, one := range all {
		one["storage"], one["metadata"] = "file", map[string]string{editionKey: edition, layoutKey: layout}
		one["num_replicas"] = max(1, options.Replicas)
		if one["retention"] == nil {
			one["retention"] = "limits"
		}
		if options.MaxBytes > 0 && one["discard"] == "new" {
			one["max_bytes"] = options.MaxBytes
		}
	}
	return all
}

// Provision makes the streams that are missing, and refuses those that are of something else.
func (c *Conn) Provision(ctx context.Context, options StreamOptions) error {
	if err := newEnough(c.NC.ConnectedServerVersion()); err != nil {
		return err
	}
	for _, stream := range c.streams(options) {
		if err := c.provision(ctx, stream); err != nil {
			return err
		}
	}
	return nil
}

func newEnough(version string) error {
	var have, want [3]int
	if _, err := fmt.Sscanf(version, "%d.%d.%d", &have[0], &have[1], &have[2]); err != nil {
		return nil // it is of no release: it must know itself
	}
	_, _ = fmt.Sscanf(MinServer, "%d.%d.%d", &want[0], &want[1], &want[2])
	for at := range have {
		if have[at] != want[at] {
			if have[at] < want[at] {
				return fmt.Errorf("jetflow: the server is NATS %s: use %s or newer", version, MinServer)
			}
			return nil
		}
	}
	return nil
}

func (c *Conn) provision(ctx context.Context, stream config) error {
	name := stream["name"].(string)
	var found struct {
		Config struct {
			Subjects  []string
			Republish map[string]any
			Metadata  map[string]string
		}
	}
	err := c.API(ctx, "STREAM.INFO."+name, struct{}{}, &found)
	if Is(err, 10059) {
		err = c.API(ctx, "STREAM.CREATE."+name, stream, &found)
		if Is(err, 10026) && stream["max_consumers"] != nil { // the account allows fewer
			delete(stream, "max_consumers")
			err = c.API(ctx, "STREAM.CREATE."+name, stream, &found)
		}
		if Is(err, 10027) && name == c.Names.Values() {
			c.noValues.Store(true)
			return nil
		}
		if Is(err, 10058) { // somebody else was faster
			err = c.API(ctx, "STREAM.INFO."+name, struct{}{}, &found)
		}
	}
	if err != nil {
		return fmt.Errorf("jetflow: the stream %s is not there, and cannot be made: %w", name, err)
	}
	refuse := func(what string) error {
		return fmt.Errorf("jetflow: the stream %s %s: use another namespace, or delete its streams", name, what)
	}
	if found.Config.Metadata[editionKey] != edition {
		return refuse(fmt.Sprintf("is of edition %q of the wire format, not %q", found.Config.Metadata[editionKey], edition))
	}
	if !reflect.DeepEqual(found.Config.Subjects, stream["subjects"]) {
		return refuse(fmt.Sprintf("has the subjects %v", found.Config.Subjects))
	}
	wanted, _ := stream["republish"].(map[string]string)
	for key, value := range wanted {
		if found.Config.Republish[key] != value {
			return refuse("republishes otherwise")
		}
	}
	if wanted == nil && found.Config.Republish != nil {
		return refuse("republishes")
	}
	return nil
}

// Consumer makes the consumer of a step if it is missing, and returns its ack_wait. maxRunning is -1 for no limit.
func (c *Conn) Consumer(ctx context.Context, workflow, step string, maxRunning int) (Consumer, error) {
	stream, name := c.Names.Tasks(), workflow+"="+step
	var found struct {
		Created time.Time
		Config  json.RawMessage
	}
	filter := c.Names.Of("task", workflow, step, ">")
	set := config{
		"durable_name": name, "name": name, "filter_subject": filter, "ack_policy": "explicit", "deliver_policy": "all",
		"ack_wait": 5 * time.Second, "max_ack_pending": maxRunning, "max_deliver": -1, "max_waiting": 4096,
	}
	var kept struct {
		AckWait       time.Duration   `json:"ack_wait"`
		Backoff       []time.Duration `json:"backoff"`
		MaxAckPending int             `json:"max_ack_pending"`
	}
	create := "CONSUMER.CREATE." + stream + "." + name + "." + filter
	err := c.API(ctx, "CONSUMER.INFO."+stream+"."+name, struct{}{}, &found)
	if Is(err, 10014) {
		err = c.API(ctx, create, map[string]any{"stream_name": stream, "config": set}, &found)
	}
	if err == nil {
		err = json.Unmarshal(found.Config, &kept)
	}
	if err == nil && kept.MaxAckPending != maxRunning {
		set = config{}
		if err = json.Unmarshal(found.Config, &set); err == nil {
			set["max_ack_pending"] = maxRunning
			err = c.API(ctx, create, map[string]any{"stream_name": stream, "config": set, "action": "update"}, &found)
		}
	}
	if err != nil {
		return Consumer{}, fmt.Errorf("jetflow: the consumer %s cannot be made: %w", name, err)
	}
	wait := kept.AckWait
	for _, pause := range kept.Backoff {
		wait = min(wait, pause)
	}
	return Consumer{Workflow: workflow, Step: step, AckWait: wait, Created: found.Created}, nil
}

// Consumers returns the steps of a workflow that have consumers.
func (c *Conn) Consumers(ctx context.Context, workflow string) (steps []string, err error) {
	for offset := 0; ; {
		var read struct {
			Total     int
			Consumers []string
		}
		if err := c.API(ctx, "CONSUMER.NAMES."+c.Names.Tasks(), map[string]int{"offset": offset}, &read); err != nil {
			return nil, err
		}
		for _, name := range read.Consumers {
			if step, is := strings.CutPrefix(name, workflow+"="); is {
				steps = append(steps, step)
			}
		}
		offset += len(read.Consumers)
		if len(read.Consumers) == 0 || offset >= read.Total {
			return steps, nil
		}
	}
}

// Consumer is that of one step.
type Consumer struct {
	Workflow, Step string
	AckWait        time.Duration
	Created        time.Time
}

// ErrGone says that a consumer does not exist any more.
var ErrGone = errors.New("the consumer is gone")
