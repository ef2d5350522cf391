// Package purge takes away from a node what Confine installed there, and
// nothing else. It knows the shape of everything that Confine makes; what has
// another shape stays and is told. It works below os.Root handles and follows
// no link.
package purge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"
)

// Options say where Confine was installed.
type Options struct {
	// Root is the agent's state folder.
	Root string
	// SeccompRoots are the folders that hold a folder "confine", such as the
	// kubelet's seccomp folder. <Root>/seccomp is always looked at.
	SeccompRoots []string
	// HostRoot is the host's root folder as this process sees it; empty for its
	// own. SELinuxPriority is that of the agent's modules; zero for the default.
	HostRoot        string
	SELinuxPriority int

	// loaded are the kinds that a kernel holds; nil for those of this system.
	loaded []loadedKind
}

func (o Options) kinds() []loadedKind {
	if o.loaded != nil {
		return o.loaded
	}
	return loadedKinds()
}

// Entry is one thing on the disk.
type Entry struct {
	Path string `json:"path"`
	// What it is, or for what is kept: why.
	What string `json:"what"`
	// Bytes in regular files.
	Bytes int64 `json:"bytes,omitempty"`
}

// Plan is what would be removed, in that order, and what is kept although it
// stands in Confine's folders.
type Plan struct {
	Remove []Entry `json:"remove"`
	Keep   []Entry `json:"keep,omitempty"`
	// Profiles is how many names that pods may use go.
	Profiles int `json:"profiles"`
	// NoState is set where there is no state folder, so that whether an agent
	// runs could not be told.
	NoState bool `json:"noState,omitempty"`

	trees  []*tree
	loaded []*owned
	kept   []string // folders of kinds that stay as they are
}

// tree is what is removed below one folder.
type tree struct {
	base  string
	items []item
}

// item is one entry below a tree's base. An empty folder goes only if it is
// empty then.
type item struct {
	name  string
	empty bool
}

// BusyError says that an agent works on the state folder.
type BusyError struct{ Path string }

// Error says what is in the way.
func (e *BusyError) Error() string {
	return e.Path + " is held: an agent runs here"
}

// WhatToDo says how to go on.
func (e *BusyError) WhatToDo() string {
	return "stop the agent first: uninstall Confine from the cluster, or systemctl disable --now confine-agent; " +
		"an agent that runs would install all of it again"
}

// Survey finds out what would be removed. It changes nothing. A running agent is
// a *BusyError.
func Survey(ctx context.Context, o Options) (*Plan, error) {
	plan := &Plan{Remove: []Entry{}}
	unlock, err := lock(o.Root, false)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return plan, survey(ctx, plan, o)
}

// Run surveys and removes while it holds the agent's lock, so that no agent
// starts meanwhile. It returns what was removed, also where some of it failed.
// What a process is confined by stays in the kernel, and is in Plan.Keep.
func Run(ctx context.Context, o Options) (*Plan, error) {
	plan := &Plan{Remove: []Entry{}}
	unlock, err := lock(o.Root, true)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := plan.kernels(ctx, o); err != nil {
		return nil, err
	}
	plan.unload(ctx, o.Root)
	plan.strangers(ctx, o.Root)
	if err := plan.files(o); err != nil {
		return plan, err
	}
	// The state goes last: as long as something is left, it says what.
	for _, t := range plan.trees {
		if err := t.remove(plan); err != nil {
			return plan, err
		}
	}
	return plan, plan.removeRoot(o.Root)
}

// onlyRoot is why an empty folder is left: the agent's user may not change the
// folder above it.
const onlyRoot = "it is empty, and only root may remove it"

// removeRoot takes the state folder away where nothing is left in it. Rmdir
// follows no link and takes no folder with anything in it.
func (p *Plan) removeRoot(root string) error {
	err := syscall.Rmdir(filepath.Clean(root))
	switch {
	case err == nil, left(err), errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.EBUSY), errors.Is(err, syscall.ENOTDIR):
		return nil
	case errors.Is(err, fs.ErrPermission):
		p.keep(root, ".", onlyRoot)
		return nil
	default:
		return &fs.PathError{Op: "rmdir", Path: root, Err: err}
	}
}

// left reports whether a folder was not removed because something is in it.
func left(err error) bool { return errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) }

func survey(ctx context.Context, plan *Plan, o Options) error {
	if err := plan.kernels(ctx, o); err != nil {
		return err
	}
	plan.strangers(ctx, o.Root)
	return plan.files(o)
}

