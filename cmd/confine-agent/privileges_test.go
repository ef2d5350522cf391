//go:build linux && cgo && libseccomp

package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/node/fetch"
	"github.com/confine-dev/confine/pkg/sandbox"
)

// ordinary is nobody's user on the machines that run these tests.
const ordinary = 64217

// started is a real agent in a process of its own.
type started struct {
	*site
	cmd  *exec.Cmd
	errs *lockedBuffer
}

// start starts this test binary as an agent, as root or as an ordinary user.
func (s *site) start(uid uint32, args ...string) *started {
	s.t.Helper()
	if os.Geteuid() != 0 {
		s.t.Skip("needs setuid(2) to other users, which only root may")
	}
	binary := s.path("agent")
	if _, err := os.Stat(binary); err != nil {
		data, err := os.ReadFile(os.Args[0])
		s.must(err)
		s.must(os.WriteFile(binary, data, 0o755))
		s.must(os.Chmod(filepath.Dir(s.dir), 0o755))
		s.must(filepath.WalkDir(s.dir, func(name string, e fs.DirEntry, err error) error {
			if err != nil || name == binary {
				return err
			}
			if e.IsDir() {
				return os.Chmod(name, 0o755)
			}
			return os.Chmod(name, 0o644)
		}))
	}
	s.must(os.MkdirAll(s.path("root"), 0o755))
	s.must(os.Chown(s.path("root"), int(uid), int(uid)))
	a := &started{site: s, errs: &lockedBuffer{}}
	a.cmd = s.command(uid, append([]string{"--manifests", s.path("manifests"), "--trust", s.path("trust"), "--root", s.path("root")}, args...)...)
	a.cmd.Stderr = a.errs
	s.must(a.cmd.Start())
	ended := make(chan struct{})
	go func() {
		_ = a.cmd.Wait()
		close(ended)
	}()
	s.t.Cleanup(func() {
		_ = a.cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		if code := a.cmd.ProcessState.ExitCode(); code != exitOK {
			s.t.Errorf("the agent ended with %d: %s", code, a.errs.String())
		}
	})
	return a
}

func (s *site) command(uid uint32, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.WithoutCancel(s.t.Context()), s.path("agent"), args...)
	cmd.Env, cmd.Dir = append(os.Environ(), agentEnv+"=1"), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return cmd
}

// installs wants one more profile and waits for it.
func (a *started) installs(name string) {
	a.t.Helper()
	a.push(name, profileText, a.key)
	a.must(os.Chmod(a.path("manifests/"+name+".yaml"), 0o644))
	defer func() {
		if a.t.Failed() {
			a.t.Log(a.errs.String())
		}
	}()
	a.until(name+" is installed", func() bool { return a.installed(name) == profileText })
}

// children are the processes that a process started.
func children(t *testing.T, parent int) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if line(fmt.Sprintf("/proc/%d/status", pid), "PPid:") == strconv.Itoa(parent) {
			found = append(found, pid)
		}
	}
	return found
}

// line is the rest of the line that begins so; empty where the process is gone.
func line(file, begin string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for l := range bytes.Lines(data) {
		if rest, ok := bytes.CutPrefix(l, []byte(begin)); ok {
			return strings.TrimSpace(string(rest))
		}
	}
	return ""
}

// wantProcess looks at every thread of a process.
func wantProcess(t *testing.T, what string, pid int, uid int, keep ...sandbox.Capability) {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("%s: %d threads, %v", what, len(tasks), err)
	}
	type said struct{ UID, Permitted, Effective, Inheritable, Ambient, NoNewPrivs, Seccomp string }
	set := fmt.Sprintf("%016x", uint64(sandbox.SetOf(keep...)))
	none := fmt.Sprintf("%016x", 0)
	want := said{strings.TrimSuffix(strings.Repeat(strconv.Itoa(uid)+"\t", 4), "\t"), set, set, none, none, "1", "2"}
	for _, task := range tasks {
		status := fmt.Sprintf("/proc/%d/task/%s/status", pid, task.Name())
		got := said{
			line(status, "Uid:"), line(status, "CapPrm:"), line(status, "CapEff:"), line(status, "CapInh:"), line(status, "CapAmb:"),
			line(status, "NoNewPrivs:"), line(status, "Seccomp:"),
		}
		if got.UID == "" {
			continue // a thread that ended
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s, thread %s: %s", what, task.Name(), diff)
		}
	}
	if limits := line(fmt.Sprintf("/proc/%d/limits", pid), "Max core file size"); !strings.HasPrefix(limits, "0 ") {
		t.Errorf("%s: core files: %s", what, limits)
	}
}

// theChild is the fetch child that an agent has now.
func (a *started) theChild() int {
	a.t.Helper()
	child := 0
	a.until("it has a fetch child", func() bool {
		found := children(a.t, a.cmd.Process.Pid)
		if len(found) == 1 && line(fmt.Sprintf("/proc/%d/status", found[0]), "Seccomp:") == "2" {
			child = found[0]
		}
		return child != 0
	})
	return child
}

// TestWithSeccompAloneNothingIsRoot and nothing has any privilege.
func TestWithSeccompAloneNothingIsRoot(t *testing.T) {
	a := newSite(t).start(ordinary)
	a.installs("nginx")
	wantProcess(t, "agent", a.cmd.Process.Pid, ordinary)
	wantProcess(t, "fetch child", a.theChild(), ordinary)
}

