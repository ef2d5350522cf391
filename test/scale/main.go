// Command scale measures a large fleet: the agent's real code for each of many
// simulated nodes, the real controller, a real API server and a registry on
// loopback. Nodes and their agent pods are objects alone; the state of each
// agent is a folder in memory. All of it shares this machine, so times say how
// much work there is and not how fast a fleet is.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"k8s.io/klog/v2"
)

type options struct {
	controller string
	nodes      int
	profiles   int
	timeout    time.Duration
	folder     string
	verbose    bool
}

func main() {
	var o options
	flag.StringVar(&o.controller, "controller", "bin/confine-controller", "the controller's program")
	flag.IntVar(&o.nodes, "nodes", 1000, "simulated nodes")
	flag.IntVar(&o.profiles, "profiles", 100, "SecurityProfiles, each of an artifact of its own")
	flag.DurationVar(&o.timeout, "timeout", 30*time.Minute, "how long all may take")
	flag.StringVar(&o.folder, "folder", "/dev/shm", "where the agents' folders are made; in memory, so that one disk is not what is measured")
	flag.BoolVar(&o.verbose, "v", false, "print what the controller logs")
	flag.Parse()
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // of 1,000 clients
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	err := run(ctx, o)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp(o.folder, "confine-scale-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s, err := build(ctx, dir, o)
	if err != nil {
		return err
	}
	defer s.close()
	fmt.Printf("%d nodes, %d profiles: the agent's own code for each node in one process, the built controller, kube-apiserver and etcd, one registry\n\n", o.nodes, o.profiles)

	fmt.Printf("%-34s %10s %10s %10s %10s %10s %9s %9s\n", "batch", "spec/node", "status/node", "p50", "p99", "all", "requests", "API writes")
	for _, b := range []batch{
		{name: "all profiles at once, one wave", artifact: 0, profiles: o.profiles, wave: "100%"},
		{name: "a tenth of them, in waves of 25%", artifact: 1, profiles: max(1, o.profiles/10), wave: "25%"},
		{name: "the same ones back, one wave", artifact: 0, profiles: max(1, o.profiles/10), wave: "100%"},
	} {
		if err := s.measure(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	return s.summary(ctx)
}
