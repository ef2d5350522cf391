// Package durable is the one way Confine changes a disk: a folder that writes
// cannot leave, and in which every change is whole or has not happened.
//
// All access goes through os.Root, one path segment at a time, and no symbolic
// link is ever followed below the opened folder, not even one that stays
// inside. A file is written under a temporary name, flushed, read back,
// renamed, and the folder is flushed: a process killed anywhere, or a machine
// that loses power, leaves the old file or the new one and never a half.
//
// A killed write can leave a temporary entry behind. Its name begins with a
// prefix that this package refuses in every name it is given, so SweepTemp
// can tell it from everything else.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// tempPrefix begins the name of every unfinished entry, and of nothing else.
const tempPrefix = ".durable-tmp-"

// Errors to ask for with errors.Is. Missing entries are fs.ErrNotExist.
var (
	// ErrName refuses a name that is not a relative, slash-separated path
	// without "..", or that claims the prefix of temporary entries.
	ErrName = errors.New("not a usable name")
	// ErrNotRegular refuses to read what is no regular file: a link, a FIFO,
	// a device, a folder.
	ErrNotRegular = errors.New("not a regular file")
	// ErrNotFolder refuses a path that leads through something other than a
	// folder, such as a symbolic link somebody put there.
	ErrNotFolder = errors.New("not a folder")
	// ErrTooLarge refuses to read a file above the caller's bound.
	ErrTooLarge = errors.New("larger than the bound")
	// ErrCorrupted says that what was read back is not what was written.
	ErrCorrupted = errors.New("read back other bytes than were written")
)

// Op is the kind of one change to the disk.
type Op = string

// The operations that Options.Before is told about.
const (
	OpMkdir    Op = "mkdir"
	OpCreate   Op = "create" // an empty temporary file
	OpWrite    Op = "write"
	OpChmod    Op = "chmod"
	OpFsync    Op = "fsync"
	OpRename   Op = "rename"
	OpFsyncDir Op = "fsync-dir"
	OpSymlink  Op = "symlink" // a temporary link
	OpRemove   Op = "remove"
)

// Step is one operation that is about to change the disk.
type Step struct {
	// Op is one of the operations above.
	Op Op
	// Name is what the caller asked to change, relative to the opened folder.
	// It is never a temporary name, so that steps are the same in every run.
	Name string
}

// Options adjust a Dir. The zero value works.
type Options struct {
	// Before is called before every operation that changes the disk. An error
	// aborts right there and cleans nothing up, so that the disk is left as a
	// crash would leave it. Crash tests use it; nil calls nothing.
	Before func(Step) error
	// Perm is the mode of the folder, and of parents, where Open creates
	// them. Zero means 0700.
	Perm fs.FileMode
}

// Dir is an open folder. It is safe for concurrent use as far as the calls
// name different entries; two writers of one name both succeed, and the later
// rename stays.
type Dir struct {
	root   *os.Root
	before func(Step) error
	prefix string // of this Dir below the opened folder, for Step.Name
}

// aborted marks an error of Options.Before: nothing may be cleaned up.
type aborted struct{ error }

func (a aborted) Unwrap() error { return a.error }

func isAborted(err error) bool {
	_, ok := errors.AsType[aborted](err)
	return ok
}

// Open opens the folder at dir, which may itself be reached through links, and
// creates it and its parents where they are missing.
func Open(dir string, opts Options) (*Dir, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	perm := opts.Perm
	if perm == 0 {
		perm = 0o700
	}
	if err := makePath(abs, perm, opts.Before); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, err
	}
	return &Dir{root: root, before: opts.Before}, nil
}

// OpenExisting is Open, but a missing folder is fs.ErrNotExist.
func OpenExisting(dir string, opts Options) (*Dir, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Dir{root: root, before: opts.Before}, nil
}

