//go:build amd64 || arm64

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const perl = "/usr/bin/perl" // essential in Debian

// attempts are what a compiler has no business with. Each prints "done" when it
// did it, and ends otherwise.
func attempts(dir string) map[string]string {
	numbered := func(number int, args string) string {
		return fmt.Sprintf(`my $r = syscall(%d, %s); die "refused: $!" if $r < 0; print "done"`, number, args)
	}
	return map[string]string{
		"a TCP socket":            numbered(unix.SYS_SOCKET, "2, 1, 0"),
		"a unix socket":           numbered(unix.SYS_SOCKET, "1, 1, 0"),
		"a netlink socket":        numbered(unix.SYS_SOCKET, "16, 3, 9"),
		"a pair of sockets":       `use Socket; socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, 0) or die; print "done"`,
		"ptrace":                  numbered(unix.SYS_PTRACE, "0, 0, 0, 0"),
		"io_uring":                numbered(unix.SYS_IO_URING_SETUP, `4, my $p = "\0" x 256`),
		"a user namespace":        numbered(unix.SYS_UNSHARE, "0x10000000"),
		"a key ring":              numbered(unix.SYS_KEYCTL, "0, -3, 1"),
		"an executable in memory": numbered(unix.SYS_MEMFD_CREATE, `my $n = "x\0", 0`),
		"a signal":                `kill(0, $$) or die "refused: $!"; print "done"`,
		"a process":               `defined(my $p = fork) or die "refused: $!"; if (!$p) { exit } wait; print "done"`,
		"another program":         `my $r = qx(/bin/true); die "refused: $!" if $? != 0; print "done"`,
		"memory":                  `my $x = "x" x (600 << 20); print "done" if length($x)`,
		"many files":              `my @f; for (1 .. 100) { open(my $f, "<", "/dev/null") or die "refused: $!"; push @f, $f } print "done"`,
		"a new file":              fmt.Sprintf(`open(my $f, ">", "%s/new") or die "refused: $!"; print "done"`, dir),
		"a file that is there":    fmt.Sprintf(`open(my $f, "+<", "%s/there") or die "refused: $!"; print "done"`, dir),
		"a folder":                fmt.Sprintf(`mkdir("%s/folder") or die "refused: $!"; print "done"`, dir),
		"a file taken away":       fmt.Sprintf(`unlink("%s/there") or die "refused: $!"; print "done"`, dir),
		"another mode":            fmt.Sprintf(`chmod(0777, "%s/there") or die "refused: $!"; print "done"`, dir),
	}
}

// place is a folder in which everybody may do everything.
func place(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "confine-sandbox-") //nolint:usetesting // the folders above t.TempDir are closed to other users
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o777))
	must(t, os.WriteFile(filepath.Join(dir, "there"), nil, 0o600))
	if os.Geteuid() == 0 {
		must(t, os.Chown(filepath.Join(dir, "there"), Nobody, Nobody))
	}
	return dir
}

// toolCannot are the attempts that a tool must fail at, too.
func toolCannot() []string {
	return []string{"a TCP socket", "ptrace", "io_uring", "a user namespace", "a key ring", "an executable in memory", "a signal"}
}

// TestCompilerCannot shows of each attempt that it works without the sandbox, as
// the same user, and does not within.
func TestCompilerCannot(t *testing.T) {
	t.Parallel()
	for name := range attempts("") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			said, err := plain(t, attempts(place(t))[name])
			if err != nil || said != "done" {
				t.Fatalf("without a sandbox it should work: %q, %v", said, err)
			}
			refused(t, Compiler, attempts(place(t))[name])
			if slices.Contains(toolCannot(), name) {
				refused(t, Tool, attempts(place(t))[name])
			}
		})
	}
	for _, name := range toolCannot() {
		if attempts("")[name] == "" {
			t.Errorf("no attempt is called %s", name)
		}
	}
}

func refused(t *testing.T, f Filter, script string) {
	t.Helper()
	out, log := &Output{Max: 1 << 10}, &Output{Max: 1 << 10}
	err := Run(t.Context(), Program{Path: perl, Args: []string{"-e", script}, Stdout: out, Stderr: log, Filter: f})
	if _, ended := errors.AsType[*exec.ExitError](err); !ended || out.String() == "done" {
		t.Errorf("%s: %q, %v: %s", f, out, err, log)
	}
}

