// Command confine packs, signs, pushes, verifies and shows security profiles.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/klog/v2"

	"github.com/confine-dev/confine/cmd/confine/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)                      // a second interrupt ends what does not listen
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // what client-go says comes back as errors too
	code := cli.Run(ctx, os.Args, cli.SystemStreams())
	stop()
	os.Exit(code)
}
