package fetch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact/fetchtest"
	"github.com/confine-dev/confine/pkg/reason"
	"github.com/confine-dev/confine/pkg/sandbox"
)

// childrenOf returns the processes whose parent is this one and whose command
// line has what.
func childrenOf(t testing.TB, what string) []int {
	t.Helper()
	var found []int
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // it ended
		}
		_, rest, _ := bytes.Cut(stat, []byte(") "))
		fields := strings.Fields(string(rest))
		line, err := os.ReadFile(filepath.Join(filepath.Dir(name), "cmdline"))
		if err != nil || len(fields) < 2 || fields[1] != strconv.Itoa(os.Getpid()) || !strings.Contains(string(line), what) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, pid)
	}
	return found
}

// theChild returns the one child, which answers already.
func theChild(t testing.TB, what string) int {
	t.Helper()
	found := childrenOf(t, what)
	if len(found) != 1 {
		t.Fatalf("there are %d children, want one", len(found))
	}
	return found[0]
}

// What the child may do is what the kernel says it may.
func TestWhatTheChildMayDo(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
	t.Setenv("NOTIFY_SOCKET", "/run/systemd/notify")
	t.Setenv("HTTPS_PROXY", "http://proxy.example:3128")
	s, a := newSource(t), fetchtest.Example()
	s.put(t, a)
	for name, begin := range map[string]func(t testing.TB) *Remote{
		"child started here": func(t testing.TB) *Remote { return start(t) },
		"child that dials":   func(t testing.TB) *Remote { return startListening(t) },
	} {
		t.Run(name, func(t *testing.T) {
			r := begin(t)
			eventually(t, "it answers", works(r, s, a))
			pid := theChild(t, asChild)
			wantConfined(t, pid)
			if name == "child started here" {
				wantDescriptors(t, pid)
				wantEnvironment(t, pid)
				wantLimit(t, pid, "Max processes", childProcesses)
			}
		})
	}
}

func wantConfined(t *testing.T, pid int) {
	t.Helper()
	got, err := sandbox.StatusOf(pid)
	if err != nil {
		t.Fatal(err)
	}
	uid := childUID()
	want := sandbox.Status{UID: [4]int{uid, uid, uid, uid}, GID: got.GID, NoNewPrivs: true, Filtered: true, Bounding: got.Bounding}
	if os.Geteuid() == 0 {
		want.GID = want.UID
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("/proc/%d/status (-want +got):\n%s", pid, diff)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(string(text), line+"\n") {
			t.Errorf("/proc/%d/status has no line %q", pid, line)
		}
	}
	if os.Geteuid() == 0 && !strings.Contains(string(text), "\nGroups:\t \n") {
		t.Errorf("it is in further groups:\n%s", text)
	}
	wantLimit(t, pid, "Max core file size", 0)
	wantLimit(t, pid, "Max open files", childFiles)
	if !raceDetector {
		wantLimit(t, pid, "Max data size", childMemory)
		wantLimit(t, pid, "Max file size", 1)
	}
}

func wantLimit(t *testing.T, pid int, name string, want int) {
	t.Helper()
	if name == "Max processes" && os.Geteuid() != 0 {
		return // its user is ours
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok {
			continue
		}
		if fields := strings.Fields(rest); fields[0] != strconv.Itoa(want) || fields[1] != strconv.Itoa(want) {
			t.Errorf("%s: %q, want %d", name, strings.TrimSpace(rest), want)
		}
		return
	}
	t.Errorf("no limit %q", name)
}

// wantDescriptors holds that the child has nothing open for writing but
// sockets, its own event descriptors and its log.
func wantDescriptors(t *testing.T, pid int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // a connection that was closed
		}
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, e.Name()))
		if err != nil {
			continue
		}
		_, flags, _ := strings.Cut(string(info), "flags:\t")
		flags, _, _ = strings.Cut(flags, "\n")
		mode, err := strconv.ParseUint(flags, 8, 64)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case mode&syscall.O_ACCMODE == syscall.O_RDONLY, e.Name() == "2":
		case strings.HasPrefix(target, "socket:"), target == "anon_inode:[eventpoll]", target == "anon_inode:[eventfd]":
		default:
			t.Errorf("descriptor %s is open for writing: %s", e.Name(), target)
		}
	}
}

