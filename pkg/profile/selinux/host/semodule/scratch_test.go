package semodule

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestScratchLeavesWhatIsInUse takes away old folders of this package alone.
func TestScratchLeavesWhatIsInUse(t *testing.T) {
	root := t.TempDir()
	s := New(Options{HostRoot: root, Time: time.Minute})
	long := time.Now().Add(-2 * time.Hour)
	stays := map[string]bool{"confine-semodule-old": false, "confine-semodule-new": true, "confine": true}
	for name, isNew := range stays {
		folder := filepath.Join(root, "run", name)
		if err := os.MkdirAll(filepath.Join(folder, "inside"), 0o700); err != nil {
			t.Fatal(err)
		}
		if isNew && name != "confine" {
			continue
		}
		if err := os.Chtimes(folder, long, long); err != nil {
			t.Fatal(err)
		}
	}
	made, err := s.scratch()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(made); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s: %v, %v", made, info, err)
	}
	for name, want := range stays {
		_, err := os.Stat(filepath.Join(root, "run", name))
		if got := !errors.Is(err, fs.ErrNotExist); got != want {
			t.Errorf("%s is there: %v, want %v", name, got, want)
		}
	}
}
