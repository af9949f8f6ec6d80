package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	"jetflow.dev/go"
)

type command struct {
	ID       int             `json:"id"`
	Do       string          `json:"do"`
	Workflow string          `json:"workflow"`
	Input    json.RawMessage `json:"input"`
	Key      *string         `json:"key"`
	Metadata json.RawMessage `json:"metadata"`
	Run      string          `json:"run"`
	Tree     *bool           `json:"tree"`
}

// serve does what lines on standard input ask for, each by itself, until it ends: then who has started this is gone.
func serve(ctx context.Context, client *jetflow.Client, stop func()) {
	defer stop()
	var lock sync.Mutex
	out := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var asked command
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			asked.Do = "line that is no JSON"
		}
		go func() {
			said, err := asked.answer(ctx, client)
			if err != nil {
				said = map[string]any{"error": "Error", "message": err.Error()}
				var fault *jetflow.Error
				if errors.As(err, &fault) {
					said["error"] = fault.Type
				}
			}
			said["id"] = asked.ID
			lock.Lock()
			defer lock.Unlock()
			_ = out.Encode(said) // who reads it is gone, if it fails
		}()
	}
}

func (c command) answer(ctx context.Context, client *jetflow.Client) (map[string]any, error) {
	switch c.Do {
	case "trigger":
		var options []jetflow.TriggerOption
		if c.Key != nil {
			options = append(options, jetflow.WithKey(*c.Key))
		}
		if len(c.Metadata) > 0 && string(c.Metadata) != "null" {
			options = append(options, jetflow.WithMetadata(c.Metadata))
		}
		run, err := jetflow.TriggerByName[json.RawMessage](ctx, client, c.Workflow, c.Input, options...)
		if err != nil {
			return nil, err
		}
		return map[string]any{"run": run.ID}, nil
	case "result":
		run, err := jetflow.RunByID[json.RawMessage](client, c.Run)
		if err != nil {
			return nil, err
		}
		limited, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		output, err := run.Result(limited)
		var failed *jetflow.RunFailed
		if errors.As(err, &failed) {
			return map[string]any{"status": failed.Status}, nil
		}
		return map[string]any{"status": "succeeded", "output": output}, err
	case "cancel":
		cancelled, err := client.Cancel(ctx, c.Run, c.Tree == nil || *c.Tree)
		return map[string]any{"cancelled": cancelled}, err
	case "delete":
		return map[string]any{}, client.Delete(ctx, c.Run)
	}
	return map[string]any{"error": "UnknownCommand", "message": c.Do}, nil
}
