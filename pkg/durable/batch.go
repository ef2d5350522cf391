package durable

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Bounds of one commit.
const (
	// flushers is how many entries are flushed at one time: file systems with a
	// journal make many waiting flushes durable with one write.
	flushers = 8
	// chunk bounds the files that are open at one time.
	chunk = 128
)

// Batch makes many entries durable together, which costs far fewer waits for
// the disk than one by one. Each entry is still whole or has not happened.
//
// Commit works in phases:
//  1. every entry is written under a temporary name, flushed and read back;
//  2. the entries are renamed in the order they were staged, and then each
//     changed folder is flushed once;
//  3. the same for entries that wait for others (After), once the folders of
//     those are flushed.
//
// So nothing is visible before the bytes of the whole batch are on the disk or
// have failed, and an entry is never on the disk without those it comes after.
// A killed commit leaves any of the entries of one phase old and the others
// new. Entries fail one by one; Staged.Err says which.
//
// With Options.Before all steps run one after another in the order of staging,
// without it flushes run beside each other; the result is the same. A Batch is
// used by one goroutine.
type Batch struct {
	d       *Dir
	parents map[string]*os.Root // folders that hold entries, opened once
	dirty   []string            // folders changed while staging
	staged  []*Staged
	abort   error
}

// Staged is one entry of a Batch.
type Staged struct {
	name, base, temp string
	parent           *os.Root
	make             func(s *Staged) error // makes the temporary entry
	pending          []unflushed
	folder           *os.Root // a new folder, until it is flushed
	after            []*Staged
	level            int
	made             bool
	err              error
}

// unflushed is a file that was written and not flushed.
type unflushed struct {
	file *os.File
	name string
	data []byte
}

// Batch returns an empty batch, which Commit ends. One that is never committed
// changed nothing but what MkdirAll made.
func (d *Dir) Batch() *Batch { return &Batch{d: d, parents: map[string]*os.Root{}} }

// Err is why the entry was not changed, or nil; it is set by Commit.
func (s *Staged) Err() error { return s.err }

// After makes the entry wait until the others are durable: it fails where one
// of them does. They belong to the same batch and were staged before it.
func (s *Staged) After(others ...*Staged) {
	s.after = append(s.after, others...)
	for _, o := range others {
		s.level = max(s.level, o.level+1)
	}
}

// Len is the number of entries staged so far.
func (b *Batch) Len() int { return len(b.staged) }

// WriteFile stages Dir.WriteFile.
func (b *Batch) WriteFile(name string, data []byte, perm fs.FileMode) *Staged {
	return b.stage("write", name, func(s *Staged) error {
		return b.create(s, s.parent, s.temp, name, data, perm)
	})
}

// WriteFolder stages Dir.WriteFolder.
func (b *Batch) WriteFolder(name string, files []File, dirPerm, filePerm fs.FileMode) *Staged {
	return b.stage("write", name, func(s *Staged) error {
		if _, err := s.parent.Lstat(s.base); err == nil {
			return &fs.PathError{Op: "write", Path: name, Err: fs.ErrExist}
		}
		err := b.d.mkdir(s.parent, s.temp, name, dirPerm)
		if err == nil {
			s.folder, err = openFolder(s.parent, s.temp)
		}
		for _, f := range files {
			if err == nil {
				err = checkBare(name, f.Name)
			}
			if err == nil {
				err = b.create(s, s.folder, f.Name, path.Join(name, f.Name), f.Data, filePerm)
			}
		}
		return err
	})
}

// Symlink stages Dir.Symlink.
func (b *Batch) Symlink(target, name string) *Staged {
	return b.stage("symlink", name, func(s *Staged) error {
		if err := b.d.step(OpSymlink, name); err != nil {
			return err
		}
		return s.parent.Symlink(target, s.temp)
	})
}

// MkdirAll is Dir.MkdirAll at once, but the changed folders are flushed by
// Commit, with those of the first phase.
func (b *Batch) MkdirAll(name string, perm fs.FileMode) error {
	changed, err := b.d.mkdirAll(name, perm)
	for _, folder := range changed {
		if !slices.Contains(b.dirty, folder) {
			b.dirty = append(b.dirty, folder)
		}
	}
	if isAborted(err) {
		b.abort = err
	}
	return err
}

func (b *Batch) stage(op, name string, create func(*Staged) error) *Staged {
	s := &Staged{name: name, base: path.Base(name), make: create}
	if s.err = checkName(op, name, false); s.err == nil {
		s.parent, s.err = b.open(path.Dir(name))
	}
	b.staged = append(b.staged, s)
	return s
}

// open opens a folder once for the whole batch, following no link.
func (b *Batch) open(folder string) (*os.Root, error) {
	if at := b.parents[folder]; at != nil {
		return at, nil
	}
	at, err := b.d.descend(folder)
	if err == nil {
		b.parents[folder] = at
	}
	return at, err
}

// create makes one file of an entry; its bytes are flushed later.
func (b *Batch) create(s *Staged, folder *os.Root, file, name string, data []byte, perm fs.FileMode) error {
	f, err := b.d.create(folder, file, name, data, perm)
	if f != nil {
		s.pending = append(s.pending, unflushed{f, name, data})
	}
	return err
}