// files plans what stands on the disk.
func (p *Plan) files(o Options) error {
	for _, base := range slices.Compact(append(slices.Clone(o.SeccompRoots), filepath.Join(o.Root, seccompDir))) {
		if err := p.seccomp(base); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(o.Root); errors.Is(err, fs.ErrNotExist) {
		p.NoState = true
	}
	return p.state(o)
}

// lock takes the agent's lock as an agent does. Where nothing is to be changed
// and no agent ever ran, there is nothing to take.
func lock(root string, create bool) (unlock func(), err error) {
	none := func() {}
	dir, err := os.OpenRoot(root)
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	info, err := dir.Lstat(lockName)
	flags := os.O_RDWR
	switch {
	case errors.Is(err, fs.ErrNotExist) && !create:
		return none, nil
	case errors.Is(err, fs.ErrNotExist):
		flags |= os.O_CREATE | os.O_EXCL
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file: no agent made it", filepath.Join(root, lockName))
	}
	f, err := dir.OpenFile(lockName, flags, 0o600)
	if err != nil {
		return nil, err
	}
	if opened, err := f.Stat(); err != nil || info != nil && !os.SameFile(info, opened) {
		return nil, errors.Join(fmt.Errorf("%s changed meanwhile", filepath.Join(root, lockName)), err, f.Close())
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errors.Join(&BusyError{Path: filepath.Join(root, lockName)}, f.Close())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// take plans one entry.
func (p *Plan) take(t *tree, name, what string, bytes int64) {
	t.items = append(t.items, item{name: name})
	p.Remove = append(p.Remove, Entry{Path: filepath.Join(t.base, name), What: what, Bytes: bytes})
}

// takeEmpty plans a folder that goes if nothing is left in it.
func (p *Plan) takeEmpty(t *tree, name string) {
	t.items = append(t.items, item{name: name, empty: true})
}

func (p *Plan) keep(base, name, why string) {
	p.Keep = append(p.Keep, Entry{Path: filepath.Join(base, name), What: why})
}

// remove takes the items away, each by its name below the base, without
// following a link.
func (t *tree) remove(p *Plan) error {
	dir, err := os.OpenRoot(t.base)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	var failed []error
	for _, i := range t.items {
		err := t.removeOne(dir, i)
		switch {
		case err == nil, errors.Is(err, fs.ErrNotExist), i.empty && left(err):
		case i.empty && errors.Is(err, fs.ErrPermission):
			p.keep(t.base, i.name, onlyRoot)
		default:
			failed = append(failed, fmt.Errorf("%s: %w", filepath.Join(t.base, i.name), err))
		}
	}
	return errors.Join(failed...)
}

// removeOne opens the entry's folder step by step, and refuses steps that are
// links now: what was a folder when it was looked at may be a link into another
// one meanwhile.
func (t *tree) removeOne(dir *os.Root, i item) error {
	parent, closeParent, err := descend(dir, path.Dir(i.name))
	if err != nil {
		return err
	}
	defer closeParent()
	base := path.Base(i.name)
	if !i.empty {
		return parent.RemoveAll(base)
	}
	info, err := parent.Lstat(base)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return nil
	}
	return parent.Remove(base)
}

// descend opens a folder below dir, no step of which may be a link.
func descend(dir *os.Root, name string) (*os.Root, func(), error) {
	at, opened := dir, []*os.Root{}
	closeAll := func() {
		for _, r := range opened {
			_ = r.Close()
		}
	}
	if name == "." {
		return at, closeAll, nil
	}
	for _, segment := range splitPath(name) {
		next, err := openFolder(at, segment)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		opened = append(opened, next)
		at = next
	}
	return at, closeAll, nil
}

// listFolder is openFolder, and lists what is in it.
func listFolder(dir *os.Root, name string) (*os.Root, []fs.DirEntry, error) {
	folder, err := openFolder(dir, name)
	if err != nil {
		return nil, nil, err
	}
	entries, err := fs.ReadDir(folder.FS(), ".")
	if err != nil {
		return nil, nil, errors.Join(err, folder.Close())
	}
	return folder, entries, nil
}

// openFolder opens a folder that is no link.
func openFolder(dir *os.Root, name string) (*os.Root, error) {
	info, err := dir.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is no folder: %w", name, errNoFolder)
	}
	next, err := dir.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	opened, err := next.Stat(".")
	if err != nil || !os.SameFile(info, opened) {
		return nil, errors.Join(cmp.Or(err, errNoFolder), next.Close())
	}
	return next, nil
}

var errNoFolder = errors.New("it is no folder, or changed meanwhile")
