// Package machine boots a virtual machine, runs one program in it and returns
// its exit status. Everything is emulated in software by QEMU and is in memory:
// no disk, no network, and nothing of the machine stays behind.
package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/confine-dev/confine/test/vm/image"
	"github.com/confine-dev/confine/test/vm/job"
)

const emulator = "qemu-system-x86_64"

// Defaults of Options.
const (
	defaultMemory  = 1024 // MiB
	defaultTimeout = 10 * time.Minute
	shownLog       = 4000 // bytes of the kernel's log in an error
)

// ErrImpossible says that no machine can run here; its text says why, and what
// to install.
var ErrImpossible = errors.New("no virtual machine can run here")

// Possible returns nil where a machine can run, else ErrImpossible.
func Possible() error {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return fmt.Errorf("%w: this is %s/%s, and machines are made of Debian's packages for linux/amd64", ErrImpossible, runtime.GOOS, runtime.GOARCH)
	}
	for program, origin := range map[string]string{
		emulator: "apt-get install qemu-system-x86", "apt-get": "a Debian system", "dpkg-deb": "a Debian system",
	} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: %s is missing (%s)", ErrImpossible, program, origin)
		}
	}
	return nil
}

// Options describe one run. Source, LSM and Args are required.
type Options struct {
	Source image.Source
	LSM    image.LSM
	// Args are a program on this machine and its arguments, as `go test -exec`
	// hands them over. Flags of test binaries that name files are honoured.
	Args []string
	// Env is what the program gets beside a plain environment.
	Env []string
	// Dir is the working directory; its folder testdata is copied. Empty means
	// the current one.
	Dir string
	// Files are more that the machine has: files on this machine by their paths
	// in it.
	Files map[string]string
	// Keep are folders of the machine whose files come back: each by the
	// existing folder on this machine that they are written to.
	Keep map[string]string
	// Memory is in MiB; zero means 1024.
	Memory int
	// Timeout ends the machine; zero means ten minutes, counted from its start.
	// `go test` has a time limit of its own.
	Timeout time.Duration
	// Output gets what the program prints; nil means standard output.
	Output io.Writer
	// KernelLog is a file for the kernel's log; empty means that only its
	// end is shown, where the machine failed.
	KernelLog string
}

// Run boots a machine and returns the program's exit status. An error means
// that there is none, because the machine could not be run to its end. At most
// one machine for each processor runs at a time, of all processes of a user:
// the others wait here.
func Run(ctx context.Context, opts Options) (status int, err error) {
	scratch, err := os.MkdirTemp("", "confine-vm-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	if opts.KernelLog == "" {
		opts.KernelLog = filepath.Join(scratch, "kernel.log")
	}
	if opts.Output == nil {
		opts.Output = os.Stdout
	}
	initial, back := filepath.Join(scratch, "initrd"), filepath.Join(scratch, "back")
	wanted, err := writeInitial(initial, opts)
	if err != nil {
		return 0, err
	}
	leave, err := enter(ctx)
	if err != nil {
		return 0, err
	}
	err = emulate(ctx, initial, back, opts)
	leave()
	if err != nil {
		return 0, err
	}
	status, err = unpackKept(back, keptHere(wanted.Keep, opts.Keep))
	if err != nil {
		return 0, fmt.Errorf("the machine did not come to its end (%w); the kernel's log ends with:\n%s", err, tail(opts.KernelLog))
	}
	return status, nil
}

// emulate runs QEMU until the machine is switched off.
func emulate(ctx context.Context, initial, back string, opts Options) error {
	if opts.Timeout <= 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.Memory <= 0 {
		opts.Memory = defaultMemory
	}
	ctx, cancel := context.WithTimeout(ctx, opts.Timeout)
	defer cancel()
	// Whether timers interrupt is found out by waiting, which fails on a busy host.
	arguments := append([]string{"console=" + job.Log, "panic=-1", "loglevel=5", "no_timer_check"}, opts.LSM.KernelArguments()...)
	cmd := exec.CommandContext(ctx, emulator,
		"-accel", "tcg,thread=multi", "-M", "q35", "-cpu", "max", "-smp", "2", "-m", fmt.Sprint(opts.Memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none",
		"-serial", "file:"+opts.KernelLog,
		"-chardev", "stdio,id=output", "-device", fmt.Sprintf("isa-debugcon,iobase=%#x,chardev=output", job.Output),
		"-chardev", "file,id=back,path="+back, "-device", fmt.Sprintf("isa-debugcon,iobase=%#x,chardev=back", job.Back),
		"-kernel", opts.Source.Kernel(), "-initrd", initial,
		"-append", strings.Join(arguments, " "))
	cmd.Stdout, cmd.Stderr = opts.Output, os.Stderr
	cmd.WaitDelay = 5 * time.Second
	// QEMU goes with this process, also where that is killed. The kernel ties
	// it to the thread, so that has to stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("the machine was ended: %w; the kernel's log ends with:\n%s", context.Cause(ctx), tail(opts.KernelLog))
	}
	if err != nil {
		return fmt.Errorf("%s: %w; the kernel's log ends with:\n%s", emulator, err, tail(opts.KernelLog))
	}
	return nil
}

func tail(name string) string {
	data, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-shownLog):])
}