// Commit makes all entries durable and ends the batch. The error joins those
// of all entries, each of which failed alone.
func (b *Batch) Commit() error {
	defer func() {
		for _, at := range b.parents {
			b.d.release(at)
		}
		b.parents = nil
	}()
	b.writeAll()
	last := 0
	for _, s := range b.staged {
		last = max(last, s.level)
	}
	var errs []error
	for level := 0; level <= last && b.abort == nil; level++ {
		errs = append(errs, b.show(level))
	}
	for _, s := range b.staged {
		if s.err == nil {
			s.err = b.abort
		}
		errs = append(errs, s.err)
	}
	if len(b.staged) == 0 {
		errs = append(errs, b.abort)
	}
	return errors.Join(errs...)
}

// writeAll is the first phase.
func (b *Batch) writeAll() {
	var open []*Staged
	files := 0
	for _, s := range b.staged {
		if s.err == nil && b.abort == nil {
			s.temp = tempName()
			s.made = true
			b.fail(s, s.make(s))
			open, files = append(open, s), files+len(s.pending)+1
		}
		if files >= chunk {
			b.flush(open)
			open, files = nil, 0
		}
	}
	b.flush(open)
}

// flush makes the temporary entries durable, files before their folders.
func (b *Batch) flush(entries []*Staged) {
	type one struct {
		entry *Staged
		unflushed
		err error
	}
	var files, folders []*one
	for _, s := range entries {
		for _, u := range s.pending {
			files = append(files, &one{entry: s, unflushed: u})
		}
		s.pending = nil
		if s.folder != nil {
			folders = append(folders, &one{entry: s})
		}
	}
	if len(files) > 1 {
		for _, f := range files {
			beginWrite(f.file)
		}
	}
	b.each(len(files), func(i int) error {
		f := files[i]
		if f.entry.err == nil && b.abort == nil {
			f.err = b.d.flush(f.file, f.name, f.data)
		}
		f.err = errors.Join(f.err, f.file.Close())
		return f.err
	})
	for _, f := range files {
		b.fail(f.entry, f.err)
	}
	b.each(len(folders), func(i int) error {
		f := folders[i]
		if f.entry.err == nil && b.abort == nil {
			f.err = b.d.syncDir(f.entry.folder, f.entry.name)
		}
		closeQuietly(f.entry.folder)
		return f.err
	})
	for _, f := range folders {
		b.fail(f.entry, f.err)
		f.entry.folder = nil
	}
	b.discard(entries)
}

// show renames the entries of one level and flushes the folders they are in.
// The error is that of a folder MkdirAll changed, which every entry may be in.
func (b *Batch) show(level int) error {
	var folders []string
	if level == 0 {
		folders = b.dirty
	}
	made := len(folders)
	in := map[string][]*Staged{}
	for _, s := range b.staged {
		if s.level != level || s.err != nil || b.abort != nil {
			continue
		}
		if b.rename(s); s.err != nil {
			continue
		}
		folder := path.Dir(s.name)
		if in[folder] = append(in[folder], s); !slices.Contains(folders, folder) {
			folders = append(folders, folder)
		}
	}
	failed := b.syncDirs(folders)
	for i, folder := range folders {
		entries := in[folder]
		if i < made {
			entries = b.staged
		}
		for _, s := range entries {
			b.fail(s, failed[i])
		}
	}
	b.discard(b.staged)
	return errors.Join(failed[:made]...)
}

// rename makes one entry visible, if all that it waits for is durable.
func (b *Batch) rename(s *Staged) {
	for _, o := range s.after {
		b.fail(s, o.err)
	}
	if s.err == nil {
		b.fail(s, b.d.rename(s.parent, s.temp, s.base, s.name))
		s.made = s.err != nil
	}
}

// syncDirs flushes folders and returns one error each.
func (b *Batch) syncDirs(folders []string) []error {
	failed := make([]error, len(folders))
	opened := make([]*os.Root, len(folders))
	for i, folder := range folders {
		opened[i], failed[i] = b.open(folder)
	}
	b.each(len(folders), func(i int) error {
		if failed[i] == nil && b.abort == nil {
			failed[i] = b.d.syncDir(opened[i], folders[i])
		}
		return failed[i]
	})
	return failed
}

// each does n things, beside each other unless steps are announced. After an
// abort it does no more.
func (b *Batch) each(n int, do func(i int) error) {
	if n <= 1 || b.d.before != nil {
		for i := range n {
			if err := do(i); isAborted(err) {
				b.abort = err
			}
		}
		return
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(n, flushers) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				_ = do(i) // the caller keeps the error
			}
		})
	}
	workers.Wait()
}

// fail notes why an entry failed. An abort ends the whole batch.
func (b *Batch) fail(s *Staged, err error) {
	if err == nil {
		return
	}
	if isAborted(err) {
		b.abort = err
	}
	if s.err == nil {
		s.err = err
	}
}

// discard takes away the temporary entries that failed, unless aborted.
func (b *Batch) discard(entries []*Staged) {
	for _, s := range entries {
		if s.err == nil || !s.made || b.abort != nil {
			continue
		}
		s.made = false
		s.err = b.d.discard(s.parent, s.temp, s.name, s.err)
		if isAborted(s.err) {
			b.abort = s.err
		}
	}
}

// checkBare refuses file names of WriteFolder that are no bare names.
func checkBare(folder, file string) error {
	if err := checkName("write", file, false); err != nil {
		return err
	}
	if strings.Contains(file, "/") {
		return &fs.PathError{Op: "write", Path: path.Join(folder, file), Err: ErrName}
	}
	return nil
}
