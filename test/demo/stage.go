package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// stage is what the acts play on: folders, the registry, keys and the agent.
type stage struct {
	bin, examples string
	dir           string
	registry      *hostile
	agent         *exec.Cmd
	agentLog      *os.File
	refs          map[string]string
}

func newStage(_ context.Context, bin, examples string) (*stage, error) {
	dir, err := os.MkdirTemp("", "confine-demo-")
	if err != nil {
		return nil, err
	}
	s := &stage{dir: dir, refs: map[string]string{}}
	for path, target := range map[string]*string{bin: &s.bin, examples: &s.examples} {
		if *target, err = filepath.Abs(path); err != nil {
			return nil, err
		}
	}
	for _, sub := range []string{"manifests", "trust", "work"} {
		if err := os.Mkdir(s.path(sub), 0o755); err != nil {
			return nil, err
		}
	}
	s.registry, err = startRegistry()
	return s, err
}

func (s *stage) close() {
	_ = s.stopAgent()
	s.registry.stop()
	_ = os.RemoveAll(s.dir)
}

func (s *stage) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// installed is where the agent puts a profile's file.
func (s *stage) installed(name, file string) string {
	return s.path("root", "seccomp", "confine", "web", name, file)
}

func (s *stage) repository(name string) string { return s.registry.host + "/profiles/" + name }

func title(format string, args ...any) { fmt.Printf("\n== "+format+"\n", args...) }
func say(format string, args ...any)   { fmt.Printf("   "+format+"\n", args...) }

// confine runs the real program, shows the command and what it printed.
func (s *stage) confine(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "confine"), args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "COSIGN_PASSWORD=demo")
	fmt.Printf("   $ confine %s\n", s.short(strings.Join(args, " ")))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	for _, text := range []string{out.String(), errs.String()} {
		for line := range strings.Lines(text) {
			fmt.Printf("     %s\n", s.short(strings.TrimRight(line, "\n")))
		}
	}
	if err != nil {
		return strings.TrimSpace(out.String()), fmt.Errorf("confine %s: %w: %s", args[0], err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// short keeps lines readable: the demo's folder is written as DEMO, and the
// examples without the way to them.
func (s *stage) short(text string) string {
	return strings.NewReplacer(s.dir, "DEMO", s.examples, "examples").Replace(text)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// startAgent starts the real agent on the demo's folders.
func (s *stage) startAgent() error {
	log, err := os.OpenFile(s.path("agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	s.agentLog = log
	s.agent = exec.Command(filepath.Join(s.bin, "confine-agent"),
		"--manifests", s.path("manifests"), "--trust", s.path("trust"), "--root", s.path("root"), "--resync", "2s")
	s.agent.Stdout, s.agent.Stderr = log, log
	say("$ confine-agent --manifests DEMO/manifests --trust DEMO/trust --root DEMO/root &")
	return s.agent.Start()
}

func (s *stage) stopAgent() error {
	if s.agent == nil {
		return nil
	}
	stopping := s.agent
	s.agent = nil
	if err := stopping.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return errors.Join(stopping.Wait(), s.agentLog.Close())
}

// eventually repeats check until it holds or the time is over.
func (s *stage) eventually(ctx context.Context, what string, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			log, _ := os.ReadFile(s.path("agent.log"))
			return fmt.Errorf("%s: %w\nthe agent's log:\n%s", what, err, log)
		case <-tick.C:
		}
	}
}

// tryUnder runs a command under an installed profile and says whether the
// kernel let it.
func (s *stage) tryUnder(ctx context.Context, profile string, command ...string) (bool, string) {
	args := append([]string{"run", "--seccomp", profile, "--"}, command...)
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "confine"), args...)
	cmd.Dir = s.path("work")
	fmt.Printf("   $ confine %s\n", s.short(strings.Join(args, " ")))
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		fmt.Printf("     %s", s.short(line))
	}
	return err == nil, string(out)
}

func (s *stage) mustAllow(ctx context.Context, profile string, command ...string) error {
	ok, out := s.tryUnder(ctx, profile, command...)
	if !ok {
		return fmt.Errorf("%v was not allowed under %s: %s", command, profile, out)
	}
	say("allowed")
	return nil
}

func (s *stage) mustDeny(ctx context.Context, profile string, command ...string) error {
	ok, out := s.tryUnder(ctx, profile, command...)
	if ok || !strings.Contains(out, "Operation not permitted") {
		return fmt.Errorf("%v was not denied by the kernel under %s: %s", command, profile, out)
	}
	say("denied by the kernel")
	return nil
}
