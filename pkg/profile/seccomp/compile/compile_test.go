//go:build linux && cgo && libseccomp

package compile_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/profile/seccomp/compile"
	"github.com/confine-dev/confine/pkg/reason"
)

// childCommand, when set, is what the child becomes after it loaded the profile.
const childCommand = "CONFINE_TEST_SECCOMP_COMMAND"

// childProfile holds the profile that a re-executed test binary loads.
const childProfile = "CONFINE_TEST_SECCOMP_PROFILE"

func TestMain(m *testing.M) {
	if text := os.Getenv(childProfile); text != "" {
		os.Exit(child(text))
	}
	os.Exit(m.Run())
}

// child loads the profile, tries three syscalls on this thread and prints
// what the kernel said.
func child(text string) int {
	runtime.LockOSThread()
	p, err := seccomp.Parse("child.json", []byte(text))
	if err != nil {
		fmt.Println(err)
		return 2
	}
	if err := compile.Load(p); err != nil {
		fmt.Println(err)
		return 3
	}
	if command := os.Getenv(childCommand); command != "" {
		fmt.Println(syscall.Exec("/bin/sh", []string{"sh", "-c", command}, nil))
		return 4
	}
	_, _, mkdir := unix.RawSyscall(unix.SYS_MKDIRAT, ^uintptr(0), 0, 0)
	_, _, zero := unix.RawSyscall(unix.SYS_PERSONALITY, 0xffffffff, 0, 0)
	_, _, other := unix.RawSyscall(unix.SYS_GETPRIORITY, 2, 0, 0)
	fmt.Println(int(mkdir), int(zero), int(other))
	return 0
}

func inChild(t *testing.T, profile string, env ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(append(os.Environ(), childProfile+"="+profile), env...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func TestLoadedFiltersAreEnforced(t *testing.T) {
	tests := map[string]struct{ profile, want string }{
		"nothing denied": {
			`{"defaultAction":"SCMP_ACT_ALLOW"}`,
			fmt.Sprint(int(unix.EFAULT), 0, 0),
		},
		"EPERM where no errno is given": {
			`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`,
			fmt.Sprint(int(unix.EPERM), 0, 0),
		},
		"the errno given, and a name nobody knows is skipped": {
			`{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG"],"syscalls":[
			  {"names":["mkdirat","no_such_call"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}`,
			fmt.Sprint(int(unix.EOPNOTSUPP), 0, 0),
		},
		"a condition that holds": {
			`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["personality"],"action":"SCMP_ACT_ERRNO","errnoRet":38,
			  "args":[{"index":0,"value":4294967295,"op":"SCMP_CMP_EQ"}]}]}`,
			fmt.Sprint(int(unix.EFAULT), int(unix.ENOSYS), 0),
		},
		"a condition that does not hold": {
			`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["personality"],"action":"SCMP_ACT_ERRNO",
			  "args":[{"index":0,"value":4294967295,"op":"SCMP_CMP_NE"}]}]}`,
			fmt.Sprint(int(unix.EFAULT), 0, 0),
		},
		"one index twice is OR, as in runc": {
			`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["getpriority"],"action":"SCMP_ACT_ERRNO",
			  "args":[{"index":0,"value":1,"op":"SCMP_CMP_GT"},{"index":0,"value":1,"op":"SCMP_CMP_LT"}]}]}`,
			fmt.Sprint(int(unix.EFAULT), 0, int(unix.EPERM)),
		},
		"masked values lose bits outside the mask": {
			`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["getpriority"],"action":"SCMP_ACT_ERRNO",
			  "args":[{"index":0,"value":2,"valueTwo":18,"op":"SCMP_CMP_MASKED_EQ"}]}]}`,
			fmt.Sprint(int(unix.EFAULT), 0, int(unix.EPERM)),
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := inChild(t, tc.profile)
			if err != nil {
				t.Fatalf("child: %v: %s", err, got)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("errnos of mkdirat, personality, getpriority (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFiltersAndNoNewPrivsOutliveExec(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	command := "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status; mkdir " + dir + " 2>/dev/null || echo refused"
	out, err := inChild(t, `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`,
		childCommand+"="+command, "PATH=/usr/bin:/bin")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if diff := cmp.Diff([]string{"NoNewPrivs:", "1", "Seccomp:", "2", "refused"}, strings.Fields(out)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder was made: %v", err)
	}
}

func TestKillProcessKills(t *testing.T) {
	out, err := inChild(t, `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdirat"],"action":"SCMP_ACT_KILL_PROCESS"}]}`)
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		t.Fatalf("the child lived: %v: %s", err, out)
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); !ok || status.Signal() != unix.SIGSYS {
		t.Errorf("the child ended with %v, want SIGSYS", exit)
	}
}

func TestLoadRefusesWhatNeedsAnAgent(t *testing.T) {
	err := compile.Load(&seccomp.Profile{DefaultAction: seccomp.ActNotify})
	if !errors.Is(err, reason.KindUnsupported) {
		t.Errorf("got %v, want KindUnsupported", err)
	}
}

func TestCheck(t *testing.T) {
	tests := map[string]struct {
		profile  string
		findings int
		err      error
	}{
		"plain": {`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`, 0, nil},
		"an unknown name": {
			`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["raed"],"action":"SCMP_ACT_ALLOW"}]}`, 1, nil},
		"for other machines": {
			`{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_S390X","SCMP_ARCH_S390"],
			  "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`, 0, nil},
		"both byte orders": {
			`{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_S390X","SCMP_ARCH_X86_64"]}`, 0, reason.ProfileInvalid},
		"an architecture runc does not know": {
			`{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_SH"]}`, 1, nil},
		"a rule equal to the default": {
			`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["raed"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}`, 0, nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := seccomp.Parse("p.json", []byte(tc.profile))
			if err != nil {
				t.Fatal(err)
			}
			found, err := compile.Check(p)
			if !errors.Is(err, tc.err) || len(found) != tc.findings {
				t.Errorf("got %v and %v, want %d findings and %v", found, err, tc.findings, tc.err)
			}
		})
	}
}

func TestEveryActionOperatorAndArchitectureCompiles(t *testing.T) {
	for _, a := range seccomp.Actions() {
		for _, op := range seccomp.Operators() {
			p := &seccomp.Profile{DefaultAction: seccomp.ActErrno, Syscalls: []seccomp.Syscall{{
				Names: []string{"getppid"}, Action: a, Args: []seccomp.Arg{{Index: 5, Value: 1<<63 + 5, ValueTwo: 1, Op: op}},
			}}}
			if found, err := compile.Check(p); err != nil || len(found) > 0 {
				t.Errorf("%s %s: %v %v", a, op, found, err)
			}
		}
	}
	for _, arch := range seccomp.Arches() {
		p := &seccomp.Profile{DefaultAction: seccomp.ActErrno, Architectures: []seccomp.Arch{arch}}
		if _, err := compile.Check(p); err != nil {
			t.Errorf("%s: %v", arch, err)
		}
	}
}

func TestResolver(t *testing.T) {
	r := compile.Resolver()
	for name, want := range map[string]bool{
		"read": true, "socketcall": true, "Read": false, "raed": false, "": false, "read\x00x": false,
	} {
		if got := r.Resolves(name); got != want {
			t.Errorf("Resolves(%q) = %v, want %v", name, got, want)
		}
	}
	if !compile.Available() {
		t.Error("Available() = false in a build with libseccomp")
	}
}
