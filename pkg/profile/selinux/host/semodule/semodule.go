// Package semodule changes the host's SELinux policy store through its own
// semodule(8), which commits any number of changes in one transaction: the
// policy is compiled once, and either all of them are in it or none. Killed
// anywhere, the store has the old policy or the new one; what the kernel has
// loaded may then be older than the store, which Reload mends.
//
// It is what the profile.Host of SELinux modules stands on.
package semodule

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/confine-dev/confine/pkg/sandbox"
)

// Defaults of Options. Debian's policy takes half a minute for a transaction on
// slow machines; libsemanage itself waits a few seconds for its lock.
const (
	defaultPriority = 350
	defaultTime     = 5 * time.Minute
	program         = "semodule"
	path            = "/usr/sbin:/usr/bin:/sbin:/bin"
	maxOutput       = 1 << 20
	shownSummary    = 200
)

// ErrBusy says that another program holds the policy store.
var ErrBusy = errors.New("the policy store is locked by another program")

// ErrName refuses a name that semodule would not take for a module's.
var ErrName = errors.New("no usable module name")

// Error is what semodule said of a transaction that it did not commit.
type Error struct {
	// Summary is the line that says what is wrong.
	Summary string
	// Log is all that it printed, at most 1 MiB.
	Log string
	// Err is how the process ended.
	Err error
}

// Error returns the summary.
func (e *Error) Error() string { return e.Summary }

// Unwrap returns how the process ended.
func (e *Error) Unwrap() error { return e.Err }

// Options adjust a Store. The zero value works for the host's own policy.
type Options struct {
	// HostRoot is the host's root folder as this process sees it; semodule runs
	// there. Empty means this process's own.
	HostRoot string
	// Priority is the one that all modules of Confine have and nobody else's; zero
	// means 350. Distributions use 100 and administrators 400: semodule(8).
	Priority int
	// Time bounds one run, the wait for the lock included; zero means five
	// minutes.
	Time time.Duration
}

// Store is a policy store. Two must not change one policy beside each other.
type Store struct{ opts Options }

// New returns the store of the host. It touches nothing yet.
func New(opts Options) *Store {
	if opts.Priority == 0 {
		opts.Priority = defaultPriority
	}
	if opts.Time <= 0 {
		opts.Time = defaultTime
	}
	if opts.HostRoot != "" { // names within it are what is left without it
		opts.HostRoot = strings.TrimSuffix(filepath.Clean(opts.HostRoot), "/")
	}
	return &Store{opts}
}

// Module is one module in CIL.
type Module struct {
	Name string
	CIL  []byte
}

// Listed is one module of Confine's priority in the store.
type Listed struct {
	Name string
	// Checksum is "sha256:" and the hexadecimal sum of the module's CIL.
	Checksum string
	// Disabled is set where somebody keeps the module out of the policy.
	Disabled bool
}

// Change is one transaction.
type Change struct {
	// Install adds modules or replaces those of the same names.
	Install []Module
	// Remove takes modules away; those that are not there are left out.
	Remove []string
	// Enable lets disabled modules be in the policy again, also those that are
	// installed with the same change.
	Enable []string
}

// List returns the modules of Confine's priority, sorted by name.
func (s *Store) List(ctx context.Context) ([]Listed, error) {
	out, err := s.run(ctx, "", "--list-modules=full", "--checksum")
	if err != nil {
		return nil, err
	}
	return s.listed(out)
}

// listed reads a list of modules.
func (s *Store) listed(out []byte) ([]Listed, error) {
	var found []Listed
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		// PRIORITY NAME LANGUAGE [disabled] CHECKSUM
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 {
			continue
		}
		priority, err := strconv.Atoi(fields[0]) // printed with zeros in front, as 050
		if err != nil {
			return nil, fmt.Errorf("semodule lists a module without its priority: %.100q", lines.Text())
		}
		if priority != s.opts.Priority {
			continue
		}
		if sum := fields[len(fields)-1]; len(fields) < 4 || !strings.HasPrefix(sum, "sha256:") {
			return nil, fmt.Errorf("semodule lists a module otherwise than with its sum: %.100q", lines.Text())
		}
		found = append(found, Listed{Name: fields[1], Checksum: fields[len(fields)-1], Disabled: fields[3] == "disabled"})
	}
	slices.SortFunc(found, func(a, b Listed) int { return strings.Compare(a.Name, b.Name) })
	return found, lines.Err()
}

// Commit makes one change, whole or not at all, and loads the policy. A change
// of nothing does nothing. The error is an *Error where semodule refused it.
func (s *Store) Commit(ctx context.Context, c Change) error {
	remove, err := s.present(ctx, c.Remove)
	if err != nil {
		return err
	}
	if len(c.Install)+len(remove)+len(c.Enable) == 0 {
		return nil
	}
	folder, err := s.scratch()
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	args := []string{"--priority=" + strconv.Itoa(s.opts.Priority)}
	for _, m := range c.Install {
		if !usable(m.Name) {
			return fmt.Errorf("%q: %w", m.Name, ErrName)
		}
		// The file's name is the module's.
		if err := os.WriteFile(filepath.Join(folder, m.Name+".cil"), m.CIL, 0o600); err != nil {
			return err
		}
		args = append(args, "--install="+m.Name+".cil")
	}
	for _, name := range remove {
		args = append(args, "--remove="+name)
	}
	for _, name := range c.Enable {
		if !usable(name) {
			return fmt.Errorf("%q: %w", name, ErrName)
		}
		args = append(args, "--enable="+name)
	}
	_, err = s.run(ctx, strings.TrimPrefix(folder, s.opts.HostRoot), args...)
	return err
}

