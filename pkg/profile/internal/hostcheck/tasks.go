package hostcheck

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// EachTask calls visit for every thread of every process below proc, with the
// process's ID and the thread's folder. Threads can have different labels. What
// ended meanwhile is passed over, also where visit says so; any other error ends
// the walk. Where the first process cannot be seen, others may be hidden too
// (hidepid, another PID namespace), and that is an error.
func EachTask(proc string, visit func(pid, task string) error) error {
	processes, err := os.ReadDir(proc)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(processes, func(e fs.DirEntry) bool { return e.Name() == "1" }) {
		return fmt.Errorf("%s does not show all processes", proc)
	}
	for _, p := range processes {
		if strings.Trim(p.Name(), "0123456789") != "" {
			continue
		}
		tasks := filepath.Join(proc, p.Name(), "task")
		threads, err := os.ReadDir(tasks)
		if err != nil && !Ended(err) {
			return err
		}
		for _, t := range threads {
			if err := visit(p.Name(), filepath.Join(tasks, t.Name())); err != nil && !Ended(err) {
				return err
			}
		}
	}
	return nil
}

// Ended reports errors of processes that ended while they were looked at.
func Ended(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) }
