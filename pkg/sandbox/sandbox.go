// Package sandbox takes privileges away: from this process (Enter, Limit,
// Restrict) and from foreign programs that it starts (Run).
//
// A process that only ever reads, judges and installs has no use for most of
// what root or even an ordinary user may do. What is taken away here cannot be had back, by this
// process or any that it starts.
//
//   - Enter drops capabilities and sets no_new_privs, and makes the file system
//     read-only where the kernel has Landlock. Linux keeps all of these for each
//     thread and Go does not say which thread it runs on, so Enter changes one
//     thread and lets that one execute the program anew. It is called first in main.
//   - Restrict puts a seccomp filter on all threads at once.
//   - Run starts a program under a filter that was put on the thread it is
//     started from, which ends with it.
//
// The filters are lists of what is allowed; everything else is refused with an
// error, not by killing, so that a program that probes can go on without.
//
// It is pure Go and works with and without cgo, on Linux for amd64 and arm64.
// Elsewhere every function returns an error that is errors.ErrUnsupported.
package sandbox

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Capability is one of capabilities(7), by its number in the kernel's
// include/uapi/linux/capability.h.
type Capability uint8

// Those that some part of Confine has a use for, or that are named in tests.
const (
	CapDACOverride   Capability = 1
	CapDACReadSearch Capability = 2
	CapKill          Capability = 5
	CapSetgid        Capability = 6
	CapSetuid        Capability = 7
	CapSetpcap       Capability = 8
	CapSysChroot     Capability = 18
	CapSysPtrace     Capability = 19
	CapSysAdmin      Capability = 21
	CapMACOverride   Capability = 32
	CapMACAdmin      Capability = 33
)

// String is the name as capabilities(7) and Kubernetes' manifests (without
// "CAP_") have it, or "CAP_<number>" for one that is not listed here.
func (c Capability) String() string {
	names := map[Capability]string{
		CapDACOverride: "DAC_OVERRIDE", CapDACReadSearch: "DAC_READ_SEARCH", CapKill: "KILL", CapSetgid: "SETGID", CapSetuid: "SETUID",
		CapSetpcap: "SETPCAP", CapSysChroot: "SYS_CHROOT", CapSysPtrace: "SYS_PTRACE", CapSysAdmin: "SYS_ADMIN",
		CapMACOverride: "MAC_OVERRIDE", CapMACAdmin: "MAC_ADMIN",
	}
	if name, ok := names[c]; ok {
		return "CAP_" + name
	}
	return fmt.Sprintf("CAP_%d", uint8(c))
}

// Capabilities is a set as /proc/<pid>/status prints it: bit n is capability n.
type Capabilities uint64

// SetOf returns the set of these.
func SetOf(all ...Capability) Capabilities {
	var set Capabilities
	for _, c := range all {
		set |= 1 << c
	}
	return set
}

// Has reports whether c is in the set.
func (s Capabilities) Has(c Capability) bool { return c < 64 && s&(1<<c) != 0 }

