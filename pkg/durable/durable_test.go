package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func open(t *testing.T, dir string) *Dir {
	t.Helper()
	d, err := Open(dir, Options{})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tree renders a folder: every path with its mode, link target or content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	must(t, filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		info, err := e.Info()
		if err != nil {
			return err
		}
		switch {
		case e.IsDir():
			found[rel] = info.Mode().String()
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			found[rel] = "-> " + target
		case info.Mode().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			found[rel] = info.Mode().String() + " " + string(data)
		default:
			found[rel] = info.Mode().String()
		}
		return nil
	}))
	return found
}

func wantTree(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, tree(t, dir), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("on disk (-want +got):\n%s", diff)
	}
}

func TestWholeLife(t *testing.T) {
	old := syscall.Umask(0o077) // modes must not depend on it
	defer syscall.Umask(old)
	dir := filepath.Join(t.TempDir(), "made", "by", "open")
	d := open(t, dir)
	must(t, d.MkdirAll("a/b", 0o755))
	must(t, d.WriteFile("a/b/one", []byte("1"), 0o644))
	must(t, d.WriteFile("a/b/one", []byte("2"), 0o640))
	must(t, d.WriteFolder("a/whole", []File{{"x", []byte("X")}, {"y", nil}}, 0o755, 0o644))
	must(t, d.Symlink("whole", "a/link"))
	must(t, d.Symlink("b", "a/link"))
	must(t, d.Rename("a/b/one", "a/two"))
	must(t, d.Chmod("a/two", 0o600))
	must(t, d.Remove("a/b"))
	wantTree(t, dir, map[string]string{
		"a": "drwxr-xr-x", "a/whole": "drwxr-xr-x", "a/whole/x": "-rw-r--r-- X", "a/whole/y": "-rw-r--r-- ",
		"a/link": "-> b", "a/two": "-rw------- 2",
	})
	sub, err := d.Sub("a")
	must(t, err)
	defer func() { _ = sub.Close() }()
	entries, err := sub.ReadDir(".")
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{"link", "two", "whole"}, names); diff != "" {
		t.Error(diff)
	}
	target, err := sub.Readlink("link")
	must(t, err)
	if target != "b" {
		t.Errorf("Readlink = %q", target)
	}
	must(t, d.RemoveAll("a"))
	must(t, d.RemoveAll("a"))
	must(t, d.RemoveAll("a/never/was"))
	wantTree(t, dir, nil)
	info, err := os.Stat(dir)
	must(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("Open made %v", info.Mode())
	}
}

func TestNamesThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	d := open(t, filepath.Join(dir, "in"))
	before := tree(t, dir)
	for name, bad := range map[string]string{
		"parent": "..", "climbs": "../x", "climbs inside": "a/../../x", "absolute": "/etc/x", "empty": "", "self": ".",
		"empty segment": "a//b", "trailing slash": "a/", "dot segment": "a/./b", "NUL": "a\x00b",
		"temporary": tempPrefix + "x", "temporary folder": "a/" + tempPrefix + "x/b",
	} {
		t.Run(name, func(t *testing.T) {
			_, readErr := d.ReadFile(bad, 1)
			_, linkErr := d.Readlink(bad)
			for call, err := range map[string]error{
				"WriteFile": d.WriteFile(bad, nil, 0o600), "WriteFolder": d.WriteFolder(bad, nil, 0o700, 0o600),
				"Symlink": d.Symlink("x", bad), "Remove": d.Remove(bad), "RemoveAll": d.RemoveAll(bad),
				"Rename from": d.Rename(bad, "x"), "Rename to": d.Rename("x", bad), "Chmod": d.Chmod(bad, 0),
				"ReadFile": readErr, "Readlink": linkErr,
			} {
				if call == "Rename to" && errors.Is(err, fs.ErrNotExist) {
					continue // "x" is looked at first where bad is a plain name
				}
				if !errors.Is(err, ErrName) {
					t.Errorf("%s: %v", call, err)
				}
			}
			if err := d.MkdirAll(bad, 0o700); bad != "." && !errors.Is(err, ErrName) {
				t.Errorf("MkdirAll: %v", err)
			}
		})
	}
	if err := d.WriteFolder("f", []File{{"a/b", nil}}, 0o700, 0o600); !errors.Is(err, ErrName) {
		t.Errorf("WriteFolder with a path: %v", err)
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Errorf("something was written:\n%s", diff)
	}
}

