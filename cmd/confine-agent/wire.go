package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/node/agent"
	"github.com/confine-dev/confine/pkg/node/cluster"
	"github.com/confine-dev/confine/pkg/node/fetch"
	"github.com/confine-dev/confine/pkg/node/safedir"
	"github.com/confine-dev/confine/pkg/node/sdnotify"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/node/telemetry"
	"github.com/confine-dev/confine/pkg/profile/kinds"
	"github.com/confine-dev/confine/pkg/profile/seccomp/compile"
	"github.com/confine-dev/confine/pkg/reason"
	"github.com/confine-dev/confine/pkg/version"
)

// work wires the agent and lets it run.
func (f flags) work(ctx context.Context, p process, log *slog.Logger) error {
	if !compile.Available() {
		return reason.New(reason.KindUnsupported, "libseccomp", "this agent was built without libseccomp, so it cannot tell whether deny rules take effect").
			WithAdvice("use a release, or build with -tags libseccomp")
	}
	if f.removalDelay < 0 || f.resync <= 0 {
		return reason.New(reason.InstallFailed, "flags", "--removal-delay %v or --resync %v makes no sense", f.removalDelay, f.resync).
			WithAdvice("give a --removal-delay of at least 0s and a --resync above it")
	}
	if p.confine != nil {
		if err := p.confine(f.capabilities()); err != nil {
			return err
		}
	}
	debug.SetMemoryLimit(memoryLimit)
	debug.SetGCPercent(gcPercent)
	opts, err := f.options(log)
	if err != nil {
		return err
	}
	remote, err := f.fetchChild(ctx, log)
	if err != nil {
		return err
	}
	opts.Remote = remote
	return errors.Join(f.run(ctx, p, opts), remote.Close())
}

// run lets the agent do what the flags say.
func (f flags) run(ctx context.Context, p process, opts agent.Options) error {
	puller := artifact.NewPuller(artifact.PullerOptions{Kinds: kinds.All(compile.Resolver())})
	if f.nodeName != "" {
		return f.follow(ctx, p, opts, puller)
	}
	if err := safedir.Check(f.trust); err != nil {
		return err
	}
	opts.Source = agent.Folders{Manifests: f.manifests, TrustDir: f.trust, Puller: puller}
	if !f.once {
		opts.Changes = agent.Watch(ctx, opts.Log, f.manifests, f.trust)
		return f.serve(ctx, p, opts, func() bool { return true })
	}
	a, err := agent.New(opts)
	if err != nil {
		return err
	}
	report, err := a.Once(ctx)
	return errors.Join(err, a.Close(), complain(p.err, report))
}

// options are those that folders and a cluster have in common.
func (f flags) options(log *slog.Logger) (agent.Options, error) {
	hosts, err := f.hosts(log)
	if err != nil {
		return agent.Options{}, err
	}
	delay := f.removalDelay
	if delay == 0 {
		delay = -1 // zero means the default there
	}
	return agent.Options{
		Root: f.root, Hosts: hosts,
		RemovalDelay: delay, Resync: f.resync, Log: log,
	}, nil
}

// fetchChild starts what speaks to registries, or waits for it to connect. What
// it needs is opened once, so that a wrong path is said at once; it is not read.
func (f flags) fetchChild(ctx context.Context, log *slog.Logger) (*fetch.Remote, error) {
	for flag, path := range map[string]string{"--docker-config": f.dockerConfig, "--ca-file": f.caFile} {
		if path == "" {
			continue
		}
		file, err := os.Open(path)
		if err != nil {
			return nil, reason.New(reason.InstallFailed, flag, "%w", err).WithAdvice("name a file that the agent's user can read")
		}
		if err := file.Close(); err != nil {
			return nil, err
		}
	}
	return fetch.Start(ctx, fetch.Options{
		Socket: f.fetchSocket, UID: f.fetchUID, DockerConfig: f.dockerConfig, CAFile: f.caFile, Log: log,
	})
}

func userAgent() string { return "confine-agent/" + version.String() }

// follow runs the agent on what a cluster says.
func (f flags) follow(ctx context.Context, p process, opts agent.Options, puller agent.Puller) error {
	klog.SetSlogLogger(opts.Log) // what client-go says
	config, err := f.restConfig()
	if err != nil {
		return reason.New(reason.InstallFailed, "API server", "%w", err).
			WithAdvice("run the agent in a cluster, or give a --kubeconfig that works")
	}
	config.UserAgent = userAgent()
	client, err := cluster.Connect(config)
	if err != nil {
		return err
	}
	source, err := cluster.New(cluster.Options{Client: client, Node: f.nodeName, Root: f.root, Puller: puller, Log: opts.Log})
	if err != nil {
		return err
	}
	opts.Source, opts.Changes, opts.Reported = source, source.Changes(), source.Report
	ctx, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { source.Run(ctx) })
	err = f.serve(ctx, p, opts, source.Synced)
	stop()
	watching.Wait()
	return errors.Join(err, source.Close())
}

func (f flags) restConfig() (*rest.Config, error) {
	if f.kubeconfig == "" {
		return rest.InClusterConfig()
	}
	return clientcmd.BuildConfigFromFlags("", f.kubeconfig)
}

// serve lets the agent run, and answers who asks for its health and metrics.
func (f flags) serve(ctx context.Context, p process, opts agent.Options, synced func() bool) error {
	ctx, stop := context.WithCancel(ctx)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer stop()
	told := telemetry.New(synced)
	for _, s := range []struct {
		address string
		handler http.Handler
	}{{f.healthAddress, told.Health()}, {f.metricsAddress, told.Metrics()}} {
		if s.address == "" {
			continue
		}
		serving.Go(func() { telemetry.ServeWhenFree(ctx, s.address, s.handler, opts.Log) })
	}
	reported := opts.Reported
	opts.Reported = func(r status.Report, busy bool) {
		told.Report(r, busy)
		if reported != nil {
			reported(r, busy)
		}
	}
	opts.Pulled = told.Pulled
	opts.Watchdog, opts.Notify = f.notify(ctx, p, opts.Log, told)
	a, err := agent.New(opts)
	if err != nil {
		return err
	}
	opts.Log.Info("started", "version", version.String(), "root", f.root)
	return errors.Join(a.Run(ctx), a.Close())
}

// notify tells the service manager and the health endpoint that the loop runs,
// as often as either wants to know.
func (f flags) notify(ctx context.Context, p process, log *slog.Logger, told *telemetry.Telemetry) (time.Duration, func(string)) {
	socket, _ := p.lookupEnv("NOTIFY_SOCKET")
	every := sdnotify.WatchdogEvery(p.lookupEnv, p.pid)
	if f.healthAddress != "" && (every == 0 || every > telemetry.Watchdog) {
		every = telemetry.Watchdog
	}
	ready := false
	return every, func(state string) {
		told.Notify(state)
		if ready = ready || state == agent.StateReady; !ready && state == agent.StateAlive {
			// To compile many profiles after a reboot may take longer than the
			// manager waits for a start; sd_notify(3).
			state += fmt.Sprintf("\nEXTEND_TIMEOUT_USEC=%d", (2 * max(every, telemetry.Watchdog)).Microseconds())
		}
		// Not with ctx: that it stops is said after ctx has ended.
		if err := sdnotify.Notify(context.WithoutCancel(ctx), socket, state); err != nil {
			log.Warn("systemd was not told", "state", state, "error", err)
		}
	}
}
