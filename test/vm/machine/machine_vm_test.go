//go:build vm

package machine_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confine-dev/confine/test/vm/image"
	"github.com/confine-dev/confine/test/vm/job"
	"github.com/confine-dev/confine/test/vm/machine"
)

func source(t *testing.T) image.Source {
	t.Helper()
	if err := machine.Possible(); err != nil {
		t.Fatal(err)
	}
	packages, err := image.Packages(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	first, err := image.BuildInit(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return image.Source{Packages: packages, Init: first}
}

// script runs a shell script in a machine.
func script(ctx context.Context, t *testing.T, text string, o machine.Options) (int, string, error) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	o.Args, o.LSM, o.Output = append([]string{program}, o.Args...), image.AppArmor, &out
	status, err := machine.Run(ctx, o)
	return status, out.String(), err
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	s := source(t)
	for name, c := range map[string]struct {
		script string
		status int
		output string // exactly, unless empty
	}{
		"success":          {"echo fine; echo $1", 0, "fine\nan argument\n"},
		"the last status":  {"exit 255", 255, ""},
		"a signal":         {"kill -9 $$", job.Killed + 9, ""},
		"a child outlives": {"sleep 1000 & exit 4", 4, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, output, err := script(t.Context(), t, c.script, machine.Options{Source: s, Args: []string{"an argument"}})
			if err != nil {
				t.Fatal(err)
			}
			if status != c.status {
				t.Errorf("status %d, want %d: %s", status, c.status, output)
			}
			if c.output != "" && output != c.output {
				t.Errorf("output %q, want %q", output, c.output)
			}
		})
	}
}

func TestMachinesThatDoNotEnd(t *testing.T) {
	t.Parallel()
	s := source(t)
	t.Run("the kernel panics", func(t *testing.T) {
		t.Parallel()
		_, _, err := script(t.Context(), t, "echo c > /proc/sysrq-trigger", machine.Options{Source: s})
		if err == nil || !strings.Contains(err.Error(), "sysrq triggered crash") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("time is over", func(t *testing.T) {
		t.Parallel()
		_, _, err := script(t.Context(), t, "sleep 1000", machine.Options{Source: s, Timeout: time.Second})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("switched off at once", func(t *testing.T) {
		t.Parallel()
		_, _, err := script(t.Context(), t, "echo b > /proc/sysrq-trigger", machine.Options{Source: s})
		if err == nil || !strings.Contains(err.Error(), "did not come to its end") {
			t.Errorf("error %v", err)
		}
	})
}

func TestWhatCannotRunIsTrouble(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("no program at all"), 0o700); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	status, err := machine.Run(t.Context(), machine.Options{
		Source: source(t), LSM: image.AppArmor, Args: []string{program}, Output: &out,
	})
	if err != nil || status != job.Trouble || !strings.Contains(out.String(), "vm: ") {
		t.Errorf("status %d, error %v: %s", status, err, out.String())
	}
}

// TestFilesInAndOut hands a file to a machine and gets it back changed.
func TestFilesInAndOut(t *testing.T) {
	t.Parallel()
	given, kept := filepath.Join(t.TempDir(), "given"), t.TempDir()
	if err := os.WriteFile(given, []byte("given"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, output, err := script(t.Context(), t, "mkdir /out/deep && { cat /in/file; echo , kept; } > /out/deep/file", machine.Options{
		Source: source(t), Files: map[string]string{"/in/file": given}, Keep: map[string]string{"/out": kept},
	})
	if err != nil || status != 0 {
		t.Fatalf("status %d, %v: %s", status, err, output)
	}
	if got, err := os.ReadFile(filepath.Join(kept, "deep", "file")); string(got) != "given, kept\n" {
		t.Errorf("kept %q, %v", got, err)
	}
}
