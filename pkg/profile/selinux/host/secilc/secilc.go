// Package secilc compiles CIL with the host's own secilc(8), for nothing but to
// look at what comes out. The compiler is a child without privileges that sees
// no file but what it is given, through descriptors, and is bounded in time,
// memory and output: the texts are those of strangers, and it is written in C.
package secilc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/pkg/profile/selinux/internal/policydb"
	"github.com/confine-dev/confine/pkg/sandbox"
)

const (
	program      = "secilc"
	folders      = "/usr/bin:/usr/sbin:/bin:/sbin"
	defaultTime  = 30 * time.Second
	maxPolicy    = 16 << 20 // bytes of a compiled policy
	maxLog       = 64 << 10
	shownSummary = 200
	// How a child names its own descriptors: it knows no "-".
	standardInput  = "/proc/self/fd/0"
	standardOutput = "/proc/self/fd/1"
)

// ErrLimit says that the compiler was ended by its bounds.
var ErrLimit = errors.New("the compiler was ended by its bounds of time, memory or output")

// Error is what the compiler said of texts that it does not take.
type Error struct {
	// Summary is the line that says what is wrong.
	Summary string
	// Log is all that it printed, at most 64 KiB.
	Log string
	// Err is how the process ended.
	Err error

	starts []int // lines before each text, and what comes after the last
}

// Error returns the summary.
func (e *Error) Error() string { return e.Summary }

// Unwrap returns how the process ended.
func (e *Error) Unwrap() error { return e.Err }

// Options adjust a Compiler. The zero value works.
type Options struct {
	// HostRoot is the host's root folder as this process sees it; secilc runs
	// there. Empty means this process's own.
	HostRoot string
	// Time bounds one run; zero means 30 seconds.
	Time time.Duration
	// Memory bounds what one run may have, in bytes; zero means 512 MiB.
	Memory uint64
}

// Compiler is the host's compiler.
type Compiler struct {
	opts    Options
	program string // within the root
}

// New returns the compiler of the host. It touches nothing yet.
func New(opts Options) *Compiler {
	if opts.Time <= 0 {
		opts.Time = defaultTime
	}
	if opts.HostRoot == "/" {
		opts.HostRoot = ""
	}
	return &Compiler{opts: opts}
}

// Supported returns exec.ErrNotFound where the host has no secilc.
func (c *Compiler) Supported() error {
	_, err := c.find()
	return err
}

// Compile returns the policy that the texts make together, in the format that
// policydb reads. qualified takes dots as parts of names, and no blocks. The
// error is an *Error where the compiler refuses the texts, and ErrLimit where
// it was ended.
func (c *Compiler) Compile(ctx context.Context, qualified bool, texts ...[]byte) ([]byte, error) {
	name, err := c.find()
	if err != nil {
		return nil, err
	}
	// All in one, since a child gets one input.
	var all bytes.Buffer
	starts := make([]int, 0, len(texts))
	for i, text := range texts {
		if i > 0 {
			all.WriteByte('\n')
		}
		starts = append(starts, bytes.Count(all.Bytes(), []byte("\n")))
		all.Write(text)
	}
	input, err := c.nameless(all.Bytes())
	if err != nil {
		return nil, err
	}
	defer func() { _ = input.Close() }()
	args := []string{"-c", strconv.Itoa(policydb.Version), "-o", standardOutput, "-f", standardOutput, standardInput}
	if qualified {
		args = append(args, "-Q")
	}
	made, err := c.run(ctx, name, args, input)
	if refused, said := errors.AsType[*Error](err); said {
		refused.starts = append(starts, math.MaxInt)
	}
	return made, err
}