func TestLinksAreNeverFollowed(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside")
	must(t, os.MkdirAll(filepath.Join(outside, "sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(outside, "file"), []byte("theirs"), 0o644))
	d := open(t, filepath.Join(dir, "in"))
	must(t, d.MkdirAll("inside", 0o700))
	in := filepath.Join(dir, "in")
	for link, target := range map[string]string{
		"abs": outside, "rel": "../outside", "near": "inside", "file": filepath.Join(outside, "file"), "loop": "loop",
	} {
		must(t, os.Symlink(target, filepath.Join(in, link)))
	}
	before := tree(t, dir)
	for _, link := range []string{"abs", "rel", "near", "loop"} {
		t.Run(link, func(t *testing.T) {
			_, readErr := d.ReadFile(link+"/file", 10)
			_, listErr := d.ReadDir(link)
			_, subErr := d.Sub(link)
			for call, err := range map[string]error{
				"WriteFile": d.WriteFile(link+"/file", []byte("ours"), 0o600), "MkdirAll": d.MkdirAll(link+"/sub/x", 0o700),
				"MkdirAll itself": d.MkdirAll(link, 0o700), "Symlink": d.Symlink("x", link+"/y"),
				"RemoveAll": d.RemoveAll(link + "/sub"), "Remove": d.Remove(link + "/file"), "SweepTemp": d.SweepTemp(link),
				"WriteFolder": d.WriteFolder(link+"/z", nil, 0o700, 0o600), "ReadFile": readErr, "ReadDir": listErr, "Sub": subErr,
				"Rename": d.Rename("inside", link+"/inside"),
			} {
				if !errors.Is(err, ErrNotFolder) {
					t.Errorf("%s: %v", call, err)
				}
			}
		})
	}
	if _, err := d.ReadFile("file", 10); !errors.Is(err, ErrNotRegular) {
		t.Errorf("ReadFile of a link: %v", err)
	}
	if err := d.Chmod("file", 0o777); !errors.Is(err, ErrNotRegular) {
		t.Errorf("Chmod of a link: %v", err)
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Errorf("something changed:\n%s", diff)
	}
	// Writing over the link replaces the link; removing it removes the link.
	must(t, d.WriteFile("file", []byte("ours"), 0o600))
	must(t, d.RemoveAll("abs"))
	wantTree(t, outside, map[string]string{"sub": "drwxr-xr-x", "file": "-rw-r--r-- theirs"})
	if got := tree(t, in); got["file"] != "-rw------- ours" || got["abs"] != "" {
		t.Errorf("in the folder: %v", got)
	}
}

func TestOddEntriesInPlaceOfFiles(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"FIFO":      func(p string) error { return syscall.Mkfifo(p, 0o666) },
		"hard link": func(p string) error { return os.Link(filepath.Join(filepath.Dir(p), "..", "other"), p) },
		"socket": func(p string) error {
			fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			defer func() { _ = syscall.Close(fd) }()
			return syscall.Bind(fd, &syscall.SockaddrUnix{Name: p})
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "odd") //nolint:usetesting // t.TempDir is too long a path for a socket
			must(t, err)
			defer func() { _ = os.RemoveAll(dir) }()
			must(t, os.WriteFile(filepath.Join(dir, "other"), []byte("theirs"), 0o644))
			d := open(t, filepath.Join(dir, "in"))
			must(t, plant(filepath.Join(dir, "in", "file")))
			if name != "hard link" {
				if _, err := d.ReadFile("file", 10); !errors.Is(err, ErrNotRegular) {
					t.Errorf("ReadFile: %v", err)
				}
			}
			must(t, d.WriteFile("file", []byte("ours"), 0o600))
			wantTree(t, dir, map[string]string{"other": "-rw-r--r-- theirs", "in": "drwx------", "in/file": "-rw------- ours"})
		})
	}
	dir := t.TempDir()
	d := open(t, dir)
	must(t, d.MkdirAll("folder", 0o700))
	if err := d.WriteFile("folder", nil, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("WriteFile over a folder: %v", err)
	}
	if err := d.Symlink("x", "folder"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Symlink over a folder: %v", err)
	}
	if err := d.WriteFolder("folder", nil, 0o700, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("WriteFolder over a folder: %v", err)
	}
	wantTree(t, dir, map[string]string{"folder": "drwx------"})
}

func TestReadFileIsBounded(t *testing.T) {
	d := open(t, t.TempDir())
	must(t, d.WriteFile("ten", []byte("0123456789"), 0o600))
	if got, err := d.ReadFile("ten", 10); err != nil || string(got) != "0123456789" {
		t.Errorf("at the bound: %q, %v", got, err)
	}
	if _, err := d.ReadFile("ten", 9); !errors.Is(err, ErrTooLarge) {
		t.Errorf("above the bound: %v", err)
	}
	if _, err := d.ReadFile("none", 9); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

func TestSweepTempTakesOnlyLeftovers(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	must(t, d.WriteFile("kept", []byte("k"), 0o600))
	must(t, d.WriteFile(".durable-tm", []byte("close, but another name"), 0o600))
	left := filepath.Join(dir, tempName())
	must(t, os.MkdirAll(filepath.Join(left, "deep"), 0o700))
	must(t, os.Symlink("kept", filepath.Join(dir, tempName())))
	entries, err := d.ReadDir(".")
	must(t, err)
	if hidden := !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), tempPrefix) }); !hidden {
		t.Errorf("ReadDir shows leftovers: %v", entries)
	}
	must(t, d.SweepTemp("."))
	wantTree(t, dir, map[string]string{"kept": "-rw------- k", ".durable-tm": "-rw------- close, but another name"})
}

func TestOpenExistingCreatesNothing(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenExisting(filepath.Join(dir, "none"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenExisting: %v", err)
	}
	wantTree(t, dir, nil)
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	if _, err := Open(filepath.Join(dir, "file"), Options{}); !errors.Is(err, ErrNotFolder) {
		t.Errorf("Open of a file: %v", err)
	}
}
