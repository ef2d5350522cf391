//go:build amd64 || arm64

package sandbox

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// machine runs a filter as the kernel would.
type machine struct{ vm *bpf.VM }

func newMachine(t *testing.T, f Filter) machine {
	t.Helper()
	calls, absent, err := f.calls()
	must(t, err)
	program, err := assemble(calls, absent)
	must(t, err)
	vm, err := bpf.NewVM(program)
	must(t, err)
	return machine{vm}
}

// answer builds struct seccomp_data. The kernel loads words as they are in memory; this
// machine takes them for big endian, so they are written so.
func (m machine) answer(t *testing.T, arch uint32, number uintptr, args ...uint64) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[offsetNumber:], uint32(number))
	binary.BigEndian.PutUint32(data[offsetArch:], arch)
	for i, arg := range args {
		binary.BigEndian.PutUint32(data[offsetArgs+8*i:], uint32(arg))
		binary.BigEndian.PutUint32(data[offsetArgs+8*i+4:], uint32(arg>>32))
	}
	got, err := m.vm.Run(data)
	must(t, err)
	return uint32(got)
}

// dangerous are calls that no filter allows, whatever their arguments.
func dangerous() map[string]uintptr {
	return map[string]uintptr{
		"ptrace": unix.SYS_PTRACE, "process_vm_readv": unix.SYS_PROCESS_VM_READV, "process_vm_writev": unix.SYS_PROCESS_VM_WRITEV,
		"process_madvise": unix.SYS_PROCESS_MADVISE, "pidfd_getfd": unix.SYS_PIDFD_GETFD, "kcmp": unix.SYS_KCMP,
		"mount": unix.SYS_MOUNT, "umount2": unix.SYS_UMOUNT2, "pivot_root": unix.SYS_PIVOT_ROOT, "fsopen": unix.SYS_FSOPEN, "fsconfig": unix.SYS_FSCONFIG,
		"fsmount": unix.SYS_FSMOUNT, "move_mount": unix.SYS_MOVE_MOUNT, "open_tree": unix.SYS_OPEN_TREE, "mount_setattr": unix.SYS_MOUNT_SETATTR,
		"bpf": unix.SYS_BPF, "perf_event_open": unix.SYS_PERF_EVENT_OPEN, "init_module": unix.SYS_INIT_MODULE, "finit_module": unix.SYS_FINIT_MODULE,
		"delete_module": unix.SYS_DELETE_MODULE, "kexec_load": unix.SYS_KEXEC_LOAD, "kexec_file_load": unix.SYS_KEXEC_FILE_LOAD,
		"keyctl": unix.SYS_KEYCTL, "add_key": unix.SYS_ADD_KEY, "request_key": unix.SYS_REQUEST_KEY, "userfaultfd": unix.SYS_USERFAULTFD,
		"io_uring_setup": unix.SYS_IO_URING_SETUP, "io_uring_enter": unix.SYS_IO_URING_ENTER, "io_uring_register": unix.SYS_IO_URING_REGISTER,
		"unshare": unix.SYS_UNSHARE, "setns": unix.SYS_SETNS, "clone3": unix.SYS_CLONE3, "reboot": unix.SYS_REBOOT, "swapon": unix.SYS_SWAPON,
		"swapoff": unix.SYS_SWAPOFF, "acct": unix.SYS_ACCT, "settimeofday": unix.SYS_SETTIMEOFDAY, "clock_settime": unix.SYS_CLOCK_SETTIME,
		"adjtimex": unix.SYS_ADJTIMEX, "clock_adjtime": unix.SYS_CLOCK_ADJTIME, "sethostname": unix.SYS_SETHOSTNAME, "setdomainname": unix.SYS_SETDOMAINNAME,
		"open_by_handle_at": unix.SYS_OPEN_BY_HANDLE_AT, "capset": unix.SYS_CAPSET, "personality": unix.SYS_PERSONALITY, "mknodat": unix.SYS_MKNODAT,
		"memfd_create": unix.SYS_MEMFD_CREATE, "memfd_secret": unix.SYS_MEMFD_SECRET, "syslog": unix.SYS_SYSLOG, "quotactl": unix.SYS_QUOTACTL,
		"fanotify_init": unix.SYS_FANOTIFY_INIT, "migrate_pages": unix.SYS_MIGRATE_PAGES, "move_pages": unix.SYS_MOVE_PAGES, "vhangup": unix.SYS_VHANGUP,
		"tkill": unix.SYS_TKILL, "rt_sigqueueinfo": unix.SYS_RT_SIGQUEUEINFO, "rt_tgsigqueueinfo": unix.SYS_RT_TGSIGQUEUEINFO, "execveat": unix.SYS_EXECVEAT,
	}
}