// nameless is a file that no folder has, and that goes when it is closed: the
// compiler asks for its input's length, so that a pipe would not do. It stands
// where semodule's files do, or where this process may write.
func (c *Compiler) nameless(text []byte) (*os.File, error) {
	var errs []error
	for _, folder := range []string{filepath.Join("/", c.opts.HostRoot, "run"), os.TempDir()} {
		f, err := os.OpenFile(folder, unix.O_TMPFILE|os.O_RDWR, 0o600)
		if err == nil {
			if err = errors.Join(write(f, text), f.Chmod(0o444)); err == nil { // others read it, by the descriptor
				return f, nil
			}
			_ = f.Close()
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func write(f *os.File, text []byte) error {
	_, err := f.Write(text)
	return err
}

// run starts the compiler and collects what it writes, within the bounds.
func (c *Compiler) run(ctx context.Context, name string, args []string, input *os.File) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Time)
	defer cancel()
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	// It is opened again by its name, by another user, for both directions.
	if err := in.Chmod(0o666); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	type result struct {
		policy []byte
		err    error
	}
	done := make(chan result, 1)
	go func() {
		policy, err := io.ReadAll(io.LimitReader(out, maxPolicy+1))
		_ = out.Close() // so that a child that writes more is ended
		done <- result{policy, err}
	}()
	said := &sandbox.Output{Max: maxLog}
	err = sandbox.Run(ctx, sandbox.Program{
		Path: name, Args: args, Env: []string{"PATH=" + folders, "LC_ALL=C"}, Root: c.opts.HostRoot,
		Stdin: input, Stdout: in, Stderr: said, Filter: sandbox.Converter, Memory: c.opts.Memory, CPU: c.opts.Time,
	})
	_ = in.Close()
	got := <-done
	switch {
	case err != nil:
		return nil, explain(ctx, err, said.Bytes())
	case got.err != nil:
		return nil, got.err
	case len(got.policy) > maxPolicy:
		return nil, ErrLimit
	}
	return got.policy, nil
}

// explain tells a text that is refused from a compiler that was ended.
func explain(ctx context.Context, err error, log []byte) error {
	ended, exited := errors.AsType[*exec.ExitError](err)
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrLimit, ctx.Err())
	case ctx.Err() != nil:
		return ctx.Err()
	case !exited:
		return err
	case ended.ExitCode() < 0: // by a signal
		return fmt.Errorf("%w: %w", ErrLimit, err)
	}
	return refusal(log, err)
}

// find returns the compiler's path within the root. It is started through the
// root's shell, which hosts without a shell lack: they have no compiler then.
func (c *Compiler) find() (string, error) {
	if c.program != "" {
		return c.program, nil
	}
	if err := sandbox.Shell(c.opts.HostRoot); err != nil {
		return "", err
	}
	for folder := range strings.SplitSeq(folders, ":") {
		name := filepath.Join(folder, program)
		if info, err := os.Stat(c.opts.HostRoot + name); err == nil && info.Mode().IsRegular() {
			return name, nil
		}
	}
	return "", fmt.Errorf("%s: %w", program, exec.ErrNotFound)
}

func refusal(log []byte, err error) *Error {
	e := &Error{Summary: "secilc gave no reason", Log: string(log), Err: err}
	for line := range strings.Lines(e.Log) {
		if line = strings.TrimSpace(line); line != "" {
			line = place().ReplaceAllString(line, "")
			e.Summary = strings.ToValidUTF8(line[:min(len(line), shownSummary)], "?")
			break
		}
	}
	return e
}

// Line returns the first line of a text that the compiler speaks of, and zero
// where it speaks of none. Texts are numbered from zero.
func (e *Error) Line(text int) int {
	if text < 0 || text+1 >= len(e.starts) {
		return 0
	}
	for _, m := range place().FindAllStringSubmatch(e.Log, -1) {
		line, err := strconv.Atoi(m[1] + m[2])
		if err == nil && line > e.starts[text] && line <= e.starts[text+1] {
			return line - e.starts[text]
		}
	}
	return 0
}

// place matches both ways in which libsepol writes one: "at line LINE of FILE"
// and "at FILE:LINE".
func place() *regexp.Regexp {
	return regexp.MustCompile(` at (?:line ([0-9]+) of )?` + standardInput + `(?::([0-9]+))?`)
}