// String lists the names, separated by commas; "none" for the empty set.
func (s Capabilities) String() string {
	var names []string
	for c := range Capability(64) {
		if s.Has(c) {
			names = append(names, c.String())
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ",")
}

// Filter says what a process has a use for. The zero value is the strictest.
type Filter int

const (
	// Compiler is a program that reads its input from a pipe and from files, and
	// writes its output to a pipe: no sockets, no files opened for writing,
	// no processes of its own, no signals to others.
	Compiler Filter = iota
	// Tool is a program of the system that changes the system's own files and may
	// start others: no sockets but of the kinds that the C library and
	// audit use (unix, netlink), no signals to others.
	Tool
	// Agent is the agent itself, and may do all that what it starts may do: it
	// writes files, talks to the API server, starts compilers and tools.
	Agent
	// Fetch is the agent's child that talks to registries: it starts nothing,
	// opens no file for writing and signals nobody.
	Fetch
	// Converter is a compiler that knows no way to print what it makes, and is
	// given /proc/self/fd/1 as its output: a Compiler that may open files for writing
	// as well. It can put nothing into them, since the size of its files is bounded to
	// nothing, and where the kernel has Landlock only pipes and the like can be opened
	// so. The pipe has to be one that others may open, by its mode.
	Converter
)

// compiles reports the filters of programs that write no files.
func (f Filter) compiles() bool { return f == Compiler || f == Converter }

// String is the filter's name, for messages.
func (f Filter) String() string {
	names := []string{"compiler", "tool", "agent", "fetch", "converter"}
	if f < 0 || int(f) >= len(names) {
		return fmt.Sprintf("filter %d", int(f))
	}
	return names[f]
}

// Bounds of a Program that does not give its own.
const (
	defaultMemory     = 512 << 20
	defaultToolMemory = 2 << 30
	defaultCPU        = 30 * time.Second
	defaultFiles      = 64
	defaultToolFiles  = 1024
)

// Nobody is the user and group of compilers where this process is root. It is
// not the nobody that others use too: no process and no file is this user's, nor is it
// the agent's or its fetch child's. systemd leaves 65520 to 65533 unused,
// https://systemd.io/UIDS-GIDS/.
const Nobody = 65525

// Program is a foreign program and what it may take. Only Path is required.
type Program struct {
	// Path is absolute, within Root. It is started through Root's /bin/sh, which sets
	// the limits.
	Path string
	// Args are its arguments, without its name.
	Args []string
	// Env is its whole environment. Nothing of this process's is handed on.
	Env []string
	// Dir is its working folder, within Root; empty means "/".
	Dir string
	// Root becomes its root folder; empty means this process's own. Another needs
	// CAP_SYS_CHROOT.
	Root string
	// Stdin, Stdout and Stderr are as in exec.Cmd. Bound what is kept: see Output.
	Stdin          io.Reader
	Stdout, Stderr io.Writer

	// Filter is Compiler, Converter or Tool. A compiler runs as the user Nobody where this
	// process is root, a tool as this process's user.
	Filter Filter
	// Memory bounds the address space, in bytes, of each process; zero means 512 MiB, and 2
	// GiB for a tool.
	Memory uint64
	// CPU bounds the processor time of each process, rounded up to seconds;
	// zero means 30 s. Real time is bounded by the context.
	CPU time.Duration
	// Files bounds the open files of each process; zero means 64, and 1024 for a tool.
	Files uint64
}

// withDefaults fills in what was not given.
func (p Program) withDefaults() Program {
	if p.Dir == "" {
		p.Dir = "/"
	}
	if p.Root == "/" {
		p.Root = ""
	}
	if p.Memory == 0 {
		p.Memory = defaultMemory
		if p.Filter == Tool {
			p.Memory = defaultToolMemory
		}
	}
	if p.Files == 0 {
		p.Files = defaultFiles
		if p.Filter == Tool {
			p.Files = defaultToolFiles
		}
	}
	if p.CPU <= 0 {
		p.CPU = defaultCPU
	}
	p.Args = slices.Clone(p.Args)
	return p
}

// Output keeps the first bytes that are written to it. What comes beyond is
// swallowed, or is an error for the writer where Strict is set: with it the
// writing program is ended by a closed pipe.
type Output struct {
	// Max is how many bytes are kept.
	Max int
	// Strict makes each write beyond Max fail.
	Strict bool

	kept []byte
	over bool
}

// Write implements io.Writer.
func (o *Output) Write(data []byte) (int, error) {
	n := min(len(data), o.Max-len(o.kept))
	o.kept = append(o.kept, data[:n]...)
	if o.over = o.over || n < len(data); o.over && o.Strict {
		return n, io.ErrShortWrite
	}
	return len(data), nil
}

// Bytes are those that were kept.
func (o *Output) Bytes() []byte { return o.kept }

// String is what was kept, as text.
func (o *Output) String() string { return string(o.kept) }

// Over reports whether more was written than Max bytes.
func (o *Output) Over() bool { return o.over }

// Walls is what Enter leaves to this process. The zero value leaves no capability.
type Walls struct {
	// Keep are the capabilities that stay, of those that are there.
	Keep []Capability
	// ReadOnly asks the kernel's Landlock, where it has one, that this process changes no
	// file anywhere, binds no TCP port, and signals no process outside.
	ReadOnly bool
}

// Entered is what Enter found to be in force.
type Entered struct {
	Status
	// Landlock is the version of the kernel's Landlock interface that is in
	// force; zero where the kernel has none or none was asked for.
	Landlock int
}

// Status is what /proc/<pid>/status says of a process, proc_pid_status(5).
type Status struct {
	// UID and GID are the real, effective, saved and file system ones.
	UID, GID [4]int
	// The five sets of capabilities(7).
	Inheritable, Permitted, Effective, Bounding, Ambient Capabilities
	// NoNewPrivs is set where no program can give more than it has.
	NoNewPrivs bool
	// Filtered is set where a seccomp filter is in force.
	Filtered bool
}

// Missing are those of the wanted capabilities that are not permitted.
func (s Status) Missing(want ...Capability) []Capability {
	return slices.DeleteFunc(slices.Clone(want), s.Permitted.Has)
}

// Limits are bounds on this whole process; zero leaves one as it is. They can be lowered only.
type Limits struct {
	// Files bounds open files.
	Files uint64
	// Processes bounds the threads and processes of this process's user, which has to
	// be one of its own. It does not bind root.
	Processes uint64
	// Memory bounds the private writable memory, in bytes (RLIMIT_DATA: the address space of Go
	// programs says little).
	Memory uint64
	// FileSize bounds the size of written files, in bytes; one byte stands for none at all.
	FileSize uint64
}