// wantEnvironment holds that the child knows how to reach registries, and
// nothing of the cluster and the service manager.
func wantEnvironment(t *testing.T, pid int) {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	known := []string{"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "GODEBUG",
		"CONFINE_SANDBOX_ENTERED"} // sandbox.Enter's own
	entries := strings.Split(strings.TrimRight(string(data), "\x00"), "\x00")
	for _, entry := range entries {
		if name, _, _ := strings.Cut(entry, "="); !slices.Contains(known, name) {
			t.Errorf("its environment has %s", name)
		}
	}
	if !slices.Contains(entries, "HTTPS_PROXY=http://proxy.example:3128") {
		t.Errorf("it does not know the proxy: %q", entries)
	}
}

// record keeps a log, for tests to look into.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) count(what string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Count(r.text.String(), what)
}

func withRecord(rec *record) func(*Options) {
	return func(o *Options) { o.Log = slog.New(slog.NewTextHandler(rec, nil)) }
}

// A child that is killed is RegistryUnavailable for what it was asked, and
// another one takes its place.
func TestKilledChild(t *testing.T) {
	s, a, rec := newSource(t), fetchtest.Example(), &record{}
	s.put(t, a)
	r := start(t, withRecord(rec))
	for range 3 {
		eventually(t, "it answers", works(r, s, a))
		pid := theChild(t, asChild)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is gone", func() bool { return !slices.Contains(childrenOf(t, asChild), pid) })
	}
	eventually(t, "it answers at last", works(r, s, a))
	if n := rec.count("the fetch child ended"); n != 3 {
		t.Errorf("its end was told %d times, want 3", n)
	}
}

// What is under way when the child is stopped or killed ends as RegistryUnavailable.
func TestChildEndsInMidRequest(t *testing.T) {
	s, a := newSource(t), fetchtest.Example()
	s.put(t, a)
	r := start(t)
	eventually(t, "it answers", works(r, s, a))
	w := r.Signatures(t.Context(), s.repo, a.Digest(), noneSeen)
	if _, err := w.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(theChild(t, asChild), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Next(t.Context()); !errors.Is(err, reason.RegistryUnavailable) {
		t.Fatalf("Next: %v, want RegistryUnavailable", err)
	}
	found := 1
	for range 100 {
		_, err := w.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Log(err) // the end may not have been noticed yet
			continue
		}
		found++
	}
	if found != len(a.Signatures) {
		t.Errorf("the walk found %d signatures, want %d", found, len(a.Signatures))
	}
}

