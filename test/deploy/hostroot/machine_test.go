//go:build lsm_apparmor || lsm_selinux

package hostroot_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
	"github.com/confine-dev/confine/pkg/sandbox"
	"github.com/confine-dev/confine/test/deploy/hostroot"
)

// rootVar names the root that the agent's half of the tests works in. That half
// is this program once more, with the privileges of a pod's container, but for
// the capability that withoutVar names.
const (
	rootVar    = "CONFINE_TEST_HOST_ROOT"
	withoutVar = "CONFINE_TEST_WITHOUT"
)

// kept are the capabilities of the agent's half.
func kept() []sandbox.Capability {
	return slices.DeleteFunc(slices.Concat(hostroot.Common().Capabilities, kind().Capabilities), func(c sandbox.Capability) bool {
		return c.String() == os.Getenv(withoutVar)
	})
}

func TestMain(m *testing.M) {
	if os.Getenv(rootVar) != "" {
		if err := sandbox.Drop(kept()...); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestInstallsAsInAPod makes the root that the chart makes of mounts and links,
// and lets an agent's host work in it with the capabilities of its container.
func TestInstallsAsInAPod(t *testing.T) {
	if os.Getenv(rootVar) != "" {
		return
	}
	root := podRoot(t)
	if out, passed := agentsHalf(t, root, ""); !passed {
		t.Errorf("the agent's half:\n%s", out)
	}
	for _, c := range kept() {
		if c == sandbox.CapKill {
			continue // only to end a compiler that does not end by itself
		}
		if out, passed := agentsHalf(t, root, c.String()); passed {
			t.Errorf("it needs no %s:\n%s", c, out)
		}
	}
}

func podRoot(t *testing.T) string {
	t.Helper()
	root, host := t.TempDir(), mergedHost(t)
	for name, leads := range hostroot.Links() {
		must(t, os.Symlink(leads, filepath.Join(root, name)))
	}
	for _, m := range slices.Concat(hostroot.Common().Mounts, kind().Mounts) {
		source := m.Path
		if m.Path == "/usr" {
			source = host
		}
		mount(t, source, filepath.Join(root, m.Path), m)
	}
	return root
}

func agentsHalf(t *testing.T, root, without string) (said []byte, passed bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestAgentsHalf$", "-test.v")
	cmd.Env = append(os.Environ(), rootVar+"="+root, withoutVar+"="+without)
	out, err := cmd.CombinedOutput()
	return out, err == nil && strings.Contains(string(out), "--- PASS: TestAgentsHalf")
}

// TestAgentsHalf installs, updates and removes a profile.
func TestAgentsHalf(t *testing.T) {
	root := os.Getenv(rootVar)
	if root == "" {
		return // the other half starts it
	}
	must(t, sandbox.Restrict(sandbox.Agent))
	status, err := sandbox.StatusOf(0)
	must(t, err)
	want := sandbox.SetOf(kept()...)
	if status.Effective != want || !status.NoNewPrivs || !status.Filtered {
		t.Fatalf("it may do %s, want %s: %+v", status.Effective, want, status)
	}
	h := open(t, root)
	must(t, h.Supported(t.Context()))
	owner := profile.Owner{Namespace: "shop", Name: "web"}
	for i, text := range texts() {
		u := profile.Unit{Owner: owner, Digest: digest.FromString(text), Files: []profile.File{{Name: fileName, Data: []byte(text)}}}
		if got := h.Install(t.Context(), []profile.Unit{u})[0]; got.Err != nil || !got.Changed {
			t.Fatalf("text %d: %+v", i, got)
		}
		in, err := h.Installed(t.Context())
		must(t, err)
		if len(in) != 1 || in[0].Digest != u.Digest || !slices.Equal(in[0].References, []string{reference}) {
			t.Fatalf("text %d: installed %+v", i, in)
		}
	}
	end := running(t)
	if got := h.Remove(t.Context(), []profile.Owner{owner})[0]; !errors.Is(got.Err, reason.InstallFailed) || got.Changed {
		t.Errorf("removed under a process: %+v", got)
	}
	end()
	if got := h.Remove(t.Context(), []profile.Owner{owner})[0]; got.Err != nil || !got.Changed {
		t.Errorf("removed: %+v", got)
	}
}

// mergedHost is this machine's programs as a distribution of today has them, all
// below /usr.
func mergedHost(t *testing.T) string {
	t.Helper()
	usr := t.TempDir()
	must(t, os.Chmod(usr, 0o755))
	for _, folder := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib64"} {
		into := usr
		if folder != "/usr" {
			into = filepath.Join(usr, filepath.Base(folder))
		}
		info, err := os.Lstat(folder)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
			continue // it is merged already
		}
		must(t, err)
		copyTree(t, folder, into)
	}
	return usr
}

func copyTree(t *testing.T, from, into string) {
	t.Helper()
	must(t, filepath.WalkDir(from, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(into, strings.TrimPrefix(file, from))
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return os.MkdirAll(to, 0o755)
		case info.Mode()&fs.ModeSymlink != 0:
			leads, err := os.Readlink(file)
			if err == nil {
				err = os.Symlink(leads, to)
			}
			if errors.Is(err, fs.ErrExist) {
				err = nil
			}
			return err
		case !info.Mode().IsRegular():
			return nil
		}
		data, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(to, data, info.Mode().Perm())
		}
		return err
	}))
}

// mount mounts as the kubelet and runc do for a hostPath: with all that is
// mounted below, and read-only without it.
func mount(t *testing.T, source, target string, m hostroot.Mount) {
	t.Helper()
	if m.Empty {
		source = t.TempDir()
	} else if strings.HasPrefix(m.Path, "/etc/") || strings.HasPrefix(m.Path, "/var/") {
		if _, err := os.Stat(source); errors.Is(err, fs.ErrNotExist) {
			must(t, os.MkdirAll(source, 0o755)) // DirectoryOrCreate
		}
	}
	info, err := os.Stat(source)
	must(t, err)
	if _, err := os.Stat(target); errors.Is(err, fs.ErrNotExist) {
		if info.IsDir() {
			must(t, os.MkdirAll(target, 0o755))
		} else {
			must(t, os.MkdirAll(filepath.Dir(target), 0o755))
			must(t, os.WriteFile(target, nil, 0o644))
		}
	}
	must(t, unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""))
	t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if m.ReadOnly {
		must(t, unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	}
}

// started starts a process that says a line when it is what it is to be, and
// returns how to end it: what confines it may take no signals.
func started(t *testing.T, cmd *exec.Cmd) (end func()) {
	t.Helper()
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatalf("it did not start: %v", err)
	}
	return func() {
		_ = in.Close()
		_ = cmd.Wait() // a shell at the end of its input
	}
}
