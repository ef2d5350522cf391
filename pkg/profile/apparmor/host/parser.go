package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
	"github.com/confine-dev/confine/pkg/sandbox"
)

// Bounds of one run of the parser.
const (
	defaultParseTime   = 30 * time.Second
	defaultParseMemory = 256 << 20 // beside the agent within the 512 MiB that the chart and the unit give
	maxLog             = 64 << 10
	// slowAgain is when a text is tried again that took all the time there was. It may
	// only have met a busy machine; but nothing else is installed meanwhile.
	slowAgain = 10 * time.Minute
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

// parser runs the host's apparmor_parser in a sandbox. It never touches the
// kernel's policy: it reads the text from a pipe and writes what it made to
// another, without privileges and with little memory and time.
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
	if _, err := p.find(); err != nil {
		return err
	}
	return sandbox.Shell(p.root)
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
	call := ctx
	ctx, cancel := context.WithTimeout(ctx, p.time)
	defer cancel()
	out, log := &sandbox.Output{Max: maxCompiled, Strict: true}, &sandbox.Output{Max: maxLog}
	err = p.run(ctx, path, f.Data, out, log)
	switch {
	case out.Over():
		return nil, reason.New(reason.ProfileInvalid, f.Name, "compiled it is larger than %d bytes", maxCompiled)
	case err == nil && ctx.Err() == nil:
		return out.Bytes(), nil
	case call.Err() == nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		slow := reason.New(reason.InstallFailed, f.Name, "apparmor_parser had not compiled it after %s: %w", p.time, ctx.Err()).
			WithAdvice("make the profile simpler: many overlapping globs make a large automaton")
		slow.RetryAfter = slowAgain
		return nil, slow
	case ctx.Err() != nil:
		return nil, reason.New(reason.InstallFailed, f.Name, "stopped before it was done: %w", ctx.Err())
	}
	failed := &ParserError{Summary: summary(log.String()), Log: log.String(), Err: err}
	if _, ended := errors.AsType[*exec.ExitError](err); !ended {
		return nil, reason.New(reason.InstallFailed, f.Name, "apparmor_parser could not be run: %w", err)
	}
	return nil, reason.New(reason.ProfileInvalid, f.Name, "the host's apparmor_parser refuses it: %w", failed).
		WithAdvice("mend the profile, or use what the host's version of AppArmor knows")
}

// run runs the parser. It compiles for the kernel it finds (its features are
// read from securityfs), ignores and writes no cache, and loads nothing: it has
// no privileges, opens no file for writing, and starts no processes (with one
// job it would start one, with none it does the work itself).
func (p parser) run(ctx context.Context, path string, input []byte, out, log *sandbox.Output) error {
	return sandbox.Run(ctx, sandbox.Program{
		Path: path,
		Args: []string{"--skip-kernel-load", "--skip-cache", "--stdout", "--quiet", "--jobs=0"},
		Env:  []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"},
		Root: p.root, Stdin: bytes.NewReader(input), Stdout: out, Stderr: log,
		Filter: sandbox.Compiler, Memory: p.memory, CPU: p.time + time.Second,
	})
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
