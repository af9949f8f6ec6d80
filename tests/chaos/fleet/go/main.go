// A worker in Go of the chaos run: it has the names and inputs of most of the workflows in tests/chaos/load.py, so that
// any worker may carry on what another one has begun.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"jetflow.dev/go"
)

func number(name string) float64 {
	found, err := strconv.ParseFloat(os.Getenv(name), 64)
	if err != nil {
		log.Fatal(name, ": ", err)
	}
	return found
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	for ctx.Err() == nil {
		if err := run(ctx); err != nil { // the servers are down at this moment
			log.Print("the worker could not start: ", err)
			time.Sleep(300 * time.Millisecond)
		}
	}
}

func run(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client, err := jetflow.Connect(bounded, "", jetflow.Namespace(os.Getenv("NAMESPACE")))
	if err != nil {
		return err
	}
	defer client.Close()
	worker, err := jetflow.NewWorker(client, load(), jetflow.Slots(int(number("SLOTS"))),
		jetflow.ParkAfter(seconds(number("PARK_AFTER"))), jetflow.Grace(2*time.Second),
		jetflow.OnReady(func() { fmt.Println("ready") }))
	if err != nil {
		return err
	}
	return worker.Run(ctx)
}
