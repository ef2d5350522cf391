package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/registry"
	"github.com/confine-dev/confine/pkg/node/agent"
	"github.com/confine-dev/confine/pkg/node/safedir"
	"github.com/confine-dev/confine/pkg/node/sdnotify"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/kinds"
	"github.com/confine-dev/confine/pkg/profile/seccomp/compile"
	"github.com/confine-dev/confine/pkg/profile/seccomp/host"
	"github.com/confine-dev/confine/pkg/reason"
	"github.com/confine-dev/confine/pkg/version"
)

// Exit codes, as the help says.
const (
	exitOK      = 0
	exitRefused = 1
	exitUsage   = 2
)

// What the garbage collector aims at: the limit is no hard bound, and the
// percentage trades a little time for a small idle agent.
const (
	memoryLimit = 256 << 20
	gcPercent   = 40
)

// process is what the agent has from the one it runs as.
type process struct {
	out, err  io.Writer
	lookupEnv func(string) (string, bool)
	pid       int
}

// flags are the command line.
type flags struct {
	manifests, trust, root, seccompRoot string
	dockerConfig, caFile                string
	removalDelay, resync                time.Duration
	once                                bool
	logFormat                           string
}

// errNotAsWanted makes --once fail without a message of its own.
var errNotAsWanted = errors.New("not everything is installed as wanted")

func run(ctx context.Context, args []string, p process) int {
	ran := false
	cmd := command(p, &ran)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if e, ok := reason.Of(err); ok {
		fmt.Fprintf(p.err, "confine-agent: %v\n  what to do: %s\n", e, e.WhatToDo())
	} else {
		fmt.Fprintf(p.err, "confine-agent: %v\n", err)
	}
	if !ran {
		return exitUsage
	}
	return exitRefused
}

func command(p process, ran *bool) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "confine-agent --manifests DIR --trust DIR --root DIR",
		Short: "Bring signed security profiles to this node, and keep them as they are",
		Long: `Bring signed security profiles to this node, and keep them as they are.

The agent reads SecurityProfiles from one folder and TrustPolicies from another,
pulls and verifies what they pin, installs it and repairs it. What was installed
before is asserted again at every start, without a network.

Exit codes: 0 it ended as asked; 1 it could not start or work, or, with --once,
not everything is installed as wanted; 2 the command line is wrong.`,
		Args:          cobra.NoArgs,
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logger(p.err, f.logFormat)
			if err != nil {
				return err
			}
			*ran = true
			return f.work(cmd.Context(), p, log)
		},
	}
	cmd.SetOut(p.out)
	cmd.SetErr(p.err)
	fs := cmd.Flags()
	fs.StringVar(&f.manifests, "manifests", "", "folder of SecurityProfile manifests (required)")
	fs.StringVar(&f.trust, "trust", "", "folder of TrustPolicy manifests, writable by root alone (required)")
	fs.StringVar(&f.root, "root", "", "folder of the agent's state (required)")
	fs.StringVar(&f.seccompRoot, "seccomp-root", "", "seccomp folder of the kubelet or runtime (default ROOT/seccomp)")
	fs.StringVar(&f.dockerConfig, "docker-config", "", "docker config file with registry credentials")
	fs.StringVar(&f.caFile, "ca-file", "", "PEM file of certificate authorities accepted beside the system's")
	fs.DurationVar(&f.removalDelay, "removal-delay", agent.DefaultRemovalDelay, "how long what no manifest wants stays installed")
	fs.DurationVar(&f.resync, "resync", agent.DefaultResync, "how often everything is compared although nothing changed")
	fs.BoolVar(&f.once, "once", false, "converge once and exit")
	fs.StringVar(&f.logFormat, "log-format", "text", "format of the log on stderr: text or json")
	for _, name := range []string{"manifests", "trust", "root"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // a flag of that name stands above
		}
	}
	return cmd
}

func logger(w io.Writer, format string) (*slog.Logger, error) {
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, nil)), nil
	}
	return nil, fmt.Errorf("--log-format %q: only text and json are known", format)
}

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
	if err := safedir.Check(f.trust); err != nil {
		return err
	}
	debug.SetMemoryLimit(memoryLimit)
	debug.SetGCPercent(gcPercent)
	opts, err := f.options(ctx, p, log)
	if err != nil {
		return err
	}
	if !f.once {
		opts.Changes = agent.Watch(ctx, log, f.manifests, f.trust)
	}
	a, err := agent.New(opts)
	if err != nil {
		return err
	}
	if !f.once {
		log.Info("started", "version", version.String(), "root", f.root)
		return errors.Join(a.Run(ctx), a.Close())
	}
	report, err := a.Once(ctx)
	return errors.Join(err, a.Close(), complain(p.err, report))
}

func (f flags) options(ctx context.Context, p process, log *slog.Logger) (agent.Options, error) {
	remote, err := registry.New(registry.Options{
		DockerConfig: f.dockerConfig, CAFile: f.caFile, UserAgent: "confine-agent/" + version.String(), Log: log,
	})
	if err != nil {
		return agent.Options{}, err
	}
	seccompRoot := f.seccompRoot
	if seccompRoot == "" {
		seccompRoot = filepath.Join(f.root, "seccomp")
	}
	seccompHost, err := host.New(host.Options{Root: seccompRoot})
	if err != nil {
		return agent.Options{}, err
	}
	socket, _ := p.lookupEnv("NOTIFY_SOCKET")
	delay := f.removalDelay
	if delay == 0 {
		delay = -1 // zero means the default there
	}
	return agent.Options{
		Root: f.root,
		Source: agent.Folders{
			Manifests: f.manifests, TrustDir: f.trust,
			Puller: artifact.NewPuller(artifact.PullerOptions{Kinds: kinds.All(compile.Resolver())}),
		},
		Hosts:  []profile.Host{seccompHost},
		Remote: remote, RemovalDelay: delay, Resync: f.resync, Log: log,
		Watchdog: sdnotify.WatchdogEvery(p.lookupEnv, p.pid),
		Notify: func(state string) {
			// Not with ctx: that it stops is said after ctx has ended.
			if err := sdnotify.Notify(context.WithoutCancel(ctx), socket, state); err != nil {
				log.Warn("systemd was not told", "state", state, "error", err)
			}
		},
	}, nil
}

// complain says what --once could not bring about.
func complain(w io.Writer, report status.Report) error {
	bad := 0
	for _, p := range report.Profiles {
		if p.Origin == "" || p.AsWanted() {
			continue
		}
		bad++
		for _, t := range []status.ConditionType{status.Verified, status.Ready} {
			if c := p.Condition(t); c.Status != status.True {
				fmt.Fprintf(w, "%s (%s): %s=%s %s: %s\n", p.Owner, p.Origin, c.Type, c.Status, c.Reason, c.Message)
			}
		}
	}
	for _, problem := range report.Problems {
		fmt.Fprintf(w, "%s: %s: %s\n", problem.Origin, problem.Reason, problem.Message)
	}
	if bad+len(report.Problems) > 0 {
		return fmt.Errorf("%w: %s", errNotAsWanted, strings.TrimSuffix(fmt.Sprintf("%d of %d profiles, %d problems", bad, len(report.Profiles), len(report.Problems)), ", 0 problems"))
	}
	return nil
}
