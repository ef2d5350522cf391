//go:build lsm_apparmor || lsm_selinux

package e2e_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// enterEnv makes this test binary what runc's init is: it enters a profile and
// becomes the container's program. Its value is the attribute's file, and what
// is written to it.
const enterEnv = "CONFINE_TEST_ENTER"

func TestMain(m *testing.M) {
	if what, ok := os.LookupEnv(enterEnv); ok {
		fmt.Fprintln(os.Stderr, "entering the profile:", enter(what))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// enter does what runc does: the thread that executes the program says which
// profile the program gets (apparmor(7), setexeccon(3)), after no_new_privs, as
// allowPrivilegeEscalation: false has it.
func enter(what string) error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	file, value, _ := strings.Cut(what, " ")
	if err := os.WriteFile("/proc/thread-self/attr/"+file, []byte(value), 0); err != nil {
		return err
	}
	return syscall.Exec(os.Args[1], os.Args[1:], []string{"PATH=/bin"})
}

// process is a shell under a profile that answers each line with what the
// command in it came to.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	said bytes.Buffer
}

// enterCommand runs a program under the profile.
func enterCommand(t *testing.T, k kernel, program ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", program...)
	cmd.Env = []string{enterEnv + "=" + k.enter}
	return cmd
}

func newProcess(t *testing.T, k kernel) *process {
	t.Helper()
	p := &process{t: t, cmd: enterCommand(t, k, "/bin/busybox", "sh", "-c", `while read -r line; do eval "$line" 2>/dev/null && echo yes || echo no; done`)}
	var err error
	p.in, err = p.cmd.StdinPipe()
	must(t, err)
	out, err := p.cmd.StdoutPipe()
	must(t, err)
	p.out = bufio.NewReader(out)
	p.cmd.Stderr = &p.said
	must(t, p.cmd.Start())
	t.Cleanup(p.end)
	return p
}

func (p *process) may(command string) bool {
	p.t.Helper()
	_, err := io.WriteString(p.in, command+"\n")
	must(p.t, err)
	answer, err := p.out.ReadString('\n')
	if err != nil {
		p.end()
		p.t.Fatalf("the process ended: %v, %s", err, p.said.String())
	}
	return answer == "yes\n"
}

// end is for once or more.
func (p *process) end() {
	_ = p.in.Close()
	_ = p.cmd.Wait()
}

// label is what the kernel says the process is under.
func (p *process) label() string {
	p.t.Helper()
	label, err := os.ReadFile(fmt.Sprintf("/proc/%d/attr/current", p.cmd.Process.Pid))
	must(p.t, err)
	return strings.TrimRight(string(label), "\x00\n")
}

// reads holds what the process may read: each command by whether it succeeds.
func (p *process) reads(what string, want map[string]bool) {
	p.t.Helper()
	for file, may := range want {
		if got := p.may("read -r x < " + file); got != may {
			p.t.Errorf("%s: reading %s: %v, want %v", what, file, got, may)
		}
	}
}
