package machine

import (
	"archive/tar"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestKeptFolders(t *testing.T) {
	got := keptFolders([]string{
		"-test.v=true", "-test.coverprofile=/build/b001/_cover_.out", "-test.gocoverdir=/build/b001/gocoverdir",
		"-test.testlogfile=/build/b001/testlog.txt", "-test.trace=relative.out", "-test.outputdir", "/elsewhere",
	})
	if diff := cmp.Diff([]string{"/build/b001", "/build/b001/gocoverdir"}, got); diff != "" {
		t.Errorf("folders (-want +got):\n%s", diff)
	}
}

type entry struct{ name, data string }

func archive(t *testing.T, entries []entry, cut int) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "back")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	for _, e := range entries {
		if err := w.WriteHeader(&tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(info.Size() - int64(cut)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestUnpackKept(t *testing.T) {
	asked := filepath.Join(t.TempDir(), "asked")
	if err := os.Mkdir(asked, 0o755); err != nil {
		t.Fatal(err)
	}
	folders := keptHere([]string{asked}, map[string]string{"/there": asked})
	status, err := unpackKept(archive(t, []entry{{asked + "/deep/file", "data"}, {"/there/other", "more"}, {"status", "3"}}, 0), folders)
	if status != 3 || err != nil {
		t.Fatalf("status %d, %v", status, err)
	}
	for name, want := range map[string]string{"deep/file": "data", "other": "more"} {
		if got, err := os.ReadFile(filepath.Join(asked, name)); string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for name, a := range map[string]string{
		"no status":           archive(t, []entry{{asked + "/x", ""}}, 0),
		"cut off":             archive(t, []entry{{asked + "/x", "data"}, {"status", "0"}}, 4*512),
		"nothing at all":      archive(t, nil, 2*512),
		"elsewhere":           archive(t, []entry{{filepath.Dir(asked) + "/evil", ""}, {"status", "0"}}, 0),
		"climbing":            archive(t, []entry{{asked + "/../evil", ""}, {"status", "0"}}, 0),
		"a status of letters": archive(t, []entry{{"status", "fine"}}, 0),
		"missing":             filepath.Join(t.TempDir(), "none"),
	} {
		t.Run(name, func(t *testing.T) {
			if status, err := unpackKept(a, folders); err == nil {
				t.Errorf("status %d and no error", status)
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(asked), "evil")); err == nil {
				t.Error("a file was written elsewhere")
			}
		})
	}
}
