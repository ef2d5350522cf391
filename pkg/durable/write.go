package durable

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// File is one file of WriteFolder. Name is a bare file name.
type File struct {
	Name string
	Data []byte
}

// WriteFile puts data at name, in a folder that exists, with exactly perm
// whatever the umask. It replaces a file, link or FIFO of that name by rename,
// so that other hard links to an old file keep their bytes.
func (d *Dir) WriteFile(name string, data []byte, perm fs.FileMode) error {
	parent, base, err := d.parentOf("write", name)
	if err != nil {
		return err
	}
	defer d.release(parent)
	temp := tempName()
	err = d.writeNew(parent, temp, name, data, perm)
	if err == nil {
		err = d.rename(parent, temp, base, name)
	}
	if err != nil {
		return d.discard(parent, temp, name, err)
	}
	return d.syncDir(parent, path.Dir(name))
}

// WriteFolder puts a new folder at name with exactly these files. It appears
// whole or not at all. An existing entry of that name is fs.ErrExist.
func (d *Dir) WriteFolder(name string, files []File, dirPerm, filePerm fs.FileMode) error {
	parent, base, err := d.parentOf("write", name)
	if err != nil {
		return err
	}
	defer d.release(parent)
	if _, err := parent.Lstat(base); err == nil {
		return &fs.PathError{Op: "write", Path: name, Err: fs.ErrExist}
	}
	temp := tempName()
	err = d.fillFolder(parent, temp, name, files, dirPerm, filePerm)
	if err == nil {
		err = d.rename(parent, temp, base, name)
	}
	if err != nil {
		return d.discard(parent, temp, name, err)
	}
	return d.syncDir(parent, path.Dir(name))
}

// fillFolder makes the temporary folder of WriteFolder and flushes it.
func (d *Dir) fillFolder(parent *os.Root, temp, name string, files []File, dirPerm, filePerm fs.FileMode) error {
	if err := d.mkdir(parent, temp, name, dirPerm); err != nil {
		return err
	}
	folder, err := openFolder(parent, temp)
	if err != nil {
		return err
	}
	defer closeQuietly(folder)
	for _, f := range files {
		full := path.Join(name, f.Name)
		if err := checkBare(name, f.Name); err != nil {
			return err
		}
		if err := d.writeNew(folder, f.Name, full, f.Data, filePerm); err != nil {
			return err
		}
	}
	return d.syncDir(folder, name)
}

// writeNew creates file in folder and makes its bytes durable. Steps carry
// name, what the file will be.
func (d *Dir) writeNew(folder *os.Root, file, name string, data []byte, perm fs.FileMode) error {
	f, err := d.create(folder, file, name, data, perm)
	if err == nil {
		err = d.flush(f, name, data)
	}
	if f == nil {
		return err
	}
	return errors.Join(err, f.Close())
}

// create creates file in folder with its bytes. What it opened is returned
// with an error, too.
func (d *Dir) create(folder *os.Root, file, name string, data []byte, perm fs.FileMode) (*os.File, error) {
	if err := d.step(OpCreate, name); err != nil {
		return nil, err
	}
	f, err := folder.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := d.step(OpWrite, name); err != nil {
		return f, err
	}
	if _, err := f.Write(data); err != nil {
		return f, err
	}
	if err := d.step(OpChmod, name); err != nil {
		return f, err
	}
	return f, f.Chmod(perm) // not left to the umask
}

