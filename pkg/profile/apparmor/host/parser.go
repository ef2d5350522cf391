package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// Bounds of one run of the parser.
const (
	defaultParseTime   = 30 * time.Second
	defaultParseMemory = 512 << 20
	maxLog             = 64 << 10
	nobody             = 65534
)

// parserPaths are where distributions have apparmor_parser.
func parserPaths() []string { return []string{"/sbin/apparmor_parser", "/usr/sbin/apparmor_parser"} }

// ParserError is what apparmor_parser said of a text that it did not compile.
type ParserError struct {
	// Summary is the line that says what is wrong.
	Summary string
	// Log is all that it printed, at most 64 KiB.
	Log string
	// Err is how the process ended.
	Err error
}

// Error returns the summary.
func (e *ParserError) Error() string { return e.Summary }

// Unwrap returns how the process ended.
func (e *ParserError) Unwrap() error { return e.Err }

// compiler turns policy text into what the kernel loads.
type compiler interface {
	// supported says what is missing to compile here.
	supported() error
	// compile returns the compiled policy. file is a label for messages.
	compile(ctx context.Context, f profile.File) ([]byte, error)
}

// parser runs the host's apparmor_parser. The child never touches the kernel's
// policy: it reads the text from a pipe and writes what it made to another,
// without privileges and with little memory and time.
type parser struct {
	path   string // within root; empty looks where distributions have it
	root   string // the host's root
	time   time.Duration
	memory uint64
}

func (p parser) supported() error {
	if p.root != "" && os.Geteuid() != 0 {
		return fmt.Errorf("only root can run the parser in the host's root %s", p.root)
	}
	_, err := p.find()
	return err
}

func (p parser) find() (string, error) {
	paths := parserPaths()
	if p.path != "" {
		paths = []string{p.path}
	}
	for _, path := range paths {
		info, err := os.Stat(p.root + path)
		if err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is no program on the host", paths[0])
}

func (p parser) compile(ctx context.Context, f profile.File) ([]byte, error) {
	path, err := p.find()
	if err != nil {
		return nil, reason.New(reason.KindUnsupported, f.Name, "%w", err).WithAdvice("install the package apparmor on the host")
	}
	ctx, cancel := context.WithTimeout(ctx, p.time)
	defer cancel()
	out, log := &limited{max: maxCompiled, strict: true}, &limited{max: maxLog}
	err = p.run(ctx, path, f.Data, out, log)
	switch {
	case out.over:
		return nil, reason.New(reason.ProfileInvalid, f.Name, "compiled it is larger than %d bytes", maxCompiled)
	case err == nil && ctx.Err() == nil:
		return out.kept.Bytes(), nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, reason.New(reason.InstallFailed, f.Name, "apparmor_parser had not compiled it after %s: %w", p.time, ctx.Err()).
			WithAdvice("make the profile simpler: many overlapping globs make a large automaton")
	case ctx.Err() != nil:
		return nil, reason.New(reason.InstallFailed, f.Name, "stopped before it was done: %w", ctx.Err())
	}
	failed := &ParserError{Summary: summary(log.kept.String()), Log: log.kept.String(), Err: err}
	if _, ended := errors.AsType[*exec.ExitError](err); !ended {
		return nil, reason.New(reason.InstallFailed, f.Name, "apparmor_parser could not be run: %w", err)
	}
	return nil, reason.New(reason.ProfileInvalid, f.Name, "the host's apparmor_parser refuses it: %w", failed).
		WithAdvice("mend the profile, or use what the host's version of AppArmor knows")
}

// limits lowers what a process may take, and becomes the program in its
// arguments: memory and core dumps in KiB and blocks, processor time in seconds,
// no files written, few open. A process cannot be limited from the outside
// without CAP_SYS_RESOURCE once it is another user's.
const limits = `ulimit -v "$0" && ulimit -t "$1" && ulimit -c 0 && ulimit -f 0 && ulimit -n 64 && shift && exec "$@"`

// run runs the parser. It compiles for the kernel it finds (its features are
// read from securityfs), ignores and writes no cache, and loads nothing.
func (p parser) run(ctx context.Context, path string, input []byte, out, log *limited) error {
	seconds := int64(p.time/time.Second) + 1
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", limits, strconv.FormatUint(p.memory>>10, 10), strconv.FormatInt(seconds, 10),
		path, "--skip-kernel-load", "--skip-cache", "--stdout", "--quiet", "--jobs=1")
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), out, log
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		cmd.SysProcAttr.Chroot = p.root
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// The child goes with this process. The kernel ties that to the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Run()
}

// summary is the first line that speaks of an error, in printable characters.
func summary(log string) string {
	const shown = 200
	lines := strings.Split(strings.TrimSpace(log), "\n")
	line := lines[0]
	for _, l := range lines {
		if strings.Contains(strings.ToLower(l), "error") {
			line = l
			break
		}
	}
	line = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, strings.TrimSpace(line))
	if line == "" {
		return "it gave no reason"
	}
	return line[:min(len(line), shown)]
}

// limited keeps the first bytes. Those beyond are swallowed, or end the writer.
type limited struct {
	kept   bytes.Buffer // not embedded: it would be filled without Write
	max    int
	strict bool
	over   bool
}

func (l *limited) Write(data []byte) (int, error) {
	n := min(len(data), l.max-l.kept.Len())
	l.kept.Write(data[:n])
	if l.over = l.over || n < len(data); l.over && l.strict {
		return n, io.ErrShortWrite
	}
	return len(data), nil
}
