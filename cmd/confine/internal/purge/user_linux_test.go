package purge

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPurgeAsTheAgentsUser has a user who owns Confine's folders and may not
// change those above them.
func TestPurgeAsTheAgentsUser(t *testing.T) {
	s := newSite(t)
	s.stop()
	above := []string{s.dir, s.kubelet}
	for _, dir := range append(above, filepath.Dir(s.dir)) {
		s.must(os.Chmod(dir, 0o755))
	}
	if os.Geteuid() == 0 {
		const user = 65534
		for _, dir := range []string{s.confine, s.root} {
			s.must(filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				return os.Lchown(name, user, user)
			}))
		}
		// The user of this thread alone, for files alone; the thread ends with
		// the test.
		runtime.LockOSThread()
		s.must(syscall.Setfsuid(user))
		t.Cleanup(func() { s.must(syscall.Setfsuid(0)); runtime.UnlockOSThread() })
	} else {
		for _, dir := range above {
			s.must(os.Chmod(dir, 0o555))
			t.Cleanup(func() { s.must(os.Chmod(dir, 0o755)) })
		}
	}
	plan, err := Run(t.Context(), s.options)
	s.must(err)
	kept := []Entry{{Path: s.confine, What: onlyRoot}, {Path: s.root, What: onlyRoot}}
	if diff := cmp.Diff(kept, plan.Keep); diff != "" {
		t.Error(diff)
	}
	for _, dir := range []string{s.confine, s.root} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
			t.Errorf("%s still holds %v (%v)", dir, entries, err)
		}
	}
}
