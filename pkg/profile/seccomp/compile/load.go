//go:build linux && cgo && libseccomp

package compile

import (
	"fmt"
	"io"
	"os"
	"unsafe"

	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/reason"
)

// Flags of seccomp(2), from linux/seccomp.h.
const (
	filterLog              = 1 << 1
	filterSpecAllow        = 1 << 2
	filterWaitKillableRecv = 1 << 5
)

// Load sets no_new_privs and puts p in force for the calling thread alone, for
// good. Call runtime.LockOSThread before, and syscall.Exec right after: p must
// allow execve, and what the Go runtime does on this thread until then.
// The error is ProfileInvalid, KindUnsupported for an action that needs an
// agent, or InstallFailed where the kernel refuses; the thread is unfiltered then.
func Load(p *seccomp.Profile) error {
	if needsAgent(p) {
		return reason.New(reason.KindUnsupported, "", "%s needs a seccomp agent", seccomp.ActNotify).
			WithAdvice("use a profile without %s", seccomp.ActNotify)
	}
	flags, err := loadFlags(p)
	if err != nil {
		return err
	}
	b, err := build(p, true)
	if err != nil {
		return err
	}
	defer b.filter.Release()
	program, err := b.program()
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return reason.New(reason.InstallFailed, "seccomp", "no_new_privs cannot be set: %w", err)
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]} //nolint:gosec // at most maxInstructions
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return reason.New(reason.InstallFailed, "seccomp", "the kernel refuses the filter: %w", errno)
	}
	return nil
}

func needsAgent(p *seccomp.Profile) bool {
	needs := p.DefaultAction == seccomp.ActNotify
	for i := range p.Syscalls {
		needs = needs || p.Syscalls[i].Action == seccomp.ActNotify
	}
	return needs
}

// loadFlags maps flags as runc does: with none given it asks for SPEC_ALLOW
// where libseccomp and kernel have it.
func loadFlags(p *seccomp.Profile) (uintptr, error) {
	var flags uintptr
	level, err := libseccomp.GetAPI()
	if p.Flags == nil && err == nil && level >= 4 {
		flags = filterSpecAllow
	}
	for _, f := range p.Flags {
		switch f {
		case seccomp.FlagTsync: // execve leaves one thread anyway
		case seccomp.FlagLog:
			flags |= filterLog
		case seccomp.FlagSpecAllow:
			flags |= filterSpecAllow
		case seccomp.FlagWaitKillableRecv:
			flags |= filterWaitKillableRecv
		default:
			return 0, invalid("the flag %q is unknown", f)
		}
	}
	return flags, nil
}

// program compiles the filter to kernel instructions. libseccomp before 2.6
// writes them to a file only.
func (b *builder) program() ([]unix.SockFilter, error) {
	fd, err := unix.MemfdCreate("seccomp", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, reason.New(reason.InstallFailed, "seccomp", "no memory file for the compiled filter: %w", err)
	}
	file := os.NewFile(uintptr(fd), "seccomp")
	defer func() { _ = file.Close() }()
	if err := b.filter.ExportBPF(file); err != nil {
		return nil, invalid("libseccomp cannot compile the profile: %w", err)
	}
	data, err := readBack(file)
	if err != nil {
		return nil, reason.New(reason.InstallFailed, "seccomp", "the compiled filter cannot be read back: %w", err)
	}
	n := len(data) / instructionBytes
	if n < 1 || n > maxInstructions {
		return nil, invalid("the profile makes %d kernel instructions, of at most %d", n, maxInstructions)
	}
	return unsafe.Slice((*unix.SockFilter)(unsafe.Pointer(&data[0])), n), nil
}

func readBack(file *os.File) ([]byte, error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(file, (maxInstructions+1)*instructionBytes))
	if err != nil {
		return nil, err
	}
	if len(data)%instructionBytes != 0 {
		return nil, fmt.Errorf("%d bytes are no whole number of instructions", len(data))
	}
	return data, nil
}
