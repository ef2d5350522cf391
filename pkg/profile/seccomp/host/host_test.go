package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/reason"
)

func TestHost(t *testing.T) {
	profiletest.RunHost(t, profiletest.HostCase{Machine: machine, Files: files})
}

func files(v profiletest.Variant) []profile.File {
	allow := `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`
	deny := `{"defaultAction":"SCMP_ACT_ERRNO"}`
	switch v {
	case profiletest.Second:
		return []profile.File{{Name: "web.json", Data: []byte(deny)}, {Name: "worker.json", Data: []byte(deny + "\n")}}
	case profiletest.Fewer:
		return []profile.File{{Name: "web.json", Data: []byte(allow)}}
	default:
		return []profile.File{{Name: "web.json", Data: []byte(allow)}, {Name: "worker.json", Data: []byte(allow + "\n")}}
	}
}

// fastDir is a temporary folder in memory where there is one: the suite flushes
// some thousand times, and its crashes are of processes, not of power.
func fastDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "confine-host-") //nolint:usetesting // t.TempDir is on the disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

func machine(t *testing.T) profiletest.Machine {
	t.Helper()
	root := filepath.Join(fastDir(t), "seccomp")
	open := func(o Options) (profile.Host, error) {
		o.Root = root
		return New(o)
	}
	at := func(damage func(dir, file string) error) func(profile.Installed) error {
		return func(in profile.Installed) error {
			link := filepath.Join(root, base, in.Owner.Namespace, in.Owner.Name)
			dir, err := filepath.EvalSymlinks(link)
			if err != nil {
				return err
			}
			return damage(dir, filepath.Join(dir, filepath.Base(in.References[0])))
		}
	}
	link := func(damage func(link string) error) func(profile.Installed) error {
		return func(in profile.Installed) error {
			return damage(filepath.Join(root, base, in.Owner.Namespace, in.Owner.Name))
		}
	}
	return profiletest.Machine{
		Open: func(before func() error) (profile.Host, error) {
			if before == nil {
				return open(Options{})
			}
			return open(Options{Before: func(durable.Step) error { return before() }})
		},
		Unsupported: func() (profile.Host, error) { return open(Options{ActionsAvail: filepath.Join(root, "none")}) },
		State:       func() (map[string]string, error) { return snapshot(root) },
		Drift: map[string]func(profile.Installed) error{
			"a changed byte": at(func(_, file string) error {
				data, err := os.ReadFile(file)
				if err != nil {
					return err
				}
				data[10] ^= 1
				return os.WriteFile(file, data, 0o600)
			}),
			"a longer file":  at(func(_, file string) error { return os.Truncate(file, 1<<20) }),
			"a missing file": at(func(_, file string) error { return os.Remove(file) }),
			"an extra file":  at(func(dir, _ string) error { return os.WriteFile(filepath.Join(dir, "x.json"), nil, 0o600) }),
			"an extra folder": at(func(dir, _ string) error {
				return os.MkdirAll(filepath.Join(dir, "x", "y"), 0o700)
			}),
			"a file replaced by a link": at(func(_, file string) error {
				return errors.Join(os.Remove(file), os.Symlink("/etc/hostname", file))
			}),
			"a file replaced by a FIFO": at(func(_, file string) error {
				return errors.Join(os.Remove(file), syscall.Mkfifo(file, 0o644))
			}),
			"a file replaced by a folder": at(func(_, file string) error {
				return errors.Join(os.Remove(file), os.Mkdir(file, 0o755))
			}),
			"a wrong file mode":          at(func(_, file string) error { return os.Chmod(file, 0o666) }),
			"a wrong folder mode":        at(func(dir, _ string) error { return os.Chmod(dir, 0o777) }),
			"a wrong mode of the parent": at(func(dir, _ string) error { return os.Chmod(filepath.Dir(dir), 0o700) }),
			"a missing artifact":         at(func(dir, _ string) error { return os.RemoveAll(dir) }),
			"an artifact that is a link": at(func(dir, _ string) error {
				return errors.Join(os.Rename(dir, dir+"-away"), os.Symlink("/etc", dir), os.RemoveAll(dir+"-away"))
			}),
			"a missing link": link(os.Remove),
			"a link that points elsewhere": link(func(l string) error {
				return errors.Join(os.Remove(l), os.Symlink("/etc", l))
			}),
			"a folder in place of the link": link(func(l string) error {
				return errors.Join(os.Remove(l), os.MkdirAll(filepath.Join(l, "deep"), 0o755))
			}),
			"a file in place of the link": link(func(l string) error {
				return errors.Join(os.Remove(l), os.WriteFile(l, nil, 0o600))
			}),
			"a link in place of the namespace": link(func(l string) error {
				return errors.Join(os.RemoveAll(filepath.Dir(l)), os.Symlink("/etc", filepath.Dir(l)))
			}),
			"a wrong mode of the namespace": link(func(l string) error { return os.Chmod(filepath.Dir(l), 0o777) }),
		},
	}
}