// flush makes the bytes of a file durable and reads them back.
func (d *Dir) flush(f *os.File, name string, data []byte) error {
	if err := d.step(OpFsync, name); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	got := make([]byte, len(data)+1) // one more byte than there may be
	n, err := f.ReadAt(got, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !bytes.Equal(got[:n], data) {
		return &fs.PathError{Op: "verify", Path: name, Err: ErrCorrupted}
	}
	return nil
}

// Symlink makes name a symbolic link to target, in one step where name is
// already a link or a file. A folder of that name is fs.ErrExist. target is
// stored as it is and never followed.
func (d *Dir) Symlink(target, name string) error {
	parent, base, err := d.parentOf("symlink", name)
	if err != nil {
		return err
	}
	defer d.release(parent)
	if err := d.step(OpSymlink, name); err != nil {
		return err
	}
	temp := tempName()
	err = parent.Symlink(target, temp)
	if err == nil {
		err = d.rename(parent, temp, base, name)
	}
	if err != nil {
		return d.discard(parent, temp, name, err)
	}
	return d.syncDir(parent, path.Dir(name))
}

// MkdirAll makes the folder name and its missing parents, each with exactly
// perm whatever the umask, and flushes the folders it changed. A folder that
// exists keeps its mode.
func (d *Dir) MkdirAll(name string, perm fs.FileMode) error {
	b := d.Batch()
	if err := b.MkdirAll(name, perm); err != nil {
		_ = b.Commit() // flushes what was made before
		return err
	}
	return b.Commit()
}

// mkdirAll is MkdirAll without the flush; it returns the folders it changed.
func (d *Dir) mkdirAll(name string, perm fs.FileMode) (changed []string, err error) {
	if err := checkName("mkdir", name, true); err != nil {
		return nil, err
	}
	at, err := d.descend(".")
	if err != nil {
		return nil, err
	}
	defer func() { d.release(at) }()
	if name == "." {
		return nil, nil
	}
	done := "."
	for segment := range strings.SplitSeq(name, "/") {
		full := path.Join(done, segment)
		next, err := openFolder(at, segment)
		if errors.Is(err, fs.ErrNotExist) {
			err = d.mkdir(at, segment, full, perm)
			if err == nil || errors.Is(err, fs.ErrExist) { // another call may have been faster
				changed = append(changed, done)
				next, err = openFolder(at, segment)
			}
		}
		if err != nil {
			return changed, &fs.PathError{Op: "mkdir", Path: path.Join(d.Path(), full), Err: err}
		}
		d.release(at)
		at, done = next, full
	}
	return changed, nil
}

// mkdir makes one folder with exactly perm.
func (d *Dir) mkdir(parent *os.Root, base, name string, perm fs.FileMode) error {
	if err := d.step(OpMkdir, name); err != nil {
		return err
	}
	if err := parent.Mkdir(base, perm.Perm()); err != nil {
		return err
	}
	info, err := parent.Lstat(base)
	if err != nil || info.Mode().Perm() == perm.Perm() {
		return err
	}
	if err := d.step(OpChmod, name); err != nil {
		return err
	}
	return parent.Chmod(base, perm.Perm())
}

// Chmod gives a file or folder exactly perm. It refuses links.
func (d *Dir) Chmod(name string, perm fs.FileMode) error {
	parent, base, err := d.parentOf("chmod", name)
	if err != nil {
		return err
	}
	defer d.release(parent)
	info, err := parent.Lstat(base)
	if err != nil {
		return err
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return &fs.PathError{Op: "chmod", Path: name, Err: ErrNotRegular}
	}
	if err := d.step(OpChmod, name); err != nil {
		return err
	}
	if err := parent.Chmod(base, perm.Perm()); err != nil {
		return err
	}
	return d.syncDir(parent, path.Dir(name))
}

// Rename moves a file, link or folder and flushes both folders. It replaces a
// file or link at updated; a folder there is fs.ErrExist.
func (d *Dir) Rename(old, updated string) error {
	from, _, err := d.parentOf("rename", old)
	if err != nil {
		return err
	}
	defer d.release(from)
	to, _, err := d.parentOf("rename", updated)
	if err != nil {
		return err
	}
	defer d.release(to)
	if err := d.step(OpRename, updated); err != nil {
		return err
	}
	// Both ways were walked above and hold no links.
	if err := d.root.Rename(old, updated); err != nil {
		return err
	}
	if err := d.syncDir(to, path.Dir(updated)); err != nil {
		return err
	}
	if path.Dir(old) == path.Dir(updated) {
		return nil
	}
	return d.syncDir(from, path.Dir(old))
}

// rename moves an entry within one open folder. Steps carry name, what the
// entry will be.
func (d *Dir) rename(parent *os.Root, old, base, name string) error {
	if err := d.step(OpRename, name); err != nil {
		return err
	}
	return parent.Rename(old, base)
}

// Remove takes away one file, link or empty folder. A missing one is
// fs.ErrNotExist.
func (d *Dir) Remove(name string) error {
	parent, base, err := d.parentOf("remove", name)
	if err != nil {
		return err
	}
	defer d.release(parent)
	if err := d.step(OpRemove, name); err != nil {
		return err
	}
	if err := parent.Remove(base); err != nil {
		return err
	}
	return d.syncDir(parent, path.Dir(name))
}

// RemoveAll takes away name and all below it; a missing one is no error. A
// folder is first renamed to a temporary name, so that it disappears whole.
func (d *Dir) RemoveAll(name string) error {
	parent, base, err := d.parentOf("remove", name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.release(parent)
	info, err := parent.Lstat(base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	doomed := base
	if info.IsDir() {
		temp := tempName()
		err := d.rename(parent, base, temp, name)
		if err == nil {
			doomed, err = temp, d.syncDir(parent, path.Dir(name))
		}
		// A full disk may have no room for the other name; remove in place then.
		if err != nil && !isFull(err) {
			return err
		}
	}
	if err := d.step(OpRemove, name); err != nil {
		return err
	}
	if err := parent.RemoveAll(doomed); err != nil {
		return err
	}
	return d.syncDir(parent, path.Dir(name))
}

// SweepTemp removes what killed writes left in the folder name; folders below
// are swept on their own. It must not run beside a write in that folder.
func (d *Dir) SweepTemp(name string) error {
	if err := checkName("sweep", name, true); err != nil {
		return err
	}
	folder, err := d.descend(name)
	if err != nil {
		return err
	}
	defer d.release(folder)
	entries, err := fs.ReadDir(folder.FS(), ".")
	if err != nil {
		return err
	}
	swept := false
	for _, e := range entries {
		if !isTemp(e.Name()) {
			continue
		}
		if err := d.step(OpRemove, name); err != nil {
			return err
		}
		if err := folder.RemoveAll(e.Name()); err != nil {
			return err
		}
		swept = true
	}
	if !swept {
		return nil
	}
	return d.syncDir(folder, name)
}

// syncDir flushes an open folder's entries.
func (d *Dir) syncDir(folder *os.Root, name string) (err error) {
	if err := d.step(OpFsyncDir, name); err != nil {
		return err
	}
	f, err := folder.Open(".")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.Sync()
}

// discard takes away what a failed write left and returns its error. After an
// abort it touches nothing: a killed process would not either.
func (d *Dir) discard(parent *os.Root, temp, name string, cause error) error {
	if isAborted(cause) {
		return cause
	}
	if _, err := parent.Lstat(temp); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", name, cause)
	}
	err := d.step(OpRemove, name)
	if err == nil {
		err = parent.RemoveAll(temp)
	}
	return fmt.Errorf("%s: %w", name, errors.Join(cause, err))
}

func tempName() string { return tempPrefix + rand.Text() }

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
