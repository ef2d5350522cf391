package durable

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// Environment of the child process that TestKilledBeforeEveryStep kills.
const (
	envCrashCase = "DURABLE_TEST_CASE"
	envCrashDir  = "DURABLE_TEST_DIR"
	envCrashStep = "DURABLE_TEST_STEP"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(envCrashCase); name != "" {
		os.Exit(crashChild(name))
	}
	os.Exit(m.Run())
}

type crashCase struct {
	setup func(d *Dir) error
	act   func(d *Dir) error
	// between are trees besides the one before and the one after that a crash
	// may leave, for calls that promise convergence and not one atomic flip.
	between []map[string]string
	// again says that the action can be repeated; else it is done only where
	// the tree is still the one before.
	again bool
	steps int // least number of steps, so that a forgotten one is noticed
}

func crashCases() map[string]crashCase {
	nothing := func(*Dir) error { return nil }
	return map[string]crashCase{
		"new file": {setup: nothing, again: true, steps: 6,
			act: func(d *Dir) error { return d.WriteFile("f", []byte("new"), 0o640) }},
		"replaced file": {again: true, steps: 6,
			setup: func(d *Dir) error { return d.WriteFile("f", []byte("old and longer"), 0o600) },
			act:   func(d *Dir) error { return d.WriteFile("f", []byte("new"), 0o640) }},
		"new folder": {setup: nothing, steps: 11,
			act: func(d *Dir) error {
				return d.WriteFolder("w", []File{{"a", []byte("A")}, {"b", []byte("B")}}, 0o755, 0o644)
			}},
		"swapped link": {again: true, steps: 3,
			setup: func(d *Dir) error { return d.Symlink("old", "l") },
			act:   func(d *Dir) error { return d.Symlink("new", "l") }},
		"folders": {setup: nothing, again: true, steps: 4,
			act:     func(d *Dir) error { return d.MkdirAll("a/b", 0o700) },
			between: []map[string]string{{"a": "drwx------"}}},
		"removed file": {steps: 2,
			setup: func(d *Dir) error { return d.WriteFile("f", []byte("old"), 0o600) },
			act:   func(d *Dir) error { return d.Remove("f") }},
		"removed folder": {again: true, steps: 4,
			setup: func(d *Dir) error {
				return d.WriteFolder("w", []File{{"a", []byte("A")}, {"b", []byte("B")}}, 0o755, 0o644)
			},
			act: func(d *Dir) error { return d.RemoveAll("w") }},
		"batch": {steps: 25, again: true,
			setup: func(d *Dir) error { return d.Symlink("old", "l") },
			act:   everything,
			between: []map[string]string{
				{"l": "-> old", "n": "drwx------"},
				{"l": "-> old", "n": "drwx------", "n/f": "-rw-r----- new"},
				{"l": "-> old", "n": "drwx------", "n/f": "-rw-r----- new", "w": "drwxr-xr-x", "w/a": "-rw-r--r-- A", "w/b": "-rw-r--r-- B"},
				{"l": "-> w", "n": "drwx------", "n/f": "-rw-r----- new", "w": "drwxr-xr-x", "w/a": "-rw-r--r-- A", "w/b": "-rw-r--r-- B"},
			}},
		"moved file": {steps: 2,
			setup: func(d *Dir) error {
				return errors.Join(d.MkdirAll("to", 0o700), d.WriteFile("f", []byte("x"), 0o600))
			},
			act: func(d *Dir) error { return d.Rename("f", "to/f") }},
	}
}

// crashChild runs one case and kills itself before the step it was told.
func crashChild(name string) int {
	at, err := strconv.Atoi(os.Getenv(envCrashStep))
	if err != nil {
		return 3
	}
	n := 0
	d, err := Open(os.Getenv(envCrashDir), Options{Before: func(Step) error {
		if n++; n > at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal ends this
		}
		return nil
	}})
	if err == nil {
		err = crashCases()[name].act(d)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 4
	}
	return 0
}

