// Command confine-agent brings the security profiles that manifests want to
// this node: pulled, verified, installed, and kept as they are.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], process{out: os.Stdout, err: os.Stderr, lookupEnv: os.LookupEnv, pid: os.Getpid(), confine: confine})
	stop()
	os.Exit(code)
}