func TestNoFilterAllows(t *testing.T) {
	for _, f := range []Filter{Compiler, Tool, Agent, Fetch, Converter} {
		m := newMachine(t, f)
		for name, number := range dangerous() {
			for range 20 {
				args := []uint64{rand.Uint64(), rand.Uint64(), rand.Uint64(), rand.Uint64() % 20, rand.Uint64() % 2, 0}
				if m.answer(t, auditArch, number, args...) == allow {
					t.Errorf("%s allows %s%v", f, name, args)
				}
			}
		}
	}
}

func TestFilters(t *testing.T) {
	const (
		write  = unix.O_WRONLY | unix.O_CLOEXEC
		goFork = unix.CLONE_VFORK | unix.CLONE_VM | unix.CLONE_PIDFD | uint64(unix.SIGCHLD)
		thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD
		fork   = uint64(unix.SIGCHLD)
	)
	self := uint64(os.Getpid())
	here, all := []Filter{}, []Filter{Compiler, Tool, Agent, Fetch}
	tests := map[string]struct {
		number  uintptr
		args    []uint64
		allowed []Filter
	}{
		"read":                          {unix.SYS_READ, nil, all},
		"open to read":                  {unix.SYS_OPENAT, []uint64{0, 0, unix.O_CLOEXEC}, all},
		"open to write":                 {unix.SYS_OPENAT, []uint64{0, 0, write}, []Filter{Tool, Agent}},
		"open to read and write":        {unix.SYS_OPENAT, []uint64{0, 0, unix.O_RDWR}, []Filter{Tool, Agent}},
		"open, made if it is not there": {unix.SYS_OPENAT, []uint64{0, 0, unix.O_CREAT}, []Filter{Tool, Agent}},
		"open and empty":                {unix.SYS_OPENAT, []uint64{0, 0, unix.O_TRUNC}, []Filter{Tool, Agent}},
		"open without a name":           {unix.SYS_OPENAT, []uint64{0, 0, unix.O_TMPFILE | unix.O_RDWR}, []Filter{Tool, Agent}},
		"open as structure":             {unix.SYS_OPENAT2, nil, []Filter{Tool, Agent}},
		"rename":                        {unix.SYS_RENAMEAT2, nil, []Filter{Tool, Agent}},
		"chown":                         {unix.SYS_FCHOWNAT, nil, []Filter{Tool, Agent}},
		"Go's fork":                     {unix.SYS_CLONE, []uint64{goFork}, []Filter{Compiler, Tool, Agent}},
		"fork":                          {unix.SYS_CLONE, []uint64{fork}, []Filter{Tool, Agent}},
		"thread":                        {unix.SYS_CLONE, []uint64{thread}, []Filter{Tool, Agent, Fetch}},
		"fork into a user namespace":    {unix.SYS_CLONE, []uint64{goFork | unix.CLONE_NEWUSER}, here},
		"thread with a namespace":       {unix.SYS_CLONE, []uint64{thread | unix.CLONE_NEWNS}, here},
		"exec":                          {unix.SYS_EXECVE, nil, []Filter{Compiler, Tool, Agent}},
		"TCP":                           {unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM | unix.SOCK_CLOEXEC}, []Filter{Agent, Fetch}},
		"UDP over IPv6":                 {unix.SYS_SOCKET, []uint64{unix.AF_INET6, unix.SOCK_DGRAM | unix.SOCK_NONBLOCK}, []Filter{Agent, Fetch}},
		"raw":                           {unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_RAW}, here},
		"packet":                        {unix.SYS_SOCKET, []uint64{unix.AF_PACKET, unix.SOCK_DGRAM}, here},
		"vsock":                         {unix.SYS_SOCKET, []uint64{unix.AF_VSOCK, unix.SOCK_STREAM}, here},
		"crypto":                        {unix.SYS_SOCKET, []uint64{unix.AF_ALG, unix.SOCK_SEQPACKET}, here},
		"unix":                          {unix.SYS_SOCKET, []uint64{unix.AF_UNIX, unix.SOCK_STREAM}, []Filter{Tool, Agent, Fetch}},
		"a pair":                        {unix.SYS_SOCKETPAIR, []uint64{unix.AF_UNIX, unix.SOCK_SEQPACKET}, []Filter{Agent, Fetch}},
		"routes":                        {unix.SYS_SOCKET, []uint64{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE}, []Filter{Agent, Fetch}},
		"audit":                         {unix.SYS_SOCKET, []uint64{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT}, []Filter{Tool, Agent}},
		"netfilter":                     {unix.SYS_SOCKET, []uint64{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER}, here},
		"listen":                        {unix.SYS_LISTEN, nil, []Filter{Agent}},
		"a signal to itself":            {unix.SYS_KILL, []uint64{self, 9}, []Filter{Agent, Fetch}},
		"a signal to another":           {unix.SYS_KILL, []uint64{self + 1, 9}, []Filter{Agent}},
		"an interrupt of a thread":      {unix.SYS_TGKILL, []uint64{self, 17, uint64(unix.SIGURG)}, all},
		"an interrupt of another's":     {unix.SYS_TGKILL, []uint64{1 << 20, 17, uint64(unix.SIGURG)}, []Filter{Agent}},
		"the end of a thread":           {unix.SYS_TGKILL, []uint64{self, 17, uint64(unix.SIGKILL)}, []Filter{Agent, Fetch}},
		"own limits":                    {unix.SYS_PRLIMIT64, []uint64{0, 7, 1}, all},
		"another's limits":              {unix.SYS_PRLIMIT64, []uint64{self, 7, 1}, here},
		"typing on a terminal":          {unix.SYS_IOCTL, []uint64{0, unix.TIOCSTI}, here},
		"what terminal this is":         {unix.SYS_IOCTL, []uint64{0, unix.TCGETS}, all},
		"a name for a thread":           {unix.SYS_PRCTL, []uint64{unix.PR_SET_NAME}, all},
		"ambient capabilities":          {unix.SYS_PRCTL, []uint64{unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE}, here},
		"closing itself to tracers":     {unix.SYS_PRCTL, []uint64{unix.PR_SET_DUMPABLE, 0}, all},
		"opening itself to tracers":     {unix.SYS_PRCTL, []uint64{unix.PR_SET_DUMPABLE, 1}, here},
		"a copy of a descriptor":        {unix.SYS_FCNTL, []uint64{3, unix.F_DUPFD_CLOEXEC}, all},
		"signals to others by files":    {unix.SYS_FCNTL, []uint64{3, unix.F_SETOWN, 1}, here},
		"such to threads":               {unix.SYS_FCNTL, []uint64{3, unix.F_SETOWN_EX, 1}, here},
		"such of any kind":              {unix.SYS_FCNTL, []uint64{3, unix.F_SETSIG, 9}, here},
		"letting others trace it":       {unix.SYS_PRCTL, []uint64{unix.PR_SET_PTRACER}, here},
		"a further filter":              {unix.SYS_SECCOMP, nil, []Filter{Agent}},
		"chroot":                        {unix.SYS_CHROOT, nil, []Filter{Compiler, Tool, Agent}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, f := range all {
				want := false
				for _, a := range test.allowed {
					want = want || a == f
				}
				if got := newMachine(t, f).answer(t, auditArch, test.number, test.args...); (got == allow) != want {
					t.Errorf("%s answers %#x, allowed should be %v", f, got, want)
				}
			}
		})
	}
}

