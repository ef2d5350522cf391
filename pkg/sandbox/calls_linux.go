//go:build amd64 || arm64

package sandbox

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// namespaces are the flags of clone(2) that make one, and CLONE_PTRACE.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_PTRACE

// calls returns what a filter allows, and what it says not to exist.
func (f Filter) calls() (calls []call, absent []uintptr, err error) {
	calls = slices.Concat(always(ordinary(), ordinaryHere(), reading(), readingHere()), own())
	// Its arguments are in memory, where no filter sees them: glibc and Go
	// take clone(2) instead.
	absent = []uintptr{unix.SYS_CLONE3}
	switch f {
	case Compiler, Converter:
		calls = slices.Concat(calls, always(becoming()), openOnly(unix.O_RDONLY), starting(), signalSelf(int(unix.SIGURG)))
		// As with clone3: the flags cannot be seen.
		absent = append(absent, unix.SYS_OPENAT2)
		if f == Converter { // as fopen(3) does for "w" and "w+"
			calls = slices.Concat(calls, openOnly(unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC), openOnly(unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC))
		}
	case Tool:
		calls = slices.Concat(calls, always(becoming(), writing(), writingHere(), forkingHere(), exchanging()), forking(), signalSelf(int(unix.SIGURG)),
			sockets(unix.AF_UNIX, unix.SOCK_STREAM, unix.SOCK_DGRAM), netlink(unix.NETLINK_AUDIT, unix.NETLINK_SELINUX))
	case Agent:
		calls = slices.Concat(calls, always(becoming(), writing(), writingHere(), forkingHere(), exchanging(), serving(), signalling(), sandboxing()), forking(),
			sockets(unix.AF_UNIX, unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET), sockets(unix.AF_INET, unix.SOCK_STREAM, unix.SOCK_DGRAM),
			sockets(unix.AF_INET6, unix.SOCK_STREAM, unix.SOCK_DGRAM), netlink(unix.NETLINK_ROUTE, unix.NETLINK_AUDIT, unix.NETLINK_SELINUX))
	case Fetch:
		calls = slices.Concat(calls, always(exchanging()), openOnly(unix.O_RDONLY), threads(), signalSelf(-1),
			sockets(unix.AF_UNIX, unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET), sockets(unix.AF_INET, unix.SOCK_STREAM, unix.SOCK_DGRAM),
			sockets(unix.AF_INET6, unix.SOCK_STREAM, unix.SOCK_DGRAM), netlink(unix.NETLINK_ROUTE))
		absent = append(absent, unix.SYS_OPENAT2)
	default:
		return nil, nil, fmt.Errorf("no such filter: %s", f)
	}
	return calls, absent, nil
}

func always(groups ...[]uintptr) []call {
	var calls []call
	for _, number := range slices.Concat(groups...) {
		calls = append(calls, call{number: number})
	}
	return calls
}

// ordinary is what programs do with what they have: memory, time, threads'
// waiting, and files that are open.
func ordinary() []uintptr {
	return []uintptr{
		unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_PREADV, unix.SYS_PWRITEV,
		unix.SYS_PREADV2, unix.SYS_PWRITEV2, unix.SYS_LSEEK, unix.SYS_CLOSE, unix.SYS_CLOSE_RANGE, unix.SYS_FSTAT, unix.SYS_FSTATFS, unix.SYS_DUP,
		unix.SYS_DUP3, unix.SYS_PIPE2, unix.SYS_EVENTFD2, unix.SYS_SENDFILE, unix.SYS_SPLICE, unix.SYS_COPY_FILE_RANGE,
		unix.SYS_FADVISE64, unix.SYS_READAHEAD, unix.SYS_FLOCK,
		unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2, unix.SYS_PPOLL, unix.SYS_PSELECT6,
		unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MREMAP, unix.SYS_MPROTECT, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_MSYNC, unix.SYS_BRK,
		unix.SYS_MEMBARRIER, unix.SYS_GETCPU, unix.SYS_GETRANDOM,
		unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_RT_SIGPENDING, unix.SYS_RT_SIGSUSPEND,
		unix.SYS_RT_SIGTIMEDWAIT, unix.SYS_SIGALTSTACK, unix.SYS_RESTART_SYSCALL,
		unix.SYS_FUTEX, unix.SYS_FUTEX_WAITV, unix.SYS_SET_ROBUST_LIST, unix.SYS_GET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_SET_TID_ADDRESS,
		unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_SCHED_GETPARAM, unix.SYS_SCHED_GETSCHEDULER,
		unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_GETRES, unix.SYS_GETTIMEOFDAY, unix.SYS_TIMES,
		unix.SYS_SETITIMER, unix.SYS_GETITIMER, unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_GETTIME, unix.SYS_TIMER_GETOVERRUN,
		unix.SYS_TIMER_DELETE, unix.SYS_TIMERFD_CREATE, unix.SYS_TIMERFD_SETTIME, unix.SYS_TIMERFD_GETTIME,
		unix.SYS_GETPID, unix.SYS_GETPPID, unix.SYS_GETTID, unix.SYS_GETPGID, unix.SYS_GETSID, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID,
		unix.SYS_GETEGID, unix.SYS_GETGROUPS, unix.SYS_GETRESUID, unix.SYS_GETRESGID, unix.SYS_CAPGET, unix.SYS_UMASK, unix.SYS_UNAME,
		unix.SYS_SYSINFO, unix.SYS_GETRUSAGE, unix.SYS_GETRLIMIT, unix.SYS_SETRLIMIT,
		unix.SYS_WAIT4, unix.SYS_WAITID, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	}
}

