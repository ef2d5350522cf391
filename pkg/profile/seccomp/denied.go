package seccomp

import (
	"slices"
	"strings"
)

// family is a group of syscalls that denying one of must deny with it.
type family struct {
	// same do the same work under different names: denying one denies all.
	same string
	// via can do that work among much else: they are denied along, while
	// denying one of them alone leaves same as it is.
	via string
}

// ring are the syscalls of io_uring, whose operations never pass the filter:
// once a ring exists, seccomp does not see what is submitted to it
// (io_uring(7); io_uring_enter(2) lists the operations). Under io_uring's
// kernel-side polling not even io_uring_enter is needed.
const ring = " io_uring_setup io_uring_enter io_uring_register"

// families says which syscalls reach the same kernel code. 32-bit, 64-bit and
// time64 variants of one name need no entry: variants finds them.
//
// Sources: the manual page of each syscall (man7.org section 2), socketcall(2)
// and ipc(2) for the multiplexers, io_uring_enter(2) for its operations.
// The list is of work a policy would deny on purpose. It does not say that
// denying write hides a mapping of a file: such effects are no aliases.
func families() []family {
	return slices.Concat(fileFamilies(), machineFamilies(), processFamilies(), socketFamilies())
}

func fileFamilies() []family {
	return []family{
		{"open openat creat", "openat2 open_by_handle_at" + ring},
		{"openat2", ring},
		{"read readv pread64 preadv preadv2", "io_submit" + ring},
		{"write writev pwrite64 pwritev pwritev2", "io_submit" + ring},
		{"stat lstat fstat newfstatat fstatat64 oldstat oldlstat oldfstat statx", ring},
		{"access faccessat faccessat2", ""},
		{"link linkat", ring},
		{"symlink symlinkat", ring},
		{"unlink unlinkat", ring},
		{"rmdir unlinkat", ring},
		{"rename renameat renameat2", ring},
		{"mkdir mkdirat", ring},
		{"mknod mknodat", ""},
		{"readlink readlinkat", ""},
		{"chmod fchmod fchmodat fchmodat2", ""},
		{"chown lchown fchown fchownat chown32 lchown32 fchown32", ""},
		{"utime utimes futimesat utimensat", ""},
		{"truncate ftruncate", ring},
		{"fallocate", ring},
		{"getdents readdir", ""},
		{"lseek _llseek", ""},
		{"setxattr lsetxattr fsetxattr setxattrat", ring},
		{"getxattr lgetxattr fgetxattr getxattrat", ring},
		{"removexattr lremovexattr fremovexattr removexattrat", ""},
		{"listxattr llistxattr flistxattr listxattrat", ""},
		{"dup dup2 dup3", "fcntl fcntl64"},
		{"pipe pipe2", ring},
		{"close close_range", ring},
		{"splice", ring},
		{"tee", ring},
		{"sync_file_range sync_file_range2 arm_sync_file_range", ring},
		{"fadvise64 arm_fadvise64_64 fadvise64_64", ring},
		{"epoll_create epoll_create1", ""},
		{"epoll_wait epoll_pwait epoll_pwait2 epoll_wait_old", ring},
		{"epoll_ctl epoll_ctl_old", ring},
		{"select _newselect pselect6 poll ppoll", "io_submit" + ring},
		{"inotify_init inotify_init1", ""},
		{"signalfd signalfd4", ""},
		{"eventfd eventfd2", ""},
	}
}

// machineFamilies are about mounts, namespaces, modules, limits and time.
func machineFamilies() []family {
	return []family{
		{"mount fsopen fsconfig fsmount fspick open_tree open_tree_attr move_mount mount_setattr", ""},
		{"umount umount2", ""},
		{"unshare", "clone3"}, // and clone, as far as it makes namespaces
		{"init_module finit_module create_module", ""},
		{"kexec_load kexec_file_load", ""},
		{"quotactl quotactl_fd", ""},
		{"iopl ioperm", ""},
		{"ioctl", ring},
		{"settimeofday clock_settime stime", "adjtimex clock_adjtime"},
		{"adjtimex clock_adjtime", ""},
	}
}

