package prepare_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/node/prepare"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/seccomp/host"
	"github.com/confine-dev/confine/pkg/reason"
)

// agentUser is nobody's on the machines that run these tests.
const agentUser, another = 64217, 64218

// machine is a kubelet's root and a place for the state.
type machine struct {
	t            *testing.T
	dir, kubelet string
}

func newMachine(t *testing.T) machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs chown(2) to another user, which only root may")
	}
	m := machine{t: t, dir: t.TempDir()}
	m.kubelet = filepath.Join(m.dir, "kubelet")
	m.must(os.Chmod(m.dir, 0o755))
	m.must(os.Chmod(filepath.Dir(m.dir), 0o755))
	m.mkdir("kubelet", 0)
	m.mkdir("lib", 0)
	return m
}

func (m machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m machine) path(name string) string { return filepath.Join(m.dir, name) }

func (m machine) mkdir(name string, owner int) {
	m.t.Helper()
	m.must(os.MkdirAll(m.path(name), 0o755))
	m.must(os.Chown(m.path(name), owner, owner))
}

func (m machine) write(name string, owner int) {
	m.t.Helper()
	m.must(os.WriteFile(m.path(name), []byte(name), 0o600))
	m.must(os.Chown(m.path(name), owner, owner))
}

func (m machine) prepare() error {
	return prepare.Prepare(agentUser, agentUser,
		prepare.Folder{Below: m.kubelet, Path: "seccomp/confine"}, prepare.Folder{Below: m.path("lib"), Path: "confine"})
}

func (m machine) owner(name string) int {
	m.t.Helper()
	info, err := os.Lstat(m.path(name))
	m.must(err)
	return int(info.Sys().(*syscall.Stat_t).Uid)
}

func (m machine) wantOwners(want map[string]int) {
	m.t.Helper()
	for name, owner := range want {
		if got := m.owner(name); got != owner {
			m.t.Errorf("%s belongs to %d, want %d", name, got, owner)
		}
	}
}

func TestPrepare(t *testing.T) {
	m := newMachine(t)
	m.must(m.prepare())
	want := map[string]int{"kubelet": 0, "kubelet/seccomp": 0, "kubelet/seccomp/confine": agentUser, "lib": 0, "lib/confine": agentUser}
	m.wantOwners(want)
	for name := range want {
		if info, err := os.Stat(m.path(name)); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s has mode %v, %v", name, info.Mode(), err)
		}
	}
	m.must(m.prepare())
	m.wantOwners(want)
}

// TestPrepareGivesOnlyItsOwn finds what an agent that was root left, and things
// of others among it.
func TestPrepareGivesOnlyItsOwn(t *testing.T) {
	m := newMachine(t)
	m.mkdir("kubelet/seccomp/confine/web", 0)
	m.mkdir("kubelet/seccomp/confine/.artifacts/sha256-0", 0)
	m.mkdir("kubelet/seccomp/confine/foreign", another)
	m.write("kubelet/seccomp/confine/.artifacts/sha256-0/a.json", 0)
	m.write("kubelet/seccomp/confine/foreign/inside", 0)
	m.write("kubelet/seccomp/other.json", 0)
	m.write("kubelet/secret", 0)
	m.must(os.Symlink(m.path("kubelet/secret"), m.path("kubelet/seccomp/confine/web/link")))
	m.must(os.Symlink(m.kubelet, m.path("kubelet/seccomp/confine/up")))
	m.must(os.Link(m.path("kubelet/secret"), m.path("kubelet/seccomp/confine/hard")))
	m.must(syscall.Mknod(m.path("kubelet/seccomp/confine/null"), syscall.S_IFCHR|0o600, 1<<8|3))
	m.must(m.prepare())
	m.wantOwners(map[string]int{
		"kubelet/seccomp/confine": agentUser, "kubelet/seccomp/confine/web": agentUser, "kubelet/seccomp/confine/web/link": agentUser,
		"kubelet/seccomp/confine/.artifacts/sha256-0/a.json": agentUser, "kubelet/seccomp/confine/.artifacts": agentUser,
		"kubelet/seccomp/confine/foreign": another, "kubelet/seccomp/confine/foreign/inside": 0, "kubelet/seccomp/confine/null": 0,
		"kubelet/seccomp/other.json": 0, "kubelet/secret": 0, "kubelet": 0, "kubelet/seccomp": 0,
	})
}

func TestPrepareRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(m machine)
		says  string
	}{
		"a link at seccomp/confine": {func(m machine) {
			m.mkdir("kubelet/seccomp", 0)
			m.must(os.Symlink("..", m.path("kubelet/seccomp/confine")))
		}, "no folder"},
		"a link at seccomp":                 {func(m machine) { m.must(os.Symlink("../lib", m.path("kubelet/seccomp"))) }, "no folder"},
		"a file":                            {func(m machine) { m.mkdir("kubelet/seccomp", 0); m.write("kubelet/seccomp/confine", 0) }, "no folder"},
		"somebody else's":                   {func(m machine) { m.mkdir("kubelet/seccomp/confine", another) }, strconv.Itoa(another)},
		"a seccomp folder of somebody else": {func(m machine) { m.mkdir("kubelet/seccomp", another) }, strconv.Itoa(another)},
		"a seccomp folder for everybody": {func(m machine) {
			m.mkdir("kubelet/seccomp", 0)
			m.must(os.Chmod(m.path("kubelet/seccomp"), 0o777))
		}, "others write"},
		"a folder for everybody, with files of root": {func(m machine) {
			m.mkdir("kubelet/seccomp/confine/web", 0)
			m.write("kubelet/seccomp/confine/web/a.json", 0)
			m.must(os.Chmod(m.path("kubelet/seccomp/confine/web"), 0o777))
		}, "others write"},
		"no kubelet":             {func(m machine) { m.must(os.Remove(m.kubelet)) }, "mount"},
		"a link at the state":    {func(m machine) { m.must(os.Symlink("../kubelet", m.path("lib/confine"))) }, "no folder"},
		"somebody else's state":  {func(m machine) { m.mkdir("lib/confine", another) }, strconv.Itoa(another)},
		"no parent of the state": {func(m machine) { m.must(os.Remove(m.path("lib"))) }, "lib"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			c.spoil(m)
			before := m.list()
			err := m.prepare()
			e, ok := reason.Of(err)
			if !ok || e.Reason != reason.InstallFailed || !strings.Contains(e.Error()+e.WhatToDo(), c.says) {
				t.Errorf("got %v, want InstallFailed that says %q", err, c.says)
			}
			for name, owner := range before {
				if now, there := m.list()[name]; !there || now != owner {
					t.Errorf("%s belonged to %d, now to %d", name, owner, now)
				}
			}
		})
	}
	for name, f := range map[string]prepare.Folder{"climbing": {Below: "/tmp", Path: "../x"}, "absolute": {Below: "/tmp", Path: "/x"}, "itself": {Below: "/tmp", Path: "."}, "empty": {Below: "/tmp"}} {
		if err := prepare.Prepare(agentUser, agentUser, f); !errors.Is(err, reason.InstallFailed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, ids := range [][2]int{{0, 1}, {1, 0}, {-1, 1}} {
		if err := prepare.Prepare(ids[0], ids[1]); !errors.Is(err, reason.InstallFailed) {
			t.Errorf("user and group %v: %v", ids, err)
		}
	}
}

// list is all there is with its owners.
func (m machine) list() map[string]int {
	m.t.Helper()
	found := map[string]int{}
	m.must(filepath.WalkDir(m.dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			name, _ := filepath.Rel(m.dir, path)
			found[name] = m.owner(name)
		}
		return err
	}))
	return found
}

// childEnv makes this test binary the agent's user for TestOrdinaryUserInstalls.
const childEnv = "CONFINE_TEST_ORDINARY_USER"

// TestOrdinaryUserInstalls lets a process without any privilege install and
// remove where it was prepared, as an agent does that has only seccomp/confine.
func TestOrdinaryUserInstalls(t *testing.T) {
	if dir := os.Getenv(childEnv); dir != "" {
		ordinaryUser(t, dir)
		return
	}
	m := newMachine(t)
	m.must(m.prepare())
	binary := m.path("test")
	data, err := os.ReadFile(os.Args[0])
	m.must(err)
	m.must(os.WriteFile(binary, data, 0o755))
	cmd := exec.CommandContext(t.Context(), binary, "-test.run", "^TestOrdinaryUserInstalls$")
	cmd.Env, cmd.Dir = append(os.Environ(), childEnv+"="+m.dir), m.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: agentUser, Gid: agentUser}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := m.owner("kubelet/seccomp"); got != 0 {
		t.Errorf("seccomp belongs to %d", got)
	}
	got, err := os.ReadFile(m.path("kubelet/seccomp/confine/web/nginx/a.json"))
	if err != nil || string(got) != "second" {
		t.Errorf("installed is %q, %v", got, err)
	}
}

func ordinaryUser(t *testing.T, dir string) {
	t.Helper()
	h, err := host.New(host.Options{Root: filepath.Join(dir, "kubelet/seccomp")})
	if err != nil {
		t.Fatal(err)
	}
	unit := func(name, content string) profile.Unit {
		return profile.Unit{Owner: profile.Owner{Namespace: "web", Name: name}, Digest: digest.FromString(content),
			Files: []profile.File{{Name: "a.json", Data: []byte(content)}}}
	}
	for _, u := range []profile.Unit{unit("nginx", "first"), unit("gone", "first"), unit("nginx", "second")} {
		if o := h.Install(t.Context(), []profile.Unit{u})[0]; o.Err != nil || !o.Changed {
			t.Fatalf("%+v", o)
		}
	}
	if o := h.Remove(t.Context(), []profile.Owner{{Namespace: "web", Name: "gone"}})[0]; o.Err != nil || !o.Changed {
		t.Fatalf("%+v", o)
	}
	if in, err := h.Installed(t.Context()); err != nil || len(in) != 1 {
		t.Fatalf("%+v, %v", in, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kubelet/seccomp/x"), nil, 0o600); err == nil {
		t.Fatal(fmt.Sprint("the test is no test: user ", os.Getuid(), " can write beside"))
	}
}
