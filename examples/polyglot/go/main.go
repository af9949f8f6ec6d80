// A worker of the workflow lines: it reads a file, counts its lines and takes its digest. It ends when its standard
// input does, and so with the program that has started it.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"os"

	"jetflow.dev/go"
)

type measured struct {
	Lines  int    `json:"lines"`
	SHA256 string `json:"sha256"`
}

func lines(_ *jetflow.Ctx, path string) (measured, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return measured{}, err
	}
	digest := sha256.Sum256(text)
	return measured{bytes.Count(text, []byte("\n")), hex.EncodeToString(digest[:])}, nil
}

func main() {
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	client, err := jetflow.Connect(ctx, "", jetflow.Namespace("polyglot")) // at NATS_URL
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	flows := []jetflow.Flow{jetflow.Define("lines", lines)}
	worker, err := jetflow.NewWorker(client, flows, jetflow.OnReady(func() { fmt.Println("ready") }))
	if err != nil {
		log.Fatal(err)
	}
	if err := worker.Run(ctx); err != nil {
		log.Fatal(err)
	}
}
