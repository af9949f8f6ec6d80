package broker

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// minServer is the oldest server that does all that is needed.
var minServer = [3]int{2, 14, 3}

// StreamOptions say how streams are made that do not exist.
type StreamOptions struct {
	Replicas int
	MaxBytes int64
}

// topology is docs/topology.json.
//
//go:embed topology.json
var topology string

type config = map[string]any

// topology returns how the streams, and the consumer of a step, are made.
func (c *Conn) topology(workflow, step string) (streams []config, consumer config) {
	var read struct {
		Streams   []config
		Consumers []struct{ Config config }
	}
	names := strings.NewReplacer("NAMESPACE", c.Namespace, "WORKFLOW", workflow, "STEP", step)
	if err := json.Unmarshal([]byte(names.Replace(topology)), &read); err != nil {
		panic(err) // the names are checked
	}
	return read.Streams, read.Consumers[0].Config
}

// Provision makes the streams that are missing, and refuses those that are of something else.
func (c *Conn) Provision(ctx context.Context, options StreamOptions) error {
	var version [3]int
	said := c.NC.ConnectedServerVersion()
	_, err := fmt.Sscanf(said, "%d.%d.%d", &version[0], &version[1], &version[2])
	if err == nil && slices.Compare(version[:], minServer[:]) < 0 { // one of no release must know itself
		return fmt.Errorf("jetflow: the server is NATS %s: use %v or newer", said, minServer)
	}
	streams, _ := c.topology("", "")
	for _, stream := range streams {
		stream["num_replicas"] = max(1, options.Replicas)
		if options.MaxBytes > 0 && stream["discard"] == "new" {
			stream["max_bytes"] = options.MaxBytes
		}
		if err := c.provision(ctx, stream["name"].(string), stream); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) provision(ctx context.Context, name string, stream config) error {
	var found struct{ Config config }
	err := c.API(ctx, "STREAM.INFO."+name, struct{}{}, &found)
	if Is(err, 10059) {
		err = c.API(ctx, "STREAM.CREATE."+name, stream, &found)
		if Is(err, 10026) { // the account allows fewer
			delete(stream, "max_consumers")
			err = c.API(ctx, "STREAM.CREATE."+name, stream, &found)
		}
		if Is(err, 10027) && name == c.Stream(c.Of("value")) {
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
	has, wants := found.Config, stream
	edition := func(of config) any {
		metadata, _ := of["metadata"].(config)
		return metadata["jetflow_edition"]
	}
	switch {
	case edition(has) != edition(wants):
		err = fmt.Errorf("is of edition %v of the wire format, not %v", edition(has), edition(wants))
	case !reflect.DeepEqual(has["subjects"], wants["subjects"]):
		err = fmt.Errorf("has the subjects %v", has["subjects"])
	case !reflect.DeepEqual(has["republish"], wants["republish"]):
		err = fmt.Errorf("republishes %v", has["republish"])
	default:
		return nil
	}
	return fmt.Errorf("jetflow: the stream %s %w: use another namespace, or delete its streams", name, err)
}

// Consumer is that of one step.
type Consumer struct {
	Workflow, Step string
	AckWait        time.Duration
	Created        time.Time
}

// Consumer makes the consumer of a step if it is missing. maxRunning is -1 for no limit.
func (c *Conn) Consumer(ctx context.Context, workflow, step string, maxRunning int) (Consumer, error) {
	var found struct {
		Created time.Time
		Config  json.RawMessage
	}
	var kept struct {
		AckWait       time.Duration   `json:"ack_wait"`
		Backoff       []time.Duration `json:"backoff"`
		MaxAckPending int             `json:"max_ack_pending"`
	}
	_, set := c.topology(workflow, step)
	stream, name := c.Stream(c.Of("task")), set["name"].(string)
	put := func(action string) error {
		set["max_ack_pending"] = maxRunning
		create := "CONSUMER.CREATE." + stream + "." + name + "." + set["filter_subject"].(string)
		return c.API(ctx, create, config{"stream_name": stream, "config": set, "action": action}, &found)
	}
	err := c.API(ctx, "CONSUMER.INFO."+stream+"."+name, struct{}{}, &found)
	if Is(err, 10014) {
		err = put("")
	}
	if err == nil {
		err = json.Unmarshal(found.Config, &kept)
	}
	if err == nil && kept.MaxAckPending != maxRunning {
		set = config{}
		if err = json.Unmarshal(found.Config, &set); err == nil {
			err = put("update")
		}
	}
	if err != nil {
		return Consumer{}, fmt.Errorf("jetflow: the consumer %s cannot be made: %w", name, err)
	}
	return Consumer{workflow, step, slices.Min(append(kept.Backoff, kept.AckWait)), found.Created}, nil
}

// Consumers returns the steps of a workflow that have consumers.
func (c *Conn) Consumers(ctx context.Context, workflow string) (steps []string, err error) {
	for offset := 0; ; {
		var read struct {
			Total     int
			Consumers []string
		}
		if err := c.API(ctx, "CONSUMER.NAMES."+c.Stream(c.Of("task")), config{"offset": offset}, &read); err != nil {
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
