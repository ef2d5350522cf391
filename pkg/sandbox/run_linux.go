//go:build amd64 || arm64

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// waitDelay bounds how long the output of a program that ended is read. Its group is dead by then,
// so it only matters where a process left the group; a busy machine needs
// a while to read what is in the pipes.
const waitDelay = 10 * time.Second

// Run starts a program and waits for its end. It is ended, with all processes of its
// group, when the context ends, when this process ends, and when it has taken
// more than the Program says. The error is as of exec.Cmd.Run: an
// *exec.ExitError where the program ran and failed.
//
// What the walls are put on is a thread, which they then never leave:
// it ends with the program. Until then the kernel would kill the program if the
// thread ended (Pdeathsig).
func Run(ctx context.Context, p Program) error {
	p = p.withDefaults()
	if !p.Filter.compiles() && p.Filter != Tool {
		return fmt.Errorf("a program cannot be started under the filter %s", p.Filter)
	}
	if !filepath.IsAbs(p.Path) {
		return fmt.Errorf("%q is no absolute path", p.Path)
	}
	cmd, closeFiles, err := p.command(ctx)
	if err != nil {
		return err
	}
	defer closeFiles()
	// Go tries once how it can wait for processes. That must not happen under a
	// filter that forbids it, or the answer would be wrong for all.
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Release()
	}
	started, ended := make(chan error, 1), make(chan struct{})
	go onOwnThread(func() {
		err := p.wall()
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			<-ended
		}
	})
	if err := <-started; err != nil {
		return err
	}
	defer close(ended)
	endGroup(cmd.Process.Pid)
	err = cmd.Wait()
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), err)
	}
	return err
}

// onOwnThread calls do on a thread that nothing else runs on, and that ends with it.
// Not on the first thread: that one never ends, and its state is the
// process's for all who look.
func onOwnThread(do func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		do()
		return // without unlocking: the thread ends
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		onOwnThread(do)
	}()
	<-done
	runtime.UnlockOSThread()
}

// wall puts on the calling thread what the program inherits.
func (p Program) wall() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if p.Filter.compiles() {
		if _, err := landlock(false); err != nil {
			return err
		}
	}
	return install(p.Filter, 0)
}

// endGroup waits until the program has ended and then ends what it started. The
// process is not reaped yet, so that its number cannot be another's.
func endGroup(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	_ = unix.Kill(-pid, unix.SIGKILL) // mostly nobody is left
}

// command is the program behind the shell that sets its limits. Limits are of
// a process, not of a thread, so that they cannot be set before the fork; Go has no means to set them
// between fork and exec; and from outside, once the process is another user's, it
// takes CAP_SYS_RESOURCE and comes late. A shell with a constant line and
// numbers sets them before the program's first instruction.
func (p Program) command(ctx context.Context) (*exec.Cmd, func(), error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", p.limits(), "sh", p.Path}, p.Args...)...)
	cmd.Env = append([]string{}, p.Env...)
	cmd.Dir = p.Dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.Stdin, p.Stdout, p.Stderr
	cmd.WaitDelay = waitDelay
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if p.Filter.compiles() && os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: Nobody, Gid: Nobody}
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// exec.Cmd would open these on the thread that may not open for writing.
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	if cmd.Stdin == nil {
		cmd.Stdin = null
	}
	if cmd.Stdout == nil {
		cmd.Stdout = null
	}
	if cmd.Stderr == nil {
		cmd.Stderr = null
	}
	if p.Root == "" {
		return cmd, func() { _ = null.Close() }, nil
	}
	// A root such as /proc/1/root is another process's, which Landlock keeps the
	// thread from looking at: it is opened before, and the child finds it open.
	root, err := os.OpenFile(p.Root, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, nil, errors.Join(err, null.Close())
	}
	cmd.SysProcAttr.Chroot = fmt.Sprintf("/proc/self/fd/%d", root.Fd())
	return cmd, func() { _ = errors.Join(null.Close(), root.Close()) }, nil
}

// limits is what the shell does. Sizes are in KiB, times in seconds. A compiler
// writes no files and starts no processes: bash counts these with -u, dash and
// busybox with -p, and /dev/null cannot be opened for writing there.
func (p Program) limits() string {
	seconds := (p.CPU + time.Second - 1) / time.Second
	steps := []string{"ulimit -c 0", fmt.Sprintf("ulimit -v %d", p.Memory>>10), fmt.Sprintf("ulimit -t %d", seconds), fmt.Sprintf("ulimit -n %d", p.Files)}
	if p.Filter.compiles() {
		steps = append(steps, "ulimit -f 0", "{ ulimit -u 0 2>&- || ulimit -p 0; }")
	}
	return strings.Join(append(steps, `exec "$@"`), " && ")
}