// processFamilies are about processes, memory and identity.
func processFamilies() []family {
	return []family{
		{"fork vfork clone", "clone3"},
		{"execve execveat", ""},
		{"vm86 vm86old", ""},
		{"ptrace process_vm_readv process_vm_writev", ""},
		{"kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal", ""},
		{"wait4 waitid waitpid", ring},
		{"mmap mmap2", ""},
		{"mprotect pkey_mprotect", ""},
		{"mlock mlock2 mlockall", ""},
		{"madvise", "process_madvise" + ring},
		{"setuid setreuid setresuid setfsuid", ""},
		{"setgid setregid setresgid setfsgid", ""},
		{"setrlimit prlimit64", ""},
		{"getrlimit ugetrlimit prlimit64", ""},
		{"sched_setscheduler sched_setparam sched_setattr", ""},
		{"setpriority nice", "sched_setattr"},
		{"gettimeofday clock_gettime time", ""},
		{"nanosleep clock_nanosleep", ring},
		{"futex", "futex_wait futex_wake futex_requeue futex_waitv" + ring},
		{"io_getevents io_pgetevents", ""},
		{"io_uring_enter", "io_uring_setup"},
	}
}

// socketFamilies are about sockets and System V IPC.
func socketFamilies() []family {
	return []family{
		{"socket", "socketcall" + ring},
		{"socketpair", "socketcall"},
		{"bind", "socketcall" + ring},
		{"connect", "socketcall" + ring},
		{"listen", "socketcall" + ring},
		{"accept accept4", "socketcall" + ring},
		{"send sendto sendmsg sendmmsg", "socketcall" + ring},
		{"recv recvfrom recvmsg recvmmsg", "socketcall" + ring},
		{"shutdown", "socketcall" + ring},
		{"getsockname", "socketcall" + ring},
		{"getpeername", "socketcall" + ring},
		{"getsockopt", "socketcall" + ring},
		{"setsockopt", "socketcall" + ring},
		{"msgget", "ipc"}, {"msgsnd", "ipc"}, {"msgrcv", "ipc"}, {"msgctl", "ipc"},
		{"semget", "ipc"}, {"semop semtimedop", "ipc"}, {"semctl", "ipc"},
		{"shmget", "ipc"}, {"shmat", "ipc"}, {"shmdt", "ipc"}, {"shmctl", "ipc"},
	}
}

// expand returns the denied names and everything that does the same work,
// each with the name that a policy wrote. known tells real syscalls from
// variants that do not exist.
func expand(denied []string, known func(string) bool) map[string]string {
	all := map[string]string{}
	add := func(name, because string) {
		for _, v := range variants(name) {
			if _, there := all[v]; !there && (v == name || known(v)) {
				all[v] = because
			}
		}
	}
	table := families()
	for _, name := range denied {
		add(name, name)
		own := variants(name)
		for _, f := range table {
			same := strings.Fields(f.same)
			if !slices.ContainsFunc(own, func(v string) bool { return slices.Contains(same, v) }) {
				continue
			}
			for _, other := range append(same, strings.Fields(f.via)...) {
				add(other, name)
			}
		}
	}
	if len(denied) > 0 {
		// The indirect syscall of 32-bit MIPS, syscall(2), reaches every other.
		add("syscall", denied[0])
	}
	return all
}

// multiplexed are the syscalls that a multiplexer stands for.
func multiplexed(multiplexer string) []string {
	var parts []string
	for _, f := range families() {
		if slices.Contains(strings.Fields(f.via), multiplexer) {
			for part := range strings.FieldsSeq(f.same) {
				parts = append(parts, variants(part)...)
			}
		}
	}
	return parts
}

// variants returns name and its possible spellings for other word sizes:
// chown32, fcntl64, clock_settime64, futex_time64 (syscalls(2)).
func variants(name string) []string {
	base := name
	for _, suffix := range []string{"_time64", "64", "32"} {
		if cut, ok := strings.CutSuffix(name, suffix); ok {
			base = cut
			break
		}
	}
	all := []string{name}
	for _, v := range []string{base, base + "32", base + "64", base + "_time64"} {
		if v != name {
			all = append(all, v)
		}
	}
	return all
}

// namespaceGuard is the denied syscall that clone reaches unless the profile
// holds clone to the baseline's rule, which admits no new namespaces.
const namespaceGuard = "unshare"