// killedAt runs the case in a child and reports whether it was killed before
// its step number at, counted from 0; else it finished.
func killedAt(t *testing.T, name, dir string, at int) bool {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), envCrashCase+"="+name, envCrashDir+"="+dir, envCrashStep+"="+strconv.Itoa(at))
	out, err := child.CombinedOutput()
	if err == nil {
		return false
	}
	status, ok := child.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Fatalf("child: %v\n%s", err, out)
	}
	return true
}

func TestKilledBeforeEveryStep(t *testing.T) {
	for name, c := range crashCases() {
		t.Run(name, func(t *testing.T) {
			before, after := outcome(t, c, false), outcome(t, c, true)
			at := 0
			for ; ; at++ {
				dir := t.TempDir()
				d := open(t, dir)
				must(t, c.setup(d))
				killed := killedAt(t, name, dir, at)
				must(t, d.SweepTemp("."))
				if _, err := d.Lstat("n"); err == nil {
					must(t, d.SweepTemp("n"))
				}
				got := tree(t, dir)
				whole := slices.ContainsFunc(append(c.between, before, after), func(want map[string]string) bool {
					return cmp.Equal(want, got, cmpopts.EquateEmpty())
				})
				if !whole {
					t.Errorf("killed before step %d: neither old nor new: %v", at, got)
				}
				if c.again || cmp.Equal(got, before, cmpopts.EquateEmpty()) {
					must(t, c.act(d))
				}
				wantTree(t, dir, after)
				if !killed {
					break
				}
			}
			if at < c.steps {
				t.Errorf("only %d steps were announced, want at least %d", at, c.steps)
			}
		})
	}
}

// outcome is the tree of a case before or after its action, with no crash.
func outcome(t *testing.T, c crashCase, acted bool) map[string]string {
	t.Helper()
	dir := t.TempDir()
	d := open(t, dir)
	must(t, c.setup(d))
	if acted {
		must(t, c.act(d))
	}
	return tree(t, dir)
}

func TestAnAbortCleansNothingUp(t *testing.T) {
	dir := t.TempDir()
	stop := errors.New("stop")
	d, err := Open(dir, Options{Before: func(s Step) error {
		if s.Op == OpRename {
			return stop
		}
		return nil
	}})
	must(t, err)
	defer func() { _ = d.Close() }()
	if err := d.WriteFile("f", []byte("x"), 0o600); !errors.Is(err, stop) {
		t.Fatalf("WriteFile: %v", err)
	}
	if left := tree(t, dir); len(left) != 1 {
		t.Errorf("the leftover of a crash is gone: %v", left)
	}
	must(t, d.SweepTemp("."))
	wantTree(t, dir, nil)
}

func TestStepsAreNamedAlikeInEveryRun(t *testing.T) {
	var steps []Step
	d, err := Open(t.TempDir(), Options{Before: func(s Step) error { steps = append(steps, s); return nil }})
	must(t, err)
	defer func() { _ = d.Close() }()
	must(t, d.MkdirAll("a", 0o700))
	sub, err := d.Sub("a")
	must(t, err)
	defer func() { _ = sub.Close() }()
	must(t, sub.WriteFile("f", []byte("x"), 0o600))
	must(t, d.RemoveAll("a"))
	want := []Step{
		{OpMkdir, "a"}, {OpFsyncDir, "."},
		{OpCreate, "a/f"}, {OpWrite, "a/f"}, {OpChmod, "a/f"}, {OpFsync, "a/f"}, {OpRename, "a/f"}, {OpFsyncDir, "a"},
		{OpRename, "a"}, {OpFsyncDir, "."}, {OpRemove, "a"}, {OpFsyncDir, "."},
	}
	if diff := cmp.Diff(want, steps); diff != "" {
		t.Error(diff)
	}
}
