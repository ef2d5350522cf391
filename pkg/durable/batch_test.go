package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// everything stages one entry of each sort, two of them after others. It can
// be repeated.
func everything(d *Dir) error {
	b := d.Batch()
	if err := b.MkdirAll("n", 0o700); err != nil {
		return err
	}
	f := b.WriteFile("n/f", []byte("new"), 0o640)
	before := []*Staged{f}
	if _, err := d.Lstat("w"); errors.Is(err, fs.ErrNotExist) {
		before = append(before, b.WriteFolder("w", []File{{"a", []byte("A")}, {"b", []byte("B")}}, 0o755, 0o644))
	}
	b.Symlink("w", "l").After(before...)
	b.WriteFile("last", []byte("x"), 0o600).After(before...)
	return b.Commit()
}

func TestBatchIsTheSameInBothModes(t *testing.T) {
	many := func(d *Dir) error {
		b := d.Batch()
		var last *Staged
		for i := range chunk + flushers { // more than are open at one time
			s := b.WriteFile(fmt.Sprintf("f%d", i), fmt.Appendf(nil, "%d", i), 0o600)
			if last != nil && i%50 == 0 {
				s.After(last)
			}
			last = s
		}
		return b.Commit()
	}
	for name, act := range map[string]func(*Dir) error{"everything": everything, "many": many} {
		t.Run(name, func(t *testing.T) {
			at, beside := t.TempDir(), t.TempDir()
			one, err := Open(at, Options{Before: func(Step) error { return nil }})
			must(t, err)
			defer func() { _ = one.Close() }()
			must(t, act(one))
			must(t, act(open(t, beside)))
			got := tree(t, beside)
			if diff := cmp.Diff(tree(t, at), got); diff != "" {
				t.Errorf("one after another and beside each other differ:\n%s", diff)
			}
			if len(got) < 5 {
				t.Errorf("only %v was made", got)
			}
		})
	}
}

// TestBatchOrder holds what Batch says of its phases.
func TestBatchOrder(t *testing.T) {
	var steps []Step
	d, err := Open(t.TempDir(), Options{Before: func(s Step) error { steps = append(steps, s); return nil }})
	must(t, err)
	defer func() { _ = d.Close() }()
	must(t, everything(d))
	want := []Step{
		{OpMkdir, "n"},
		{OpCreate, "n/f"}, {OpWrite, "n/f"}, {OpChmod, "n/f"},
		{OpMkdir, "w"}, {OpCreate, "w/a"}, {OpWrite, "w/a"}, {OpChmod, "w/a"}, {OpCreate, "w/b"}, {OpWrite, "w/b"}, {OpChmod, "w/b"},
		{OpSymlink, "l"},
		{OpCreate, "last"}, {OpWrite, "last"}, {OpChmod, "last"},
		{OpFsync, "n/f"}, {OpFsync, "w/a"}, {OpFsync, "w/b"}, {OpFsync, "last"}, {OpFsyncDir, "w"},
		{OpRename, "n/f"}, {OpRename, "w"}, {OpFsyncDir, "."}, {OpFsyncDir, "n"},
		{OpRename, "l"}, {OpRename, "last"}, {OpFsyncDir, "."},
	}
	if diff := cmp.Diff(want, steps); diff != "" {
		t.Error(diff)
	}
}

func TestBatchEntriesFailAlone(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	must(t, d.WriteFolder("taken", nil, 0o755, 0o644))
	b := d.Batch()
	good := b.WriteFile("good", []byte("x"), 0o600)
	follows := b.Symlink("good", "follows")
	follows.After(good)
	named := b.WriteFile("../out", []byte("x"), 0o600)
	nowhere := b.WriteFile("missing/f", []byte("x"), 0o600)
	exists := b.WriteFolder("taken", []File{{"a", nil}}, 0o755, 0o644)
	over := b.Symlink("x", "taken") // a folder is not replaced
	inner := b.WriteFolder("w", []File{{"fine", []byte("x")}, {"a/b", []byte("x")}}, 0o755, 0o644)
	waits := b.Symlink("w", "waits")
	waits.After(good, inner)
	waitsMore := b.WriteFile("waits-more", []byte("x"), 0o600)
	waitsMore.After(waits)
	err := b.Commit()
	for name, c := range map[string]struct {
		entry *Staged
		want  error
	}{
		"good": {good, nil}, "after a good one": {follows, nil},
		"a bad name": {named, ErrName}, "a missing folder": {nowhere, fs.ErrNotExist},
		"a folder that exists": {exists, fs.ErrExist}, "over a folder": {over, syscall.EEXIST},
		"a bad inner name": {inner, ErrName}, "after a failed one": {waits, ErrName}, "after that": {waitsMore, ErrName},
	} {
		if !errors.Is(c.entry.Err(), c.want) {
			t.Errorf("%s: %v, want %v", name, c.entry.Err(), c.want)
		}
		if c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: Commit does not say %v: %v", name, c.want, err)
		}
	}
	wantTree(t, dir, map[string]string{"good": "-rw------- x", "follows": "-> good", "taken": "drwxr-xr-x"})
}

// TestBatchStopsWhereItIsAborted aborts at every step, once: nothing may happen
// after it, as in a process that is gone.
func TestBatchStopsWhereItIsAborted(t *testing.T) {
	stop := errors.New("stop")
	for at := 0; ; at++ {
		n := 0
		d, err := Open(t.TempDir(), Options{Before: func(Step) error {
			if n++; n == at+1 {
				return stop
			}
			return nil
		}})
		must(t, err)
		err = everything(d)
		_ = d.Close()
		if n <= at {
			must(t, err)
			if at < 20 {
				t.Errorf("only %d steps", at)
			}
			return
		}
		if n != at+1 {
			t.Errorf("aborted at step %d, and %d more were made", at, n-at-1)
		}
		if !errors.Is(err, stop) {
			t.Errorf("aborted at step %d: %v", at, err)
		}
	}
}

func TestBatchReadsBack(t *testing.T) {
	dir := t.TempDir()
	data := []byte("what is meant")
	d, err := Open(dir, Options{Before: func(s Step) error {
		if s.Op == OpFsync && s.Name == "bad" {
			data[0] = 'W' // the disk has what it was before
		}
		return nil
	}})
	must(t, err)
	defer func() { _ = d.Close() }()
	b := d.Batch()
	bad := b.WriteFile("bad", data, 0o600)
	after := b.Symlink("bad", "link")
	after.After(bad)
	b.WriteFile("good", []byte("x"), 0o600)
	_ = b.Commit()
	for _, s := range []*Staged{bad, after} {
		if !errors.Is(s.Err(), ErrCorrupted) {
			t.Errorf("%s: %v", s.name, s.Err())
		}
	}
	wantTree(t, dir, map[string]string{"good": "-rw------- x"})
}
