package main

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/node/fetch"
	"github.com/confine-dev/confine/pkg/reason"
)

func TestFetchUsage(t *testing.T) {
	for name, args := range map[string][]string{
		"nothing":        {"fetch"},
		"both":           {"fetch", "--control-fd", "3", "--socket", "/x"},
		"negative":       {"fetch", "--control-fd", "-1"},
		"an argument":    {"fetch", "--socket", "/x", "more"},
		"another format": {"fetch", "--socket", "/x", "--log-format", "xml"},
	} {
		t.Run(name, func(t *testing.T) {
			if code := run(t.Context(), args, process{out: io.Discard, err: io.Discard}); code != exitUsage {
				t.Errorf("exit code %d, want %d", code, exitUsage)
			}
		})
	}
}

// The agent's child is this program: it asks a registry that is not there, and
// says so.
func TestFetchChildIsThisProgram(t *testing.T) {
	remote, err := fetch.Start(t.Context(), fetch.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	repo := reference.Repository{Host: "127.0.0.1:1", Path: "profiles/web"}
	_, err = remote.Manifest(t.Context(), repo, digest.FromString("x"))
	if !errors.Is(err, reason.RegistryUnavailable) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("Manifest: %v, want that the registry is not there", err)
	}
	if err := remote.Close(); err != nil {
		t.Error(err)
	}
}

func TestFetchRefusesRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start a process of root")
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "fetch", "--socket", "/nonexistent/agent.sock")
	out, err := cmd.CombinedOutput()
	exit := (*exec.ExitError)(nil)
	if !errors.As(err, &exit) || exit.ExitCode() != exitRefused || !strings.Contains(string(out), "runs as root") {
		t.Errorf("it said %q, %v", out, err)
	}
}
