// Command demo shows Confine's main job on this machine, with the real
// programs and the real kernel: push, sign, pull, verify, install, enforce,
// refuse. It exits non-zero if any step did not do what it says.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"
)

// limit bounds the whole demo, so that a hang is a failure.
const limit = 3 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ctx, cancel := context.WithTimeout(ctx, limit)
	err := run(ctx, os.Args[1:])
	cancel()
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\nthe demo FAILED: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: demo BIN-FOLDER EXAMPLES-FOLDER")
	}
	s, err := newStage(ctx, args[0], args[1])
	if err != nil {
		return err
	}
	defer s.close()
	start := time.Now()
	for _, act := range []func(context.Context) error{
		s.pushAndSign, s.install, s.enforce, s.roll, s.refuse, s.withoutRegistry,
	} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	fmt.Printf("\nAll of it did what it says, in %s.\n", time.Since(start).Round(100*time.Millisecond))
	return nil
}