// reading is looking at files; opening them is another matter.
func reading() []uintptr {
	return []uintptr{
		unix.SYS_STATX, unix.SYS_NEWFSTATAT, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2, unix.SYS_READLINKAT, unix.SYS_GETDENTS64, unix.SYS_STATFS,
		unix.SYS_GETCWD, unix.SYS_CHDIR, unix.SYS_FCHDIR, unix.SYS_GETXATTR, unix.SYS_LGETXATTR, unix.SYS_FGETXATTR, unix.SYS_LISTXATTR,
		unix.SYS_LLISTXATTR, unix.SYS_FLISTXATTR, unix.SYS_INOTIFY_INIT1, unix.SYS_INOTIFY_ADD_WATCH, unix.SYS_INOTIFY_RM_WATCH,
	}
}

// writing is changing files, their owners, modes and labels.
func writing() []uintptr {
	return []uintptr{
		unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_MKDIRAT, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_LINKAT, unix.SYS_SYMLINKAT,
		unix.SYS_TRUNCATE, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_SYNC_FILE_RANGE, unix.SYS_SYNC, unix.SYS_SYNCFS,
		unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2, unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_UTIMENSAT,
		unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_FSETXATTR, unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR, unix.SYS_FREMOVEXATTR,
	}
}

// becoming is what a child does between fork and exec.
func becoming() []uintptr {
	return []uintptr{unix.SYS_EXECVE, unix.SYS_CHROOT, unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETGROUPS, unix.SYS_SETPGID}
}

// exchanging is what is done with sockets that are open, and with such as are
// opened under other conditions.
func exchanging() []uintptr {
	return []uintptr{
		unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME, unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKOPT, unix.SYS_SENDTO,
		unix.SYS_RECVFROM, unix.SYS_SENDMSG, unix.SYS_RECVMSG, unix.SYS_SENDMMSG, unix.SYS_RECVMMSG, unix.SYS_SHUTDOWN,
	}
}

func serving() []uintptr { return []uintptr{unix.SYS_LISTEN, unix.SYS_ACCEPT, unix.SYS_ACCEPT4} }

// signalling ends children, and their children.
func signalling() []uintptr {
	return []uintptr{unix.SYS_KILL, unix.SYS_TGKILL, unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_SEND_SIGNAL}
}

// sandboxing puts further filters on threads from which programs start.
func sandboxing() []uintptr {
	return []uintptr{unix.SYS_SECCOMP, unix.SYS_LANDLOCK_CREATE_RULESET, unix.SYS_LANDLOCK_ADD_RULE, unix.SYS_LANDLOCK_RESTRICT_SELF}
}

