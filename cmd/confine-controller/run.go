package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/confine-dev/confine/pkg/controller"
	"github.com/confine-dev/confine/pkg/version"
)

// Exit codes, as the help says.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// gcPercent trades a little time for memory: reading a whole fleet makes much
// garbage once.
const gcPercent = 50

// process is what the controller has from the one it runs as.
type process struct {
	out, err  io.Writer
	lookupEnv func(string) (string, bool)
}

// flags are the command line.
type flags struct {
	kubeconfig, namespace, agents string
	metrics, health               string
	leaderElect                   bool
	leaseDuration                 time.Duration
	logFormat, logLevel           string
}

func run(ctx context.Context, args []string, p process) int {
	ran := false
	cmd := command(p, &ran)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitOK
	case !ran:
		fmt.Fprintf(p.err, "confine-controller: %v\n", err)
		return exitUsage
	}
	fmt.Fprintf(p.err, "confine-controller: %v\n", err)
	return exitFailed
}

func command(p process, ran *bool) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "confine-controller",
		Short: "Roll security profiles out to the nodes of a cluster, in waves",
		Long: `Roll security profiles out to the nodes of a cluster, in waves, and sum up what
the nodes report. The controller contacts the API server alone: no registry, and
no node.

Exit codes: 0 it ended as asked; 1 it could not start, or lost its lease; 2 the
command line is wrong.`,
		Args:          cobra.NoArgs,
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := f.logger(p.err)
			if err != nil {
				return err
			}
			opts, err := f.options(p, log)
			if err != nil {
				return err
			}
			*ran = true
			return f.work(cmd.Context(), p, opts)
		},
	}
	cmd.SetOut(p.out)
	cmd.SetErr(p.err)
	fs := cmd.Flags()
	fs.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig file (default: the pod's own service account)")
	fs.StringVar(&f.namespace, "namespace", "", "namespace of the agents and of the lease (default: POD_NAMESPACE, or "+controller.DefaultNamespace+")")
	fs.StringVar(&f.agents, "agent-selector", controller.DefaultAgents, "labels of the agents' pods")
	fs.StringVar(&f.metrics, "metrics-address", "", "address of the Prometheus metrics, plain HTTP, such as :8080 (default: none are served)")
	fs.StringVar(&f.health, "health-address", ":8081", "address of /healthz and /readyz; empty for none")
	fs.BoolVar(&f.leaderElect, "leader-elect", true, "act only while holding the lease")
	fs.DurationVar(&f.leaseDuration, "lease-duration", 15*time.Second, "how long the lease of a controller that died is respected")
	fs.StringVar(&f.logFormat, "log-format", "text", "format of the log on stderr: text or json")
	fs.StringVar(&f.logLevel, "log-level", "info", "least level of the log: debug, info, warn or error")
	return cmd
}

func (f flags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level %q: only debug, info, warn and error are known", f.logLevel)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("--log-format %q: only text and json are known", f.logFormat)
}

func (f flags) options(p process, log *slog.Logger) (controller.Options, error) {
	agents, err := labels.Parse(f.agents)
	if err != nil {
		return controller.Options{}, fmt.Errorf("--agent-selector: %w", err)
	}
	if agents.Empty() {
		return controller.Options{}, errors.New("--agent-selector selects every pod: name the agents' labels")
	}
	if f.leaseDuration < time.Second {
		return controller.Options{}, fmt.Errorf("--lease-duration %v is less than a second", f.leaseDuration)
	}
	namespace := f.namespace
	if namespace == "" {
		namespace, _ = p.lookupEnv("POD_NAMESPACE")
	}
	return controller.Options{
		Namespace: namespace, Agents: agents,
		LeaderElect: f.leaderElect, LeaseDuration: f.leaseDuration,
		MetricsAddress: f.metrics, HealthAddress: f.health,
		Registry: ctrlmetrics.Registry, Log: log,
	}, nil
}

// work runs the controller until ctx ends.
func (f flags) work(ctx context.Context, p process, opts controller.Options) error {
	if _, set := p.lookupEnv("GOGC"); !set {
		debug.SetGCPercent(gcPercent)
	}
	// The libraries log through these two.
	handler := logr.FromSlogHandler(opts.Log.Handler())
	ctrllog.SetLogger(handler)
	klog.SetLogger(handler)
	config, err := f.config()
	if err != nil {
		return err
	}
	c, err := controller.New(config, opts)
	if err != nil {
		return err
	}
	opts.Log.Info("started", "version", version.String())
	return c.Run(ctx)
}

// config is how to reach the API server.
func (f flags) config() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", f.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("how to reach the API server is not known: run in a pod with a service account, or give --kubeconfig: %w", err)
	}
	config.UserAgent = "confine-controller/" + version.String()
	return config, nil
}