// Extract returns the CIL of modules of Confine's priority, by name. One that
// is not there is an error for all.
func (s *Store) Extract(ctx context.Context, names []string) (map[string][]byte, error) {
	found := map[string][]byte{}
	if len(names) == 0 {
		return found, nil
	}
	folder, err := s.scratch()
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	args := []string{"--priority=" + strconv.Itoa(s.opts.Priority), "--cil"}
	for _, name := range names {
		if !usable(name) {
			return nil, fmt.Errorf("%q: %w", name, ErrName)
		}
		args = append(args, "--extract="+name)
	}
	if _, err := s.run(ctx, strings.TrimPrefix(folder, s.opts.HostRoot), args...); err != nil {
		return nil, err
	}
	for _, name := range names {
		if found[name], err = os.ReadFile(filepath.Join(folder, name+".cil")); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// Supported says what is missing to run semodule here.
func (s *Store) Supported() error {
	if _, err := s.find(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("only root can change the policy store")
	}
	return nil
}

// scratch makes a folder for files that semodule reads or writes, and takes
// away those of processes that were killed: no run takes that long.
func (s *Store) scratch() (string, error) {
	const prefix = "confine-semodule-"
	run := filepath.Join("/", s.opts.HostRoot, "run")
	left, err := filepath.Glob(filepath.Join(run, prefix+"*"))
	if err != nil {
		return "", err
	}
	for _, folder := range left {
		info, err := os.Lstat(folder)
		if err == nil && time.Since(info.ModTime()) > 2*s.opts.Time+time.Hour {
			err = os.RemoveAll(folder)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // another may be faster
			return "", err
		}
	}
	return os.MkdirTemp(run, prefix)
}

// present are those of the names that the store has.
func (s *Store) present(ctx context.Context, names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	listed, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, l := range listed {
		if slices.Contains(names, l.Name) {
			found = append(found, l.Name)
		}
	}
	return found, nil
}

// Reload compiles nothing and hands the store's policy to the kernel again.
func (s *Store) Reload(ctx context.Context) error {
	_, err := s.run(ctx, "", "--reload")
	return err
}

// run runs semodule in the host's root. It and what it starts have this process's
// privileges, but no network, and reach no other process.
func (s *Store) run(ctx context.Context, dir string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Time)
	defer cancel()
	name, err := s.find()
	if err != nil {
		return nil, err
	}
	out, said := &sandbox.Output{Max: maxOutput}, &sandbox.Output{Max: maxOutput}
	err = sandbox.Run(ctx, sandbox.Program{
		Path: name, Args: args, Env: []string{"PATH=" + path, "LC_ALL=C"}, Dir: dir, Root: s.opts.HostRoot,
		Stdout: out, Stderr: said, Filter: sandbox.Tool, CPU: s.opts.Time,
	})
	switch {
	case err == nil:
		return whole(out)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("semodule: %w", ctx.Err())
	case bytes.Contains(said.Bytes(), []byte(" lock at ")): // "Could not get direct transaction lock at FILE."
		return nil, fmt.Errorf("%w: %w", ErrBusy, refusal(said.Bytes(), err))
	}
	if _, ended := errors.AsType[*exec.ExitError](err); !ended {
		return nil, err
	}
	return nil, refusal(said.Bytes(), err)
}

// whole returns what was printed: a list that is cut hides modules.
func whole(out *sandbox.Output) ([]byte, error) {
	if out.Over() {
		return nil, fmt.Errorf("semodule printed more than %d bytes", out.Max)
	}
	return out.Bytes(), nil
}

func (s *Store) find() (string, error) {
	for _, folder := range strings.Split(path, ":") {
		name := filepath.Join(folder, program)
		if info, err := os.Stat(s.opts.HostRoot + name); err == nil && info.Mode().IsRegular() {
			return name, nil
		}
	}
	return "", fmt.Errorf("%s: %w", program, exec.ErrNotFound)
}

func refusal(log []byte, err error) *Error {
	e := &Error{Summary: "semodule gave no reason", Log: string(log), Err: err}
	for line := range strings.Lines(e.Log) {
		// Removals are announced, too; the first other line says it.
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(line, "Removing last") {
			e.Summary = strings.ToValidUTF8(line[:min(len(line), shownSummary)], "?")
			break
		}
	}
	return e
}

// usable reports names that are safe as arguments, as file names, and as what
// libsemanage takes: letters, digits, underscores and hyphens, a letter first.
func usable(name string) bool {
	if name == "" || len(name) > 200 || (name[0]|0x20) < 'a' || (name[0]|0x20) > 'z' {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool {
		letter := (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z')
		return !letter && (r < '0' || r > '9') && r != '_' && r != '-'
	})
}