// own are calls that reach beyond this process with other arguments.
func own() []call {
	calls := number(unix.SYS_PRLIMIT64, 0, 0)
	calls = append(calls, number(unix.SYS_PRCTL, 0, unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_SET_VMA, unix.PR_SET_PDEATHSIG, unix.PR_GET_PDEATHSIG,
		unix.PR_GET_DUMPABLE, unix.PR_SET_NO_NEW_PRIVS, unix.PR_GET_NO_NEW_PRIVS, unix.PR_GET_SECCOMP, unix.PR_CAPBSET_READ, unix.PR_GET_SECUREBITS)...)
	calls = append(calls, call{unix.SYS_PRCTL, []check{{arg: 0, mask: 0xffffffff, value: unix.PR_SET_DUMPABLE}, {arg: 1, mask: 1<<64 - 1, value: 0}}})
	// Not F_SETOWN and its kin: they let the kernel send signals to others.
	calls = append(calls, number(unix.SYS_FCNTL, 1, unix.F_DUPFD, unix.F_DUPFD_CLOEXEC, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL,
		unix.F_GETLK, unix.F_SETLK, unix.F_SETLKW, unix.F_OFD_GETLK, unix.F_OFD_SETLK, unix.F_OFD_SETLKW, unix.F_GETPIPE_SZ, unix.F_SETPIPE_SZ,
		unix.F_GET_SEALS)...)
	// FIONREAD is TIOCINQ.
	calls = append(calls, number(unix.SYS_IOCTL, 1, unix.TCGETS, unix.TIOCGWINSZ, unix.TIOCINQ, fioNonBlocking, fioCloseOnExec, fioNotCloseOnExec)...)
	return append(calls, ownHere()...)
}

// Requests of ioctl(2) that do what fcntl does too. include/uapi/asm-generic/ioctls.h.
const (
	fioNonBlocking    = 0x5421
	fioNotCloseOnExec = 0x5450
	fioCloseOnExec    = 0x5451
)

// number allows a call where an argument, an int, is one of these.
func number(call_ uintptr, arg int, values ...uint64) []call {
	var calls []call
	for _, v := range values {
		calls = append(calls, call{call_, []check{{arg: arg, mask: 0xffffffff, value: v}}})
	}
	return calls
}

// openOnly allows to open files in one way, without making or emptying them.
// O_TMPFILE needs to write, so it is excluded with that.
func openOnly(access uint64) []call {
	const flags = unix.O_ACCMODE | unix.O_CREAT | unix.O_TRUNC
	calls := []call{{unix.SYS_OPENAT, []check{{arg: 2, mask: flags, value: access}}}}
	return append(calls, openOnlyHere(flags, access)...)
}

// starting allows the one way in which Go starts programs: the child borrows
// this process's memory until it becomes another program. (That a compiler starts
// programs, too, its limit on processes keeps from happening.)
func starting() []call {
	const kind = unix.CLONE_VFORK | unix.CLONE_VM | unix.CLONE_THREAD
	return []call{{unix.SYS_CLONE, []check{{arg: 0, mask: kind | namespaces, value: unix.CLONE_VFORK | unix.CLONE_VM}}}}
}

// forking allows processes and threads of all kinds in the same namespaces.
func forking() []call {
	return []call{{unix.SYS_CLONE, []check{{arg: 0, mask: namespaces, value: 0}}}}
}

// threads allows threads, and no processes.
func threads() []call {
	return []call{{unix.SYS_CLONE, []check{{arg: 0, mask: unix.CLONE_THREAD | namespaces, value: unix.CLONE_THREAD}}}}
}

// signalSelf allows signals to this process; -1 stands for all of them. Go
// interrupts its own threads so.
func signalSelf(signal int) []call {
	self := check{arg: 0, mask: 0xffffffff, value: uint64(os.Getpid())}
	if signal < 0 {
		return []call{{unix.SYS_TGKILL, []check{self}}, {unix.SYS_KILL, []check{self}}}
	}
	return []call{{unix.SYS_TGKILL, []check{self, {arg: 2, mask: 0xffffffff, value: uint64(signal)}}}}
}

// sockets allows sockets of a family: of these types, with whatever flags.
func sockets(family uint64, types ...uint64) []call {
	var calls []call
	for _, number := range []uintptr{unix.SYS_SOCKET, unix.SYS_SOCKETPAIR} {
		for _, t := range types {
			calls = append(calls, call{number, []check{{arg: 0, mask: 0xffffffff, value: family}, {arg: 1, mask: 0xf, value: t}}})
		}
	}
	return calls
}

// netlink allows netlink(7) sockets of these protocols.
func netlink(protocols ...uint64) []call {
	var calls []call
	for _, p := range protocols {
		calls = append(calls, call{unix.SYS_SOCKET, []check{{arg: 0, mask: 0xffffffff, value: unix.AF_NETLINK}, {arg: 2, mask: 0xffffffff, value: p}}})
	}
	return calls
}
