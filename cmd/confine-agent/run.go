package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/confine-dev/confine/pkg/node/agent"
	"github.com/confine-dev/confine/pkg/node/fetch"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/reason"
	"github.com/confine-dev/confine/pkg/sandbox"
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
	// confine takes from the process all that it has no use for, before it has
	// done anything. It may execute the program anew. nil takes nothing, for
	// tests that share their process.
	confine func(keep []sandbox.Capability) error
}

// flags are the command line.
type flags struct {
	manifests, trust, root, seccompRoot string
	nodeName, kubeconfig                string
	healthAddress, metricsAddress       string
	dockerConfig, caFile                string
	kinds                               []string
	hostRoot                            string
	selinuxPriority                     int
	fetchSocket                         string
	fetchUID                            int
	removalDelay, resync                time.Duration
	once                                bool
	logFormat                           string
}

// selinuxPriority is above that of distributions' modules (100, 200) and below
// that of an administrator's own (400), so that an administrator can override.
const (
	selinuxPriority = 350
	maxPriority     = 999
)

// nodeNameEnv stands for --node-name where no flag says what to follow.
const nodeNameEnv = "NODE_NAME"

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
		Use:   "confine-agent (--manifests DIR --trust DIR | --node-name NAME) --root DIR",
		Short: "Bring signed security profiles to this node, and keep them as they are",
		Long: `Bring signed security profiles to this node, and keep them as they are.

The agent reads SecurityProfiles from one folder and TrustPolicies from another,
or both from a cluster, pulls and verifies what they pin, installs it and repairs
it. What was installed before is asserted again at every start, without a network.

It installs the kinds of profile that --kinds says; payloads of others are judged
and reported as not supported. seccomp needs no privilege. AppArmor and SELinux
profiles are loaded into the kernel, which needs root; in a container it also
needs the host's root at --host-root.

It never speaks to a registry itself: a child process does, without privileges,
which holds the credentials. Of its own privileges it keeps what the kinds need.

With --node-name (or NODE_NAME in the environment) it follows the ProfileNode of
that name and the cluster's TrustPolicies, and reports into the ProfileNode.

Exit codes: 0 it ended as asked; 1 it could not start or work, or, with --once,
not everything is installed as wanted; 2 the command line is wrong.`,
		Args:          cobra.NoArgs,
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logger(p.err, f.logFormat)
			if err == nil {
				err = f.choose(p)
			}
			if err != nil {
				return err
			}
			*ran = true
			return f.work(cmd.Context(), p, log)
		},
	}
	cmd.SetOut(p.out)
	cmd.SetErr(p.err)
	f.add(cmd)
	cmd.AddCommand(prepareCommand(ran), fetchCommand(p, ran))
	return cmd
}

// add adds the flags to a command line.
func (f *flags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.manifests, "manifests", "", "folder of SecurityProfile manifests")
	fs.StringVar(&f.trust, "trust", "", "folder of TrustPolicy manifests, writable by root alone")
	fs.StringVar(&f.nodeName, "node-name", "", "name of this node in its cluster, instead of --manifests and --trust (default $NODE_NAME)")
	fs.StringVar(&f.kubeconfig, "kubeconfig", "", "how to reach the cluster (default: as a pod does)")
	fs.StringVar(&f.healthAddress, "health-address", "", "address of /healthz and /readyz, such as 127.0.0.1:9465 (default: none)")
	fs.StringVar(&f.metricsAddress, "metrics-address", "", "address of /metrics, such as 127.0.0.1:9464 (default: none)")
	fs.StringVar(&f.root, "root", "", "folder of the agent's state (required)")
	fs.StringVar(&f.seccompRoot, "seccomp-root", "", "seccomp folder of the kubelet or runtime (default ROOT/seccomp)")
	fs.StringSliceVar(&f.kinds, "kinds", []string{seccomp.Name}, "kinds of profile to install: some of "+strings.Join(kindWords(), ","))
	fs.StringVar(&f.hostRoot, "host-root", "", "the host's root folder as this process sees it, for kinds that work in the host (default: its own)")
	fs.IntVar(&f.selinuxPriority, "selinux-priority", selinuxPriority, "priority of Confine's modules in the SELinux policy store, 1 to 999")
	fs.StringVar(&f.dockerConfig, "docker-config", "", "docker config file with registry credentials, handed to the fetch child")
	fs.StringVar(&f.caFile, "ca-file", "", "PEM file of certificate authorities accepted beside the system's, handed to the fetch child")
	fs.StringVar(&f.fetchSocket, "fetch-socket", "", "socket to listen on for a fetch child that is started by somebody else (default: start one)")
	fs.IntVar(&f.fetchUID, "fetch-uid", fetch.DefaultUID, "user of the fetch child; where this is not root, one that it starts has its own user")
	fs.DurationVar(&f.removalDelay, "removal-delay", agent.DefaultRemovalDelay, "how long what no manifest wants stays installed")
	fs.DurationVar(&f.resync, "resync", agent.DefaultResync, "how often everything is compared although nothing changed")
	fs.BoolVar(&f.once, "once", false, "converge once and exit")
	fs.StringVar(&f.logFormat, "log-format", "text", "format of the log on stderr: text or json")
}

// choose says whether folders or a cluster are followed.
func (f *flags) choose(p process) error {
	folders := f.manifests != "" || f.trust != ""
	if !folders && f.nodeName == "" {
		f.nodeName, _ = p.lookupEnv(nodeNameEnv)
	}
	switch {
	case folders && f.nodeName != "":
		return errors.New("--node-name follows a cluster, --manifests and --trust follow folders: give one or the other")
	case f.nodeName == "" && (f.manifests == "" || f.trust == ""):
		return errors.New("give --manifests and --trust, or --node-name")
	case f.root == "":
		return errors.New("give --root, the folder of the agent's state")
	case f.nodeName == "" && f.kubeconfig != "":
		return errors.New("--kubeconfig is of use only with --node-name")
	case f.nodeName != "" && f.once:
		return errors.New("--once is for folders: in a cluster there is always more to come")
	case f.hostRoot != "" && !filepath.IsAbs(f.hostRoot):
		return errors.New("--host-root is no absolute path")
	case f.fetchUID <= 0:
		return fmt.Errorf("--fetch-uid %d: the fetch child needs an ordinary user of its own", f.fetchUID)
	case f.fetchSocket != "" && f.dockerConfig+f.caFile != "":
		return errors.New("with --fetch-socket, --docker-config and --ca-file are the fetch child's: give them to confine-agent fetch")
	case f.selinuxPriority < 1 || f.selinuxPriority > maxPriority:
		return fmt.Errorf("--selinux-priority %d: only 1 to %d are priorities", f.selinuxPriority, maxPriority)
	}
	return checkKinds(f.kinds)
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