// TestToolCan does what semodule does: files, children, the audit socket.
func TestToolCan(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := fmt.Sprintf(`chdir("%s") or die; mkdir("a") or die; open(my $f, ">", "a/b") or die; print $f "x" x 70000; close $f or die;
		rename("a/b", "a/c") or die; chmod(0600, "a/c") or die; chown($<, $( + 0, "a/c") or die; syscall(%d, 16, 3, 9) < 0 and die "audit: $!";
		system("/bin/sh", "-c", "cat a/c | wc -c > count; test -d /") == 0 or die "children"; unlink("a/c") or die; rmdir("a") or die;`, dir, unix.SYS_SOCKET)
	log := &Output{Max: 1 << 10}
	if err := Run(t.Context(), Program{Path: perl, Args: []string{"-e", script}, Stderr: log, Filter: Tool}); err != nil {
		t.Fatalf("%v: %s", err, log)
	}
	count, err := os.ReadFile(filepath.Join(dir, "count"))
	must(t, err)
	if strings.TrimSpace(string(count)) != "70000" {
		t.Errorf("%q", count)
	}
}

// TestWhatAProgramIs asks the kernel, from the first program that is not the shell.
func TestWhatAProgramIs(t *testing.T) {
	t.Parallel()
	self, err := StatusOf(0)
	must(t, err)
	compiler, tool := self, self
	compiler.NoNewPrivs, compiler.Filtered, tool.NoNewPrivs, tool.Filtered = true, true, true, true
	if os.Geteuid() == 0 {
		compiler.UID, compiler.GID = [4]int{Nobody, Nobody, Nobody, Nobody}, [4]int{Nobody, Nobody, Nobody, Nobody}
		compiler.Permitted, compiler.Effective = 0, 0
	}
	limits := func(cpu, size, processes, files, memory string) map[string]string {
		return map[string]string{"cpu time": cpu, "file size": size, "core file size": "0", "processes": processes, "open files": files, "address space": memory}
	}
	tests := map[string]struct {
		program Program
		status  Status
		limits  map[string]string
	}{
		"compiler":       {Program{}, compiler, limits("30", "0", "0", "64", "536870912")},
		"its own limits": {Program{CPU: 1500 * time.Millisecond, Memory: 64 << 20, Files: 20}, compiler, limits("2", "0", "0", "20", "67108864")},
		"tool":           {Program{Filter: Tool}, tool, limits("30", "", "", "1024", "2147483648")},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := &Output{Max: 1 << 16}
			p := test.program
			p.Path, p.Args, p.Stdout = "/bin/cat", []string{"/proc/self/status", "/proc/self/limits"}, out
			must(t, Run(t.Context(), p))
			got, err := parseStatus(out.String())
			must(t, err)
			if diff := cmp.Diff(test.status, got); diff != "" {
				t.Errorf("status (-want +got):\n%s", diff)
			}
			for what, want := range test.limits {
				if line := limitLine(out.String(), what); want != "" && (len(line) < 2 || line[0] != want || line[1] != want) {
					t.Errorf("%s: %q, want %s", what, line, want)
				}
			}
		})
	}
	after, err := StatusOf(0)
	must(t, err)
	if diff := cmp.Diff(self, after); diff != "" {
		t.Errorf("this process changed (-before +after):\n%s", diff)
	}
	must(t, eachThread(func(s Status) error {
		if s.UID != self.UID {
			return errors.New("a thread changed its user")
		}
		return nil
	}))
}

// limitLine returns the soft and hard limit of a line of proc_pid_limits(5).
func limitLine(text, what string) []string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "Max "+what); ok {
			return strings.Fields(rest)
		}
	}
	return nil
}

// TestThreadsEnd holds that a thread under a filter does not stay behind.
func TestThreadsEnd(t *testing.T) {
	out, err := as(t, "threads")
	if err != nil || out != "none is under a filter" {
		t.Errorf("%q, %v", out, err)
	}
}

// TestGroupEnds holds that what a tool leaves running ends with it.
func TestGroupEnds(t *testing.T) {
	t.Parallel()
	out := &Output{Max: 1 << 10}
	start := time.Now()
	must(t, Run(t.Context(), Program{Path: perl, Args: []string{"-e", `defined(my $p = fork) or die; if (!$p) { sleep 100 } print $p`}, Stdout: out, Filter: Tool}))
	goes(t, out.String())
	if time.Since(start) > 50*time.Second {
		t.Error("its end was waited for")
	}
}

// TestEndsWithThisProcess kills what started a program.
func TestEndsWithThisProcess(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), role+"=parent")
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	pid := make([]byte, 20)
	n, err := out.Read(pid)
	must(t, err)
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	goes(t, string(pid[:n]))
}