func TestAnAgentThatIsRootKeepsWhatItsKindsNeed(t *testing.T) {
	start := []sandbox.Capability{sandbox.CapKill, sandbox.CapSetgid, sandbox.CapSetuid}
	for name, c := range map[string]struct {
		args []string
		keep []sandbox.Capability
	}{
		"seccomp":   {nil, start},
		"apparmor":  {[]string{"--kinds", "seccomp,apparmor"}, append(slices.Clone(start), sandbox.CapSysChroot, sandbox.CapMACAdmin)},
		"selinux":   {[]string{"--kinds", "seccomp,selinux"}, append(slices.Clone(start), sandbox.CapSysChroot)},
		"all":       {[]string{"--kinds", "seccomp,apparmor,selinux"}, append(slices.Clone(start), sandbox.CapSysChroot, sandbox.CapMACAdmin)},
		"in a host": {[]string{"--kinds", "seccomp,apparmor", "--host-root", "/proc/1/root"}, append(slices.Clone(start), sandbox.CapSysChroot, sandbox.CapMACAdmin, sandbox.CapSysPtrace)},
	} {
		t.Run(name, func(t *testing.T) {
			a := newSite(t).start(0, c.args...)
			a.installs("nginx")
			status, err := sandbox.StatusOf(os.Getpid())
			a.must(err)
			keep := slices.DeleteFunc(slices.Clone(c.keep), func(c sandbox.Capability) bool { return !status.Permitted.Has(c) })
			wantProcess(t, "agent", a.cmd.Process.Pid, 0, keep...)
			wantProcess(t, "fetch child", a.theChild(), fetch.DefaultUID)
		})
	}
}

// TestAFetchChildThatIsKilledComesBack and meanwhile nothing is lost.
func TestAFetchChildThatIsKilledComesBack(t *testing.T) {
	a := newSite(t).start(0)
	a.installs("one")
	child := a.theChild()
	a.must(syscall.Kill(child, syscall.SIGKILL))
	a.installs("two")
	if again := a.theChild(); again == child {
		t.Errorf("process %d was killed and is there", child)
	}
}

// TestAFetchChildThatSomebodyElseStarts is the one of a second container. It is
// started before the agent and after it, and alone has the credentials.
func TestAFetchChildThatSomebodyElseStarts(t *testing.T) {
	s := newSite(t)
	s.must(os.Mkdir(s.path("run"), 0o755))
	s.must(os.Chmod(s.path("run"), 0o755))
	socket := s.path("run/fetch.sock")
	a := s.start(0, "--fetch-socket", socket, "--fetch-uid", strconv.Itoa(ordinary))
	s.until("it listens", func() bool { _, err := os.Stat(socket); return err == nil })
	serve := func(uid uint32) (*exec.Cmd, *lockedBuffer) {
		errs := &lockedBuffer{}
		child := s.command(uid, "fetch", "--socket", socket)
		child.Stderr = errs
		s.must(child.Start())
		return child, errs
	}
	child, _ := serve(ordinary)
	a.installs("one")
	wantProcess(t, "agent", a.cmd.Process.Pid, 0)
	wantProcess(t, "fetch child", child.Process.Pid, ordinary)
	s.must(child.Process.Kill())
	_ = child.Wait()

	// Somebody else's is sent away, and asks no registry.
	s.requests.Store(0)
	stranger, said := serve(ordinary + 1)
	s.push("two", profileText, s.key)
	s.must(os.Chmod(s.path("manifests/two.yaml"), 0o644))
	s.requests.Store(0)
	s.until("it is sent away", func() bool { return strings.Contains(said.String(), "ended the connection") })
	if got := s.installed("two"); got != "" || s.requests.Load() != 0 {
		t.Errorf("a stranger brought %q with %d requests", got, s.requests.Load())
	}
	s.must(stranger.Process.Kill())
	_ = stranger.Wait()
	child, _ = serve(ordinary)
	s.until("two is installed: "+a.errs.String(), func() bool { return s.installed("two") == profileText })
	s.must(child.Process.Kill())
	_ = child.Wait()
}

// TestCredentialsReachTheChildAlone: the agent opens the file and never reads
// it, so the child needs no right to it.
func TestCredentialsReachTheChildAlone(t *testing.T) {
	s := newSite(t)
	inner := s.server.Config.Handler
	s.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); r.Header.Get("User-Agent") != "" && strings.HasPrefix(r.UserAgent(), "confine-agent") && user+password != "reader"+"secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	})
	s.write("config.json", fmt.Sprintf(`{"auths": {%q: {"username": "reader", "password": "secret"}}}`, s.host()))
	a := s.start(0, "--docker-config", s.path("config.json"))
	s.must(os.Chmod(s.path("config.json"), 0o600))
	a.installs("nginx")
	for _, pid := range []int{a.cmd.Process.Pid, a.theChild()} {
		if args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err != nil || strings.Contains(string(args), "secret") {
			t.Errorf("%q, %v", args, err)
		}
	}
	if strings.Contains(a.errs.String(), "secret") {
		t.Errorf("the log has it: %s", a.errs.String())
	}
}