// TestOtherEntrances holds that numbers are taken for those of this
// architecture only where they are.
func TestOtherEntrances(t *testing.T) {
	for _, f := range []Filter{Compiler, Tool, Agent, Fetch, Converter} {
		m := newMachine(t, f)
		for what, test := range map[string]struct {
			arch   uint32
			number uintptr
			want   uint32
		}{
			"i386":                  {unix.AUDIT_ARCH_I386, unix.SYS_READ, kill},
			"another byte order":    {unix.AUDIT_ARCH_PPC64, unix.SYS_READ, kill},
			"x32":                   {auditArch, unix.SYS_READ | 0x40000000, unknown},
			"a call of a later day": {auditArch, newest + 1, unknown},
			"clone3":                {auditArch, unix.SYS_CLONE3, unknown},
			"a refused one":         {auditArch, unix.SYS_MOUNT, refuse},
		} {
			if got := m.answer(t, test.arch, test.number); got != test.want {
				t.Errorf("%s, %s: %#x, want %#x", f, what, got, test.want)
			}
		}
	}
}

// TestHighWords holds that the upper half of a long argument counts, and that of an int
// does not.
func TestHighWords(t *testing.T) {
	m := newMachine(t, Agent)
	if m.answer(t, auditArch, unix.SYS_SOCKET, unix.AF_PACKET|1<<32, unix.SOCK_STREAM) == allow {
		t.Error("a family that the kernel cuts to AF_PACKET")
	}
	if m.answer(t, auditArch, unix.SYS_SOCKET, unix.AF_INET|1<<32, unix.SOCK_STREAM) != allow {
		t.Error("a family that the kernel cuts to AF_INET")
	}
	wide, err := assemble([]call{{unix.SYS_READ, []check{{arg: 5, mask: 0xff << 36, value: 3 << 36}}}}, nil)
	must(t, err)
	vm, err := bpf.NewVM(wide)
	must(t, err)
	for arg, want := range map[uint64]uint32{3 << 36: allow, 3<<36 | 77: allow, 3: refuse, 0: refuse} {
		if got := (machine{vm}).answer(t, auditArch, unix.SYS_READ, 0, 0, 0, 0, 0, arg); got != want {
			t.Errorf("%#x: %#x, want %#x", arg, got, want)
		}
	}
}
