package hostcheck

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

func procOf(t *testing.T, tasks ...string) string {
	t.Helper()
	proc := t.TempDir()
	for _, task := range append(tasks, "self/task/9", "sys/task/9") {
		if err := os.MkdirAll(filepath.Join(proc, task), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return proc
}

func TestEachTask(t *testing.T) {
	proc := procOf(t, "1/task/1", "7/task/7", "7/task/8", "12")
	for name, c := range map[string]struct {
		err  error // of thread 7
		want error
		seen []string
	}{
		"all":                  {nil, nil, []string{"1 1", "7 7", "7 8"}},
		"one that ended":       {syscall.ESRCH, nil, []string{"1 1", "7 7", "7 8"}},
		"one that is gone":     {fs.ErrNotExist, nil, []string{"1 1", "7 7", "7 8"}},
		"one that is not told": {fs.ErrPermission, fs.ErrPermission, []string{"1 1", "7 7"}},
	} {
		t.Run(name, func(t *testing.T) {
			var seen []string
			err := EachTask(proc, func(pid, task string) error {
				seen = append(seen, pid+" "+filepath.Base(task))
				if filepath.Base(task) == "7" {
					return c.err
				}
				return nil
			})
			if !errors.Is(err, c.want) || !slices.Equal(seen, c.seen) {
				t.Errorf("saw %q, %v, want %q, %v", seen, err, c.seen, c.want)
			}
		})
	}
}

func TestHiddenProcessesAreNoEmptyMachine(t *testing.T) {
	visit := func(string, string) error { return nil }
	for name, proc := range map[string]string{"without process 1": procOf(t, "7/task/7"), "of nothing": filepath.Join(procOf(t), "none")} {
		if err := EachTask(proc, visit); err == nil {
			t.Errorf("a proc %s is taken for a machine", name)
		}
	}
}
