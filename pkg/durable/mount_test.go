//go:build linux

package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/confine-dev/confine/pkg/reason"
)

// mounted returns a fresh tmpfs of that many bytes. Only a kernel or sandbox
// that does not let this process mount skips the test.
func mounted(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size))
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		t.Skipf("this process may not mount a tmpfs (CAP_SYS_ADMIN): %v", err)
	}
	must(t, err)
	t.Cleanup(func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

func TestFullDisk(t *testing.T) {
	dir := mounted(t, 64<<10)
	d := open(t, dir)
	must(t, d.WriteFile("f", []byte("old"), 0o600))
	must(t, d.WriteFolder("w", []File{{"a", []byte("A")}}, 0o755, 0o644))
	before := tree(t, dir)
	big := bytes.Repeat([]byte("x"), 1<<20)
	for call, err := range map[string]error{
		"WriteFile":   d.WriteFile("f", big, 0o600),
		"WriteFolder": d.WriteFolder("w2", []File{{"a", []byte("A")}, {"b", big}}, 0o755, 0o644),
	} {
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: %v", call, err)
			continue
		}
		if got := Explain("f", err); !errors.Is(got, reason.NoSpace) || got.WhatToDo() == "" {
			t.Errorf("%s: Explain = %v", call, got)
		}
	}
	wantTree(t, dir, before) // nothing half, and no leftover that keeps the disk full
	must(t, d.RemoveAll("w"))
	must(t, d.WriteFile("f", []byte("new"), 0o600))
}

func TestBatchOnAFullDisk(t *testing.T) {
	dir := mounted(t, 256<<10)
	d := open(t, dir)
	b := d.Batch()
	entries := make([]*Staged, 0, 12)
	for i := range 12 {
		s := b.WriteFile(fmt.Sprintf("f%02d", i), make([]byte, 64<<10), 0o600)
		link := b.Symlink("x", fmt.Sprintf("l%02d", i))
		link.After(s)
		entries = append(entries, s, link)
	}
	err := b.Commit()
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Commit: %v", err)
	}
	left := tree(t, dir)
	for _, s := range entries {
		if _, there := left[s.name]; there != (s.Err() == nil) {
			t.Errorf("%s: there %t, error %v", s.name, there, s.Err())
		}
	}
	kept := slices.ContainsFunc(entries, func(s *Staged) bool { return s.Err() == nil })
	if !kept || len(left) == len(entries) {
		t.Errorf("%d of %d entries are there", len(left), len(entries))
	}
}

func TestReadOnlyTarget(t *testing.T) {
	dir := mounted(t, 64<<10)
	d := open(t, dir)
	must(t, d.WriteFile("f", []byte("old"), 0o600))
	must(t, d.WriteFolder("w", nil, 0o755, 0o644))
	before := tree(t, dir)
	must(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	_, openErr := Open(filepath.Join(dir, "more"), Options{})
	for call, err := range map[string]error{
		"WriteFile": d.WriteFile("f", []byte("new"), 0o600), "WriteFolder": d.WriteFolder("x", nil, 0o755, 0o644),
		"Symlink": d.Symlink("x", "l"), "MkdirAll": d.MkdirAll("a/b", 0o700), "Remove": d.Remove("f"),
		"RemoveAll": d.RemoveAll("w"), "Rename": d.Rename("f", "g"), "Chmod": d.Chmod("f", 0o644), "Open": openErr,
	} {
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: %v", call, err)
			continue
		}
		if got := Explain("f", err); !errors.Is(got, reason.InstallFailed) || got.Advice == "" {
			t.Errorf("%s: Explain = %v", call, got)
		}
	}
	wantTree(t, dir, before)
}

func TestExplain(t *testing.T) {
	known := reason.New(reason.NameConflict, "x", "taken")
	for name, c := range map[string]struct {
		err  error
		want reason.Reason
	}{
		"full":          {&fs.PathError{Op: "write", Err: syscall.ENOSPC}, reason.NoSpace},
		"quota":         {fmt.Errorf("wrapped: %w", syscall.EDQUOT), reason.NoSpace},
		"read-only":     {syscall.EROFS, reason.InstallFailed},
		"denied":        {fs.ErrPermission, reason.InstallFailed},
		"other":         {syscall.EIO, reason.InstallFailed},
		"has a reason":  {fmt.Errorf("wrapped: %w", known), reason.NameConflict},
		"planted entry": {ErrNotFolder, reason.InstallFailed},
	} {
		t.Run(name, func(t *testing.T) {
			got := Explain("object", c.err)
			if got.Reason != c.want {
				t.Errorf("reason %s, want %s", got.Reason, c.want)
			}
			if !errors.Is(c.err, got) && !errors.Is(got, c.err) {
				t.Errorf("%v lost its cause", got)
			}
		})
	}
}
