package durable

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// ReadFile reads a regular file of at most limit bytes. It never follows a link
// and never waits for a FIFO; a larger file is ErrTooLarge.
func (d *Dir) ReadFile(name string, limit int64) ([]byte, error) {
	parent, base, err := d.parentOf("read", name)
	if err != nil {
		return nil, err
	}
	defer d.release(parent)
	f, err := openRegular(parent, base)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	defer closeQuietly(f)
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("%w of %d bytes", ErrTooLarge, limit)}
	}
	return data, nil
}

// openRegular opens base only where it is a regular file, and makes sure that
// it got the one it looked at. Opening a FIFO does not block.
func openRegular(parent *os.Root, base string) (*os.File, error) {
	seen, err := parent.Lstat(base)
	if err != nil {
		return nil, err
	}
	if !seen.Mode().IsRegular() {
		return nil, ErrNotRegular
	}
	f, err := parent.OpenFile(base, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	got, err := f.Stat()
	if err == nil && !os.SameFile(seen, got) {
		err = ErrNotRegular
	}
	if err != nil {
		closeQuietly(f)
		return nil, err
	}
	return f, nil
}

// ReadDir lists a folder sorted by name, without what killed writes left. "."
// is the folder itself.
func (d *Dir) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := checkName("list", name, true); err != nil {
		return nil, err
	}
	folder, err := d.descend(name)
	if err != nil {
		return nil, err
	}
	defer d.release(folder)
	entries, err := fs.ReadDir(folder.FS(), ".")
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return isTemp(e.Name()) }), nil
}

// Readlink returns the target of a symbolic link as it is stored.
func (d *Dir) Readlink(name string) (string, error) {
	parent, base, err := d.parentOf("readlink", name)
	if err != nil {
		return "", err
	}
	defer d.release(parent)
	return parent.Readlink(base)
}

// Lstat describes an entry without following it. "." is the folder itself.
func (d *Dir) Lstat(name string) (fs.FileInfo, error) {
	if name == "." {
		return d.root.Stat(".")
	}
	parent, base, err := d.parentOf("lstat", name)
	if err != nil {
		return nil, err
	}
	defer d.release(parent)
	return parent.Lstat(base)
}
