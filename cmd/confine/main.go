// Command confine packs, signs, pushes, verifies and shows security profiles.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/confine-dev/confine/cmd/confine/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt ends what does not listen
	code := cli.Run(ctx, os.Args, cli.SystemStreams())
	stop()
	os.Exit(code)
}
