//go:build linux && (amd64 || arm64)

package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func roles() map[string]func() error {
	return map[string]func() error{
		"threads": threadsEnd,
		"enter":   func() error { return enterAs(Walls{Keep: kept()}) },
		"close":   func() error { return enterAs(Walls{ReadOnly: true}) },
		"less":    enterWithLess,
		"agent":   agentWorks,
		"fetch":   fetchWorks,
		"probe":   probe,
		"limits":  limited,
		"parent":  parent,
	}
}

// kept are what the agent with all kinds keeps, or so.
func kept() []Capability { return []Capability{CapKill, CapSetuid, CapSetgid, CapMACAdmin} }

// seen is what a role prints about itself.
type seen struct {
	Entered
	Program  Status // of a tool that it started
	PID      int
	Comm     string
	Variable string // see entered
	Writable bool
}

func enterAs(w Walls) error {
	in, err := Enter(w)
	if err != nil {
		return err
	}
	s := seen{Entered: in, PID: os.Getpid(), Variable: os.Getenv(entered)}
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		return err
	}
	s.Comm = strings.TrimSpace(string(comm))
	if s.Writable, err = writable(); err != nil {
		return err
	}
	if err := eachThread(func(t Status) error {
		if t != in.Status {
			return fmt.Errorf("a thread differs: %+v", t)
		}
		return nil
	}); err != nil {
		return err
	}
	if w.ReadOnly {
		return json.NewEncoder(os.Stdout).Encode(s)
	}
	out := &Output{Max: 1 << 16}
	if err := Run(context.Background(), Program{Path: "/bin/cat", Args: []string{"/proc/self/status"}, Stdout: out, Filter: Tool}); err != nil {
		return err
	}
	if s.Program, err = parseStatus(out.String()); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}

// enterWithLess enters with what a container has that was given a capability
// too many, and not the one to drop from the bounding set.
func enterWithLess() error {
	runtime.LockOSThread()
	if _, err := raise(Walls{Keep: append(kept(), CapSysChroot)}); err != nil {
		return err
	}
	if err := os.Setenv(role, "enter"); err != nil {
		return err
	}
	return unix.Exec("/proc/self/exe", os.Args, os.Environ())
}

// agentWorks does under the agent's filter all that the agent does, at the same time
// and with threads that come and go.
func agentWorks() error {
	if _, err := Enter(Walls{Keep: append(kept(), CapSysChroot)}); err != nil {
		return err
	}
	if err := Restrict(Agent); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "confine-sandbox-agent-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var group sync.WaitGroup
	results := make(chan error, 100)
	for round := range 4 {
		for _, do := range []func(string) error{writeDurably, serveAndFetch, compileOne, runTool, watch, killOne, startFetch, busy, resolve} {
			group.Go(func() {
				own := filepath.Join(dir, fmt.Sprintf("%d-%p", round, do))
				results <- errors.Join(os.MkdirAll(own, 0o755), do(own))
			})
		}
	}
	group.Wait()
	close(results)
	for err := range results {
		if err != nil {
			return err
		}
	}
	fmt.Println("works")
	return nil
}

func writeDurably(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := root.Create("new")
	if err != nil {
		return err
	}
	_, err = f.WriteString("text")
	err = errors.Join(err, f.Sync(), f.Chmod(0o600), f.Close(), root.Rename("new", "stable"), root.Symlink("stable", "link"), root.Mkdir("folder", 0o700))
	folder, openErr := os.Open(dir)
	if openErr != nil {
		return errors.Join(err, openErr)
	}
	return errors.Join(err, folder.Sync(), folder.Close(), root.RemoveAll("folder"), root.Remove("link"))
}

func serveAndFetch(dir string) error {
	for _, where := range [][2]string{{"tcp", "127.0.0.1:0"}, {"unix", filepath.Join(dir, "socket")}} {
		l, err := net.Listen(where[0], where[1])
		if err != nil {
			return err
		}
		server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat("x", 1<<20))
		})}
		go func() { _ = server.Serve(l) }()
		err = fetch(l.Addr())
		if err := errors.Join(err, server.Close()); err != nil {
			return err
		}
	}
	return nil
}

func fetch(from net.Addr) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, from.Network(), from.String())
	}}
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Get("http://registry.example/")
	if err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, answer.Body)
	if err == nil && n != 1<<20 {
		err = fmt.Errorf("%d bytes", n)
	}
	return errors.Join(err, answer.Body.Close())
}

func compileOne(string) error {
	out := &Output{Max: 1 << 20}
	err := Run(context.Background(), Program{Path: "/bin/cat", Stdin: strings.NewReader(strings.Repeat("y", 1<<17)), Stdout: out})
	if err == nil && len(out.Bytes()) != 1<<17 {
		err = errors.New("the output is not whole")
	}
	return err
}

func runTool(dir string) error {
	return Run(context.Background(), Program{Path: "/bin/sh", Args: []string{"-c", "echo text > file && cat file | wc -l && rm file"}, Dir: dir, Filter: Tool})
}

