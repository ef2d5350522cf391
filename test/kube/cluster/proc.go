package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	netnsFolder  = "/run/netns" // where ip-netns(8) keeps names
	pollInterval = 50 * time.Millisecond
	// processTimeout bounds the wait for started processes to be there, and for
	// killed ones to be gone.
	processTimeout = 30 * time.Second
)

// process is a running one. Processes are found by the network namespace that
// they are in and never by a number that was written down: numbers are reused.
type process struct {
	pid     int
	program string // the last element of its first argument
	memory  int64  // resident, bytes
}

// processesIn returns the processes in the named network namespace.
func processesIn(netns string) ([]process, error) {
	want, err := os.Stat(filepath.Join(netnsFolder, netns))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		got, err := os.Stat(filepath.Join("/proc", entry.Name(), "ns", "net"))
		if err != nil || !os.SameFile(want, got) {
			continue // ended, or is a zombie, or is elsewhere
		}
		found = append(found, readProcess(pid))
	}
	return found, nil
}

// readProcess tells what it can; a process that has just ended has no program.
func readProcess(pid int) process {
	p := process{pid: pid}
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	if arguments, err := os.ReadFile(filepath.Join(dir, "cmdline")); err == nil {
		first, _, _ := bytes.Cut(arguments, []byte{0})
		p.program = filepath.Base(string(first))
	}
	if statm, err := os.ReadFile(filepath.Join(dir, "statm")); err == nil {
		if fields := strings.Fields(string(statm)); len(fields) > 1 {
			pages, _ := strconv.ParseInt(fields[1], 10, 64) // the kernel writes numbers
			p.memory = pages * int64(os.Getpagesize())
		}
	}
	return p
}

// kill ends every process in the namespaces for which match holds, at once, and
// waits until they are gone.
func kill(ctx context.Context, match func(process) bool, namespaces ...string) error {
	return poll(ctx, processTimeout, "killed processes to end", func() (bool, error) {
		left := 0
		for _, netns := range namespaces {
			found, err := processesIn(netns)
			if err != nil {
				return false, err
			}
			for _, p := range found {
				if !match(p) {
					continue
				}
				left++
				if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
					return false, err
				}
			}
		}
		return left == 0, nil
	})
}

func everything(process) bool { return true }

func called(names ...string) func(process) bool {
	return func(p process) bool { return slices.Contains(names, p.program) }
}

// poll calls done until it returns true, or an error, or time is up.
func poll(ctx context.Context, limit time.Duration, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		if ok, err := done(); err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}

// inNetns returns a command that runs in the named network namespace, and in
// the machine's other namespaces. ip-netns(8) exec would also mount a new /sys,
// which hides the cgroups.
func inNetns(ctx context.Context, netns, program string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + filepath.Join(netnsFolder, netns), "--", program}, args...)...)
}

// start runs a command that outlives this process, with its output in a file,
// and returns when one of its processes is found in the network namespace for
// which match holds.
func start(ctx context.Context, cmd *exec.Cmd, logFile, netns string, match func(process) bool) error {
	if err := os.MkdirAll(filepath.Dir(logFile), 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := errors.Join(cmd.Start(), log.Close()); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return poll(ctx, processTimeout, "the start of "+strings.Join(cmd.Args, " "), func() (bool, error) {
		select {
		case err := <-ended:
			return false, fmt.Errorf("%s has ended: %w\n%s", strings.Join(cmd.Args, " "), err, tail(logFile))
		default:
		}
		found, err := processesIn(netns)
		return slices.ContainsFunc(found, match), err
	})
}

// run runs a command to its end; what it said is in the error.
func run(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