// snapshot renders everything below root with mode, target and content.
func snapshot(root string) (map[string]string, error) {
	found := map[string]string{}
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if p == root && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		found[rel] = info.Mode().String()
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			found[rel], err = os.Readlink(p)
		case info.Mode().IsRegular():
			var data []byte
			data, err = os.ReadFile(p)
			found[rel] += " " + string(data)
		}
		return err
	})
	// An empty root and the folders of an empty tree mean the same as none.
	for _, name := range []string{".", base, artifacts} {
		if len(found) <= 3 && found[name] == "drwxr-xr-x" {
			delete(found, name)
		}
	}
	return found, err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newHost(t *testing.T, root string) *Host {
	t.Helper()
	h, err := New(Options{Root: root})
	must(t, err)
	return h
}

func webUnit() profile.Unit {
	return profile.Unit{Owner: profile.Owner{Namespace: "shop", Name: "web"},
		Digest: digest.FromString("first"), Files: files(profiletest.First)}
}

func TestLayoutIsWhatAPodNames(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	root := t.TempDir()
	h, u := newHost(t, root), webUnit()
	must(t, h.Install(t.Context(), []profile.Unit{u})[0].Err)
	got, err := snapshot(filepath.Join(root, "confine"))
	must(t, err)
	folder := ".artifacts/sha256-" + u.Digest.Encoded()
	want := map[string]string{
		".": "drwxr-xr-x", ".artifacts": "drwxr-xr-x", folder: "drwxr-xr-x", "shop": "drwxr-xr-x", "shop/web": "../" + folder,
		folder + "/web.json": "-rw-r--r-- " + string(u.Files[0].Data), folder + "/worker.json": "-rw-r--r-- " + string(u.Files[1].Data),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	in, err := h.Installed(t.Context())
	must(t, err)
	wantRefs := []string{"confine/shop/web/web.json", "confine/shop/web/worker.json"}
	if diff := cmp.Diff(wantRefs, in[0].References); diff != "" {
		t.Error(diff)
	}
	for _, ref := range in[0].References {
		if _, err := os.ReadFile(filepath.Join(root, ref)); err != nil {
			t.Errorf("a runtime cannot read it: %v", err)
		}
	}
}

func TestForeignEntriesAreLeftAloneAndReported(t *testing.T) {
	root := t.TempDir()
	h, u := newHost(t, root), webUnit()
	must(t, h.Install(t.Context(), []profile.Unit{u})[0].Err)
	keep := "confine/.artifacts/sha256-" + digest.FromString("named by a foreign link").Encoded()
	must(t, os.WriteFile(filepath.Join(root, "theirs.json"), []byte("theirs"), 0o600))
	must(t, os.MkdirAll(filepath.Join(root, "confine/Theirs/deep"), 0o700))
	must(t, os.WriteFile(filepath.Join(root, "confine/README"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(root, "confine/shop/notes"), nil, 0o600))
	must(t, os.MkdirAll(filepath.Join(root, "confine/.artifacts/other"), 0o700))
	must(t, os.MkdirAll(filepath.Join(root, keep), 0o755))
	must(t, os.Symlink(filepath.Base(filepath.Dir(keep))+"/"+filepath.Base(keep), filepath.Join(root, "confine/alias")))
	foreign, err := h.Foreign(t.Context())
	must(t, err)
	want := []string{"confine/.artifacts/other", "confine/README", "confine/Theirs", "confine/alias", "confine/shop/notes"}
	if diff := cmp.Diff(want, foreign); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	must(t, h.Remove(t.Context(), []profile.Owner{u.Owner})[0].Err)
	for _, name := range append(want, "theirs.json", keep) {
		if _, err := os.Lstat(filepath.Join(root, name)); err != nil {
			t.Errorf("gone: %v", err)
		}
	}
	if _, err := os.Lstat(filepath.Join(root, "confine/.artifacts/sha256-"+u.Digest.Encoded())); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the artifact was not collected: %v", err)
	}
}

func TestALinkInPlaceOfTheBaseIsRefused(t *testing.T) {
	root, elsewhere := t.TempDir(), t.TempDir()
	must(t, os.Symlink(elsewhere, filepath.Join(root, "confine")))
	h := newHost(t, root)
	err := h.Install(t.Context(), []profile.Unit{webUnit()})[0].Err
	if !errors.Is(err, reason.InstallFailed) {
		t.Errorf("Install: %v", err)
	}
	if _, err := h.Installed(t.Context()); !errors.Is(err, durable.ErrNotFolder) {
		t.Errorf("Installed must not say that nothing is there: %v", err)
	}
	if left, _ := os.ReadDir(elsewhere); len(left) != 0 {
		t.Errorf("written outside: %v", left)
	}
}

func TestNothingIsCollectedThatCannotBeRead(t *testing.T) {
	root := t.TempDir()
	h, u := newHost(t, root), webUnit()
	must(t, h.Install(t.Context(), []profile.Unit{u})[0].Err)
	artifact := filepath.Join(root, "confine/.artifacts/sha256-"+u.Digest.Encoded())
	// Root can read every folder, so the artifacts' folder becomes a link:
	// reading through it is refused.
	must(t, os.Rename(filepath.Dir(artifact), filepath.Join(root, "aside")))
	must(t, os.Symlink("../aside", filepath.Dir(artifact)))
	got := h.Remove(t.Context(), []profile.Owner{u.Owner})[0]
	if !errors.Is(got.Err, reason.InstallFailed) {
		t.Errorf("Remove: %v", got.Err)
	}
	if _, err := os.Stat(filepath.Join(root, "aside", filepath.Base(artifact), "web.json")); err != nil {
		t.Errorf("removed though the tree could not be read: %v", err)
	}
}

func TestFoldersOfAnotherUserAreNotTrusted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving files away needs CAP_CHOWN")
	}
	root := t.TempDir()
	h, u := newHost(t, root), webUnit()
	must(t, h.Install(t.Context(), []profile.Unit{u})[0].Err)
	artifact := filepath.Join(root, "confine/.artifacts/sha256-"+u.Digest.Encoded())
	for _, name := range []string{artifact, filepath.Join(artifact, "web.json")} {
		must(t, os.Chown(name, 1000, 1000))
		if got := h.Install(t.Context(), []profile.Unit{u})[0]; got.Err != nil || !got.Changed {
			t.Errorf("%s: %+v", name, got)
		}
		info, err := os.Lstat(name)
		must(t, err)
		if !ownedByUs(info) {
			t.Errorf("%s still belongs to the other user", name)
		}
	}
	for _, name := range []string{"confine", "confine/.artifacts", "confine/shop"} {
		must(t, os.Chown(filepath.Join(root, name), 1000, 1000))
		if got := h.Install(t.Context(), []profile.Unit{u})[0]; !errors.Is(got.Err, reason.InstallFailed) {
			t.Errorf("%s: %+v", name, got)
		}
		must(t, os.Chown(filepath.Join(root, name), 0, 0))
	}
}

func TestNewWantsARoot(t *testing.T) {
	if _, err := New(Options{}); !errors.Is(err, reason.InstallFailed) {
		t.Errorf("New: %v", err)
	}
}