// goes waits until a process has ended: it is gone, or waits for its new parent.
func goes(t *testing.T, pid string) {
	t.Helper()
	if _, err := strconv.Atoi(pid); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		status, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(status), ") Z ") {
			return
		}
		if time.Since(start) > 20*time.Second {
			t.Fatalf("it runs: %s", status)
		}
	}
}

// TestRootOfAnotherProcess is how a container's process sees its host's.
func TestRootOfAnotherProcess(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("the kernel lets only root change its root folder")
	}
	for _, f := range []Filter{Compiler, Tool} {
		out := &Output{Max: 1 << 10}
		err := Run(t.Context(), Program{Path: "/bin/cat", Stdin: strings.NewReader("text"), Stdout: out, Root: fmt.Sprintf("/proc/%d/root", os.Getppid()), Filter: f})
		if err != nil || out.String() != "text" {
			t.Errorf("%s: %q, %v", f, out, err)
		}
	}
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]Program{
		"a relative path":         {Path: "perl"},
		"the agent's filter":      {Path: perl, Filter: Agent},
		"a filter there is not":   {Path: perl, Filter: 17},
		"a program there is not":  {Path: "/nowhere"},
		"a root there is not":     {Path: perl, Root: "/nowhere"},
		"memory too small for it": {Path: perl, Memory: 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := Run(t.Context(), p); err == nil {
				t.Error("it ran")
			}
		})
	}
}

// plain runs a script without any walls, as the user that compilers have.
func plain(t *testing.T, script string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), perl, "-e", script)
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: Nobody, Gid: Nobody}
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestCompilerCan does what a compiler is for.
func TestCompilerCan(t *testing.T) {
	t.Parallel()
	there := filepath.Join(place(t), "read")
	must(t, os.WriteFile(there, []byte("of a file"), 0o644))
	out := &Output{Max: 1 << 10}
	script := fmt.Sprintf(`open(my $f, "<", "%s") or die; my $read = <$f>; my $in = <STDIN>; print "$in $read"; print STDERR $ENV{WORD}`, there)
	log := &Output{Max: 1 << 10}
	must(t, Run(t.Context(), Program{Path: perl, Args: []string{"-e", script}, Env: []string{"WORD=said"}, Stdin: strings.NewReader("the text"), Stdout: out, Stderr: log}))
	if out.String() != "the text of a file" || log.String() != "said" {
		t.Errorf("%q, %q", out, log)
	}
}

// TestEnds holds that what does not end by itself is ended, and by what.
func TestEnds(t *testing.T) {
	t.Parallel()
	forever := Program{Path: perl, Args: []string{"-e", "1 while 1"}, CPU: time.Second}
	tests := map[string]struct {
		program Program
		time    time.Duration
		signal  syscall.Signal
		ctx     error
	}{
		"after its processor time": {program: forever, time: time.Minute, signal: syscall.SIGKILL},
		"after its time":           {program: Program{Path: perl, Args: []string{"-e", "sleep 100"}}, time: 500 * time.Millisecond, ctx: context.DeadlineExceeded},
		"when nobody reads": {
			program: Program{Path: perl, Args: []string{"-e", "print 'x' x 4096 while 1"}, Stdout: &Output{Max: 1 << 20, Strict: true}},
			time:    time.Minute, signal: syscall.SIGPIPE,
		},
		"when it writes to a file that it was given": {
			program: Program{Path: perl, Args: []string{"-e", "$| = 1; print 'x'"}, Stdout: inherited(t)}, time: time.Minute, signal: syscall.SIGXFSZ,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), test.time)
			defer cancel()
			err := Run(ctx, test.program)
			if test.ctx != nil {
				if !errors.Is(err, test.ctx) {
					t.Errorf("%v, want %v", err, test.ctx)
				}
				return
			}
			ended, ok := errors.AsType[*exec.ExitError](err)
			if !ok || ended.Sys().(syscall.WaitStatus).Signal() != test.signal {
				t.Errorf("%v, want %s", err, test.signal)
			}
		})
	}
}

// inherited is a file that was open before the sandbox.
func inherited(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return f
}

// TestConverterMakesNoFile, not even an empty one: the filter lets it ask, and
// Landlock refuses.
func TestConverterMakesNoFile(t *testing.T) {
	t.Parallel()
	abi, err := landlockABI()
	must(t, err)
	if abi == 0 {
		t.Skip("the kernel has no Landlock")
	}
	refused(t, Converter, attempts(place(t))["a new file"])
}
