// Package cpio writes archives in the "newc" format, from which Linux fills its
// first root file system (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
package cpio

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// File types of a mode, as stat(2) has them.
const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeLink = 0o120000
	typeChar = 0o020000
)

// Writer writes one archive. Its first error stays and is returned by Close.
// Names are paths below the root, with or without a leading slash; folders on
// the way to a name are made with mode 0755.
type Writer struct {
	w       *bufio.Writer
	entries uint32
	folders map[string]bool
	err     error
}

// NewWriter returns a Writer of an empty archive.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: bufio.NewWriterSize(w, 1<<20), folders: map[string]bool{}}
}

// Close ends the archive with padding, so that another one may follow.
func (c *Writer) Close() error {
	c.entry("TRAILER!!!", 0, 0, nil)
	if c.err != nil {
		return c.err
	}
	return c.w.Flush()
}

// Folder adds an empty folder, once.
func (c *Writer) Folder(name string) {
	name = clean(name)
	if name == "" || c.folders[name] {
		return
	}
	c.Folder(path.Dir(name))
	c.folders[name] = true
	c.entry(name, typeDir|0o755, 0, nil)
}

// File adds a file.
func (c *Writer) File(name string, perm fs.FileMode, data []byte) {
	c.Folder(path.Dir(clean(name)))
	c.entry(clean(name), typeFile|uint32(perm.Perm()), 0, data)
}

// Link adds a symbolic link.
func (c *Writer) Link(target, name string) {
	c.Folder(path.Dir(clean(name)))
	c.entry(clean(name), typeLink|0o777, 0, []byte(target))
}

// Char adds a character device.
func (c *Writer) Char(name string, perm fs.FileMode, major, minor uint32) {
	c.Folder(path.Dir(clean(name)))
	c.entry(clean(name), typeChar|uint32(perm.Perm()), major<<8|minor, nil)
}

// Copy adds the file at from as it is, following links.
func (c *Writer) Copy(from, name string) {
	info, err := os.Stat(from)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", from)
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(from)
	}
	if err != nil {
		c.fail(err)
		return
	}
	c.File(name, info.Mode(), data)
}

// Tree adds all files, folders and links below the folder from. Links stay
// links. Anything else is an error.
func (c *Writer) Tree(from, name string) {
	c.Folder(name)
	c.fail(filepath.WalkDir(from, func(at string, e fs.DirEntry, err error) error {
		if err != nil || at == from {
			return err
		}
		below, err := filepath.Rel(from, at)
		if err != nil {
			return err
		}
		target := path.Join(name, filepath.ToSlash(below))
		switch e.Type() {
		case fs.ModeDir:
			c.Folder(target)
		case fs.ModeSymlink:
			leads, err := os.Readlink(at)
			if err != nil {
				return err
			}
			c.Link(leads, target)
		default:
			c.Copy(at, target)
		}
		return nil
	}))
}

func (c *Writer) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// entry writes one header, name and content, each padded to four bytes.
func (c *Writer) entry(name string, mode, device uint32, data []byte) {
	if strings.ContainsRune(name, 0) {
		c.fail(fmt.Errorf("%q: %w", name, syscall.EINVAL))
	}
	if c.err != nil {
		return
	}
	c.entries++
	links := 1
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.entries, mode, 0, 0, links, 0, len(data), 0, 0, device>>8, device&0xff, len(name)+1, 0)
	for _, part := range [][]byte{
		[]byte(header), append([]byte(name), 0), padding(len(header) + len(name) + 1), data, padding(len(data)),
	} {
		_, err := c.w.Write(part)
		c.fail(err)
	}
}

func padding(written int) []byte { return make([]byte, -written&3) }

func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }
