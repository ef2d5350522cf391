package main

import (
	"context"
	"errors"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/registry"
	"github.com/confine-dev/confine/pkg/node/fetch"
)

// fetchFlags are the command line of the fetch child.
type fetchFlags struct {
	controlFD            int
	socket               string
	dockerConfig, caFile string
	logFormat            string
}

// fetchCommand is the child that speaks to registries.
func fetchCommand(p process, ran *bool) *cobra.Command {
	var f fetchFlags
	cmd := &cobra.Command{
		Use:   "fetch (--control-fd N | --socket PATH)",
		Short: "Speak to registries for an agent that does not",
		Long: `Speak to registries for an agent that does not.

The agent starts this by itself. In a cluster it runs in a container of its own,
beside the agent's, and connects to the agent's --fetch-socket. It holds the
registry credentials, and needs no privilege: it takes from itself all it has, can
start no program and change no file, and refuses to run as root. What it hands over, the
agent verifies.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (f.controlFD == 0) == (f.socket == "") || f.controlFD < 0 {
				return errors.New("give --socket, the agent's --fetch-socket (--control-fd is for the agent itself)")
			}
			log, err := f.logger(p.err)
			if err != nil {
				return err
			}
			*ran = true
			return f.run(cmd.Context(), log)
		},
	}
	fs := cmd.Flags()
	fs.IntVar(&f.controlFD, "control-fd", 0, "descriptor of the connection with the agent that started this")
	fs.StringVar(&f.socket, "socket", "", "where the agent listens: its --fetch-socket")
	fs.StringVar(&f.dockerConfig, "docker-config", "", "docker config file with registry credentials")
	fs.StringVar(&f.caFile, "ca-file", "", "PEM file of certificate authorities accepted beside the system's")
	fs.StringVar(&f.logFormat, "log-format", "text", "format of the log on stderr: text or json")
	return cmd
}

// logger leaves out the time where the agent forwards the lines into its own log.
func (f fetchFlags) logger(w io.Writer) (*slog.Logger, error) {
	if f.controlFD == 0 {
		return logger(w, f.logFormat)
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})), nil
}

func (f fetchFlags) run(ctx context.Context, log *slog.Logger) error {
	if err := fetch.Confine(); err != nil {
		return err
	}
	return fetch.Child{
		ControlFD: f.controlFD, Socket: f.socket, DockerConfig: f.dockerConfig, CAFile: f.caFile, Log: log,
		Open: func(readFile func(string) ([]byte, error)) (artifact.Fetcher, error) {
			return registry.New(registry.Options{
				DockerConfig: f.dockerConfig, CAFile: f.caFile, ReadFile: readFile, UserAgent: userAgent(), Log: log,
			})
		},
	}.Run(ctx)
}
