package sandbox

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// ordinaryHere are calls that later architectures do not have.
func ordinaryHere() []uintptr {
	return []uintptr{
		unix.SYS_DUP2, unix.SYS_PIPE, unix.SYS_EVENTFD, unix.SYS_EPOLL_CREATE, unix.SYS_EPOLL_WAIT, unix.SYS_POLL, unix.SYS_SELECT,
		unix.SYS_ALARM, unix.SYS_PAUSE, unix.SYS_TIME, unix.SYS_GETPGRP,
	}
}

func readingHere() []uintptr {
	return []uintptr{unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_ACCESS, unix.SYS_READLINK, unix.SYS_GETDENTS, unix.SYS_INOTIFY_INIT}
}

func writingHere() []uintptr {
	return []uintptr{
		unix.SYS_OPEN, unix.SYS_CREAT, unix.SYS_MKDIR, unix.SYS_RMDIR, unix.SYS_UNLINK, unix.SYS_RENAME, unix.SYS_LINK, unix.SYS_SYMLINK,
		unix.SYS_CHMOD, unix.SYS_CHOWN, unix.SYS_LCHOWN, unix.SYS_UTIME, unix.SYS_UTIMES, unix.SYS_FUTIMESAT,
	}
}

func forkingHere() []uintptr { return []uintptr{unix.SYS_FORK, unix.SYS_VFORK} }

// ownHere is what the C library does when a program starts. arch_prctl(2) has a
// thread's own registers alone for its object.
func ownHere() []call { return []call{{number: unix.SYS_ARCH_PRCTL}} }

func openOnlyHere(flags, access uint64) []call {
	return []call{{unix.SYS_OPEN, []check{{arg: 1, mask: flags, value: access}}}}
}
