package cpio_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/test/vm/cpio"
)

// read is a reader of the same format, by the kernel's document.
func read(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	found := map[string]string{}
	field := func(at, n int) int {
		v, err := strconv.ParseUint(string(archive[at+6+8*n:at+14+8*n]), 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		return int(v)
	}
	align := func(n int) int { return (n + 3) &^ 3 }
	for at := 0; ; {
		if string(archive[at:at+6]) != "070701" {
			t.Fatalf("no header at %d", at)
		}
		mode, size, nameSize := field(at, 1), field(at, 6), field(at, 11)
		name := string(archive[at+110 : at+110+nameSize-1])
		begin := align(at + 110 + nameSize)
		if name == "TRAILER!!!" {
			if len(archive) != begin {
				t.Errorf("%d bytes after the end", len(archive)-begin)
			}
			return found
		}
		if _, twice := found[name]; twice {
			t.Errorf("%s is there twice", name)
		}
		found[name] = fmt.Sprintf("%o %s", mode, archive[begin:begin+size])
		if mode&0o170000 == 0o020000 {
			found[name] = fmt.Sprintf("%o %d:%d", mode, field(at, 9), field(at, 10))
		}
		at = align(begin + size)
	}
}

func TestWriter(t *testing.T) {
	dir := t.TempDir()
	for name, perm := range map[string]os.FileMode{"plain": 0o644, "deep/program": 0o755} {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(strings.Repeat("x", len(name))), perm); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("plain", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c := cpio.NewWriter(&out)
	c.File("/etc/a", 0o600, []byte("hello"))
	c.File("etc/../etc/b", 0o644, nil)
	c.Char("dev/console", 0o600, 5, 1)
	c.Tree(dir, "/srv")
	c.Copy(filepath.Join(dir, "link"), "copied")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"etc": "40755 ", "etc/a": "100600 hello", "etc/b": "100644 ", "dev": "40755 ", "dev/console": "20600 5:1",
		"srv": "40755 ", "srv/plain": "100644 xxxxx", "srv/deep": "40755 ", "srv/deep/program": "100755 xxxxxxxxxxxx",
		"srv/link": "120777 plain", "copied": "100644 xxxxx",
	}
	if diff := cmp.Diff(want, read(t, out.Bytes())); diff != "" {
		t.Errorf("the archive (-want +got):\n%s", diff)
	}
}

func TestErrorsStay(t *testing.T) {
	for name, add := range map[string]func(*cpio.Writer){
		"a missing file":   func(c *cpio.Writer) { c.Copy("testdata/none", "x") },
		"a missing folder": func(c *cpio.Writer) { c.Tree("testdata/none", "x") },
		"a folder as file": func(c *cpio.Writer) { c.Copy(".", "x") },
		"NUL in a name":    func(c *cpio.Writer) { c.Folder("a\x00b") },
	} {
		t.Run(name, func(t *testing.T) {
			c := cpio.NewWriter(&bytes.Buffer{})
			add(c)
			c.Folder("fine")
			if err := c.Close(); err == nil {
				t.Error("Close says nothing")
			}
		})
	}
}