func killOne(string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := Run(ctx, Program{Path: "/bin/sleep", Args: []string{"60"}}); !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("sleeping ended with: %w", err)
	}
	return exec.CommandContext(context.Background(), "/bin/true").Run()
}

// startFetch starts the other process under this one's filter, as another user.
func startFetch(string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", 1<<20))
	})}
	go func() { _ = server.Serve(l) }()
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe")
	cmd.Env = []string{role + "=fetch", "CONFINE_TEST_SERVER=" + l.Addr().String()}
	cmd.Dir = "/"
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: Nobody, Gid: Nobody}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return errors.Join(err, server.Close())
}

// watch waits for a change as fsnotify does.
func watch(dir string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		return err
	}
	_, err = unix.Read(fd, make([]byte, 4096))
	return err
}

// busy makes the garbage collector and the scheduler do all that they do.
func busy(string) error {
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			kept := make([][]byte, 0, 100)
			for i := range 2000 {
				kept = append(kept[:i%100], make([]byte, 1<<10))
			}
			_ = kept
		})
	}
	group.Wait()
	runtime.GC()
	return nil
}

func resolve(string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, native := range []bool{true, false} {
		if _, err := (&net.Resolver{PreferGo: native}).LookupHost(ctx, "localhost"); err != nil {
			return err
		}
	}
	_, err := net.Interfaces()
	return err
}

// fetchWorks does what the fetch child does, and tries what it must not.
func fetchWorks() error {
	if _, err := Enter(Walls{ReadOnly: true}); err != nil {
		return err
	}
	if err := errors.Join(Limit(Limits{Files: 256, Memory: 1 << 30}), Restrict(Fetch)); err != nil {
		return err
	}
	address, err := net.ResolveTCPAddr("tcp", os.Getenv("CONFINE_TEST_SERVER"))
	if err != nil {
		return err
	}
	for range 4 {
		if err := errors.Join(fetch(address), busy(""), resolve("")); err != nil {
			return err
		}
	}
	if _, err := os.ReadFile("/etc/hosts"); err != nil {
		return err
	}
	parent := os.Getppid()
	for what, try := range map[string]func() error{
		"start a program":     func() error { return exec.CommandContext(context.Background(), "/bin/true").Run() },
		"become a program":    func() error { return unix.Exec("/bin/true", []string{"true"}, nil) },
		"write a file":        func() error { return os.WriteFile(filepath.Join(os.TempDir(), "confine-sandbox-fetch"), nil, 0o600) },
		"make a folder":       func() error { return os.Mkdir(filepath.Join(os.TempDir(), "confine-sandbox-folder"), 0o700) },
		"signal its parent":   func() error { return unix.Kill(parent, 0) },
		"signal by a handle":  func() error { _, err := unix.PidfdOpen(parent, 0); return err },
		"listen":              func() error { _, err := net.Listen("tcp", "127.0.0.1:0"); return err },
		"send raw packets":    func() error { _, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP); return err },
		"read another memory": func() error { return unix.PtraceAttach(parent) },
	} {
		if err := try(); !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	fmt.Println("works")
	return nil
}

// parent starts a program that does not end, and prints its process ID.
func parent() error {
	return Run(context.Background(), Program{Path: perl, Args: []string{"-e", "$| = 1; print $$; sleep 100"}, Stdout: os.Stdout})
}

// limited prints the limits that it set.
func limited() error {
	if err := Limit(Limits{Files: 200, Processes: 300, Memory: 1 << 30, FileSize: 1}); err != nil {
		return err
	}
	data, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(data)
	return err
}

// probe makes calls with arguments that the kernel refuses for themselves, and
// prints how each was refused: with the filter that the variable names, or without.
func probe() error {
	if os.Getenv("CONFINE_TEST_FILTER") != "" {
		if err := Restrict(Agent); err != nil {
			return err
		}
	}
	errs := map[string]int{}
	for name, number := range dangerous() {
		if name == "vhangup" || name == "io_uring_enter" {
			continue // they take no argument that could be wrong, or wait
		}
		const bad = 1 // no address
		_, _, errno := unix.Syscall6(number, bad, ^uintptr(0), bad, ^uintptr(0), ^uintptr(0), ^uintptr(0))
		errs[name] = int(errno)
	}
	return json.NewEncoder(os.Stdout).Encode(errs)
}

// threadsEnd runs programs beside each other and waits until no thread is left
// that they were started from.
func threadsEnd() error {
	before, err := StatusOf(0)
	if err != nil {
		return err
	}
	ended := make(chan error)
	const programs = 8
	for range programs {
		go func() {
			ended <- Run(context.Background(), Program{Path: "/bin/cat", Args: []string{"/dev/null"}})
		}()
	}
	for range programs {
		if err := <-ended; err != nil {
			return err
		}
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		err := eachThread(func(s Status) error {
			if s != before {
				return errors.New("a thread is under the filter")
			}
			return nil
		})
		if err == nil {
			fmt.Println("none is under a filter")
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}