// makePath is MkdirAll for the way to the opened folder, where links count as
// what they point to.
func makePath(abs string, perm fs.FileMode, before func(Step) error) error {
	info, err := os.Stat(abs)
	if err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s: %w", abs, ErrNotFolder)
		}
		return nil
	}
	parent := filepath.Dir(abs)
	if !errors.Is(err, fs.ErrNotExist) || parent == abs {
		return err
	}
	if err := makePath(parent, perm, before); err != nil {
		return err
	}
	root, err := os.OpenRoot(parent)
	if err != nil {
		return err
	}
	d := &Dir{root: root, before: before}
	defer d.Close()
	return d.MkdirAll(filepath.Base(abs), perm)
}

// Close releases the folder. Dirs made by Sub stay open.
func (d *Dir) Close() error { return d.root.Close() }

// Path is the folder's path as it was opened, for messages.
func (d *Dir) Path() string { return d.root.Name() }

// Sub opens a folder below d as a Dir of its own. Steps keep their names
// relative to the folder opened first. The caller closes it.
func (d *Dir) Sub(name string) (*Dir, error) {
	if err := checkName("open", name, true); err != nil {
		return nil, err
	}
	root, err := d.descend(name)
	if root == d.root {
		root, err = d.root.OpenRoot(".") // the caller closes what it is given
	}
	if err != nil {
		return nil, err
	}
	return &Dir{root: root, before: d.before, prefix: d.full(name)}, nil
}

// full is name relative to the folder opened first.
func (d *Dir) full(name string) string { return path.Join(d.prefix, name) }

// step announces one change to name and returns what aborts it.
func (d *Dir) step(op Op, name string) error {
	if d.before == nil {
		return nil
	}
	if err := d.before(Step{Op: op, Name: d.full(name)}); err != nil {
		return aborted{fmt.Errorf("before %s %s: %w", op, d.full(name), err)}
	}
	return nil
}

// checkName refuses names that could mean something outside the folder, or a
// temporary entry. "." is the folder itself, usable where self is set.
func checkName(op, name string, self bool) error {
	bad := !fs.ValidPath(name) || !filepath.IsLocal(name) || strings.ContainsRune(name, 0) ||
		(name == "." && !self)
	for segment := range strings.SplitSeq(name, "/") {
		bad = bad || isTemp(segment)
	}
	if bad {
		return &fs.PathError{Op: op, Path: fmt.Sprintf("%q", name), Err: ErrName}
	}
	return nil
}

func isTemp(segment string) bool { return strings.HasPrefix(segment, tempPrefix) }

// parentOf opens the folder that holds name's last segment. The caller gives it
// to release.
func (d *Dir) parentOf(op, name string) (*os.Root, string, error) {
	if err := checkName(op, name, false); err != nil {
		return nil, "", err
	}
	parent, err := d.descend(path.Dir(name))
	return parent, path.Base(name), err
}

// descend opens a folder below d segment by segment and follows no link. The
// caller gives it to release.
func (d *Dir) descend(name string) (*os.Root, error) {
	at := d.root
	if name == "." {
		return at, nil
	}
	for segment := range strings.SplitSeq(name, "/") {
		next, err := openFolder(at, segment)
		d.release(at)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path.Join(d.Path(), name), Err: err}
		}
		at = next
	}
	return at, nil
}

// release closes what descend opened: d's own folder stays open.
func (d *Dir) release(at *os.Root) {
	if at != d.root {
		closeQuietly(at)
	}
}

// openFolder opens the folder called segment in at. os.Root would follow a
// link that stays inside, so what was opened must be what Lstat saw.
func openFolder(at *os.Root, segment string) (*os.Root, error) {
	seen, err := at.Lstat(segment)
	if err != nil {
		return nil, err
	}
	if !seen.IsDir() {
		return nil, ErrNotFolder
	}
	next, err := at.OpenRoot(segment)
	if err != nil {
		return nil, err
	}
	got, err := next.Stat(".")
	if err == nil && !os.SameFile(seen, got) {
		err = ErrNotFolder
	}
	if err != nil {
		closeQuietly(next)
		return nil, err
	}
	return next, nil
}

// closeQuietly closes what was only read or already flushed: its error says
// nothing that matters.
func closeQuietly(c interface{ Close() error }) { _ = c.Close() }