// The child does not outlive its parent, however that ends: here it is killed.
func TestChildDiesWithItsParent(t *testing.T) {
	if os.Getenv("FETCH_TEST_PARENT") != "" {
		start(t)
		time.Sleep(time.Hour)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestChildDiesWithItsParent$")
	cmd.Env = append(os.Environ(), "FETCH_TEST_PARENT=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	grandchild := func() []int {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		var pids []int
		for _, name := range tasks {
			data, err := os.ReadFile(name)
			if err != nil {
				continue
			}
			for _, field := range strings.Fields(string(data)) {
				pid, err := strconv.Atoi(field)
				if err == nil {
					pids = append(pids, pid)
				}
			}
		}
		return pids
	}
	eventually(t, "it has a child", func() bool { return len(grandchild()) == 1 })
	pid := grandchild()[0]
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	eventually(t, "the child is gone, too", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}

// A file that only the parent can open reaches the child, and so does the one
// that replaces it.
func TestCredentialsOfRootAlone(t *testing.T) {
	s, a := newSource(t), fetchtest.Example()
	s.put(t, a)
	file := filepath.Join(t.TempDir(), "config.json")
	write := func(password string) {
		t.Helper()
		text := fmt.Sprintf(`{"auths":{%q:{"username":"me","password":%q}}}`, s.repo.Host, password)
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write("first")
	r := start(t, func(o *Options) { o.DockerConfig = file })
	for _, password := range []string{"first", "second", "third"} {
		s.demandPassword(password)
		if password != "first" {
			if _, err := r.Manifest(t.Context(), s.repo, a.Digest()); !errors.Is(err, reason.Unauthorized) {
				t.Fatalf("with the password of before: %v, want Unauthorized", err)
			}
			write(password)
		}
		if _, err := r.Manifest(t.Context(), s.repo, a.Digest()); err != nil {
			t.Fatalf("with the password %s: %v", password, err)
		}
	}
	// Withdrawn is withdrawn.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	s.demandPassword("fourth")
	if _, err := r.Manifest(t.Context(), s.repo, a.Digest()); err == nil {
		t.Error("without the file it was still read")
	}
}

// What keeps a child from starting is told where somebody asks for something.
func TestChildThatCannotStart(t *testing.T) {
	s := newSource(t)
	broken := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		change func(*Options)
		want   string
	}{
		"no program":       {func(o *Options) { o.Program = []string{"/no/such/program"} }, "no such file"},
		"another program":  {func(o *Options) { o.Program = []string{"/bin/true"} }, "not ready"},
		"bad credentials":  {func(o *Options) { o.DockerConfig = broken }, "the docker config file is not valid JSON"},
		"no credentials":   {func(o *Options) { o.DockerConfig = broken + "x" }, "the agent cannot open it"},
		"a folder":         {func(o *Options) { o.DockerConfig = filepath.Dir(broken) }, "the agent cannot open it"},
		"bad certificates": {func(o *Options) { o.CAFile = broken }, "holds no certificate"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			rec := &record{}
			r := start(t, test.change, withRecord(rec))
			var err error
			eventually(t, "the error says "+test.want, func() bool {
				_, err = r.Manifest(t.Context(), s.repo, digest.FromString("x"))
				return err != nil && strings.Contains(err.Error(), test.want)
			})
			if !errors.Is(err, reason.RegistryUnavailable) {
				t.Errorf("%v, want RegistryUnavailable", err)
			}
			time.Sleep(100 * time.Millisecond) // some more starts
			if n := rec.count("the fetch child ended"); n != 1 {
				t.Errorf("it was told %d times, want once:\n%s", n, rec.text.String())
			}
		})
	}
}

// A child that hangs is replaced; one that does not end is ended.
func TestStoppedChild(t *testing.T) {
	s, a := newSource(t), fetchtest.Example()
	s.put(t, a)
	r := start(t, func(o *Options) { o.limits.respond, o.limits.leave = 3*time.Second, 100*time.Millisecond })
	eventually(t, "it answers", works(r, s, a))
	pid := theChild(t, asChild)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Manifest(t.Context(), s.repo, a.Digest()); !errors.Is(err, reason.RegistryUnavailable) {
		t.Errorf("Manifest: %v, want RegistryUnavailable", err)
	}
	eventually(t, "another one answers", works(r, s, a))
	if slices.Contains(childrenOf(t, asChild), pid) {
		t.Error("the one that hung is still there")
	}
}

func TestRootIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start a process of root")
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", asChild)
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "runs as root") {
		t.Errorf("it said %q, %v", out, err)
	}
}

func TestLinesAreBounded(t *testing.T) {
	rec := &record{}
	l := &lines{log: slog.New(slog.NewTextHandler(rec, nil))}
	text := strings.Repeat("x", 10*maxLineBytes) + "\n\x1b[31mred\x1b[0m\u202e\x00\nlevel=INFO msg=fine\n"
	l.forward(strings.NewReader(text + strings.Repeat("again and again\n", 10*maxLines)))
	if n := rec.count("\n"); n != maxLines {
		t.Errorf("%d lines were written, want %d", n, maxLines)
	}
	if rec.count("x") > maxLineBytes {
		t.Error("a long line was not cut")
	}
	for _, bad := range []string{"\x1b", `\x1b`, "\x00", "\u202e"} {
		if rec.count(bad) != 0 {
			t.Errorf("%q came through", bad)
		}
	}
	if rec.count("level=INFO") != 1+1 { // the line, and its own level
		t.Errorf("levels:\n%s", rec.text.String())
	}
}
