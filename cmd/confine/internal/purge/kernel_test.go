package purge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/reason"
)

// kernelSite is a stopped site with a kind whose profiles are in a kernel.
func kernelSite(t *testing.T) (*site, *profiletest.MemoryHost) {
	t.Helper()
	s := newSite(t)
	s.stop()
	kernel := profiletest.NewMemoryHost("kernel")
	s.options.loaded = []loadedKind{{
		kind: "kernel", folder: "kernel", file: regexp.MustCompile(`^[a-f0-9]{64}\.json$`),
		open: func(o Options, folder string) (profile.Host, error) {
			if folder != filepath.Join(o.Root, "kernel") {
				t.Errorf("the host works in %s", folder)
			}
			return kernel, nil
		},
	}}
	for _, name := range []string{"db", "nginx"} {
		o := kernel.Install(t.Context(), []profile.Unit{{
			Owner: profile.Owner{Namespace: "web", Name: name}, Digest: digest.FromString("kernel " + name), Files: []profile.File{{Name: name, Data: []byte("x")}},
		}})
		s.must(o[0].Err)
		s.write(filepath.Join(s.root, "kernel", digest.FromString(name).Encoded()+".json"))
	}
	return s, kernel
}

func inKernel(t *testing.T, kernel *profiletest.MemoryHost) string {
	t.Helper()
	installed, err := kernel.Installed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, in := range installed {
		names = append(names, in.Owner.Name)
	}
	return strings.Join(names, " ")
}

func TestPurgeRemovesWhatTheKernelHas(t *testing.T) {
	s, kernel := kernelSite(t)
	before := s.tree()
	listed, err := Survey(t.Context(), s.options)
	s.must(err)
	if diff := cmp.Diff(before, s.tree()); diff != "" || inKernel(t, kernel) != "db nginx" {
		t.Errorf("a survey changed something: %s%s", inKernel(t, kernel), diff)
	}
	if listed.Profiles != 4 || len(listed.Keep) != 0 || listed.Remove[0].Path != "kernel web/db" || !strings.Contains(listed.Remove[0].What, "confine/web/db/db") {
		t.Errorf("%d profiles, %v, kept %v", listed.Profiles, listed.Remove, listed.Keep)
	}
	done, err := Run(t.Context(), s.options)
	s.must(err)
	if diff := cmp.Diff(listed.Remove, done.Remove); diff != "" {
		t.Errorf("other things were removed than listed:\n%s", diff)
	}
	if diff := cmp.Diff(others(), s.tree()); diff != "" || inKernel(t, kernel) != "" {
		t.Errorf("the kernel has %q\n%s", inKernel(t, kernel), diff)
	}
}

// TestPurgeGoesOnBesideWhatIsUsed leaves in the kernel what confines a process,
// with what a later purge needs.
func TestPurgeGoesOnBesideWhatIsUsed(t *testing.T) {
	s, kernel := kernelSite(t)
	nginx := profile.Owner{Namespace: "web", Name: "nginx"}
	kernel.FailFor(nginx, reason.New(reason.InstallFailed, nginx.String(), "process 12 is under it").WithAdvice("end it"))
	plan, err := Run(t.Context(), s.options)
	s.must(err)
	if got := inKernel(t, kernel); got != "nginx" {
		t.Errorf("the kernel has %q", got)
	}
	said := ""
	for _, e := range plan.Keep {
		said += e.Path + ": " + e.What + "\n"
	}
	if !strings.Contains(said, "kernel web/nginx: it stays in the kernel: process 12 is under it; end it\n") || !strings.Contains(said, filepath.Join(s.root, "kernel")) {
		t.Errorf("kept:\n%s", said)
	}
	for _, e := range plan.Remove {
		if strings.Contains(e.Path, "kernel web/nginx") {
			t.Errorf("said to be removed: %+v", e)
		}
	}
	if plan.Profiles != 3 {
		t.Errorf("%d profiles", plan.Profiles)
	}
	record := filepath.Join("state", "kernel", digest.FromString("nginx").Encoded()+".json")
	left := strings.Join(s.tree(), "\n")
	if !strings.Contains(left, record) || strings.Contains(left, "journal.json") || strings.Contains(left, "sha256-") {
		t.Errorf("left:\n%s", left)
	}
	kernel.FailFor(nginx, nil)
	_, err = Run(t.Context(), s.options)
	s.must(err)
	if diff := cmp.Diff(others(), s.tree()); diff != "" || inKernel(t, kernel) != "" {
		t.Errorf("the kernel has %q\n%s", inKernel(t, kernel), diff)
	}
}

func TestPurgeBelievesNoFolderOfSomebodyElse(t *testing.T) {
	for name, spoil := range map[string]func(s *site, folder string){
		"writable by others": func(s *site, folder string) { s.must(os.Chmod(folder, 0o777)) },
		"a link": func(s *site, folder string) {
			s.must(os.RemoveAll(folder))
			s.link(s.victim, folder)
		},
		"another user's": func(s *site, folder string) {
			if os.Geteuid() != 0 {
				s.t.Skip("needs chown(2) to another user, which only root may")
			}
			s.must(os.Chown(folder, 64218, 64218))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, kernel := kernelSite(t)
			spoil(s, filepath.Join(s.root, "kernel"))
			plan, err := Run(t.Context(), s.options)
			s.must(err)
			if got := inKernel(t, kernel); got != "db nginx" {
				t.Errorf("the kernel has %q", got)
			}
			if len(plan.Keep) != 1 || plan.Keep[0].Path != filepath.Join(s.root, "kernel") || plan.Profiles != 2 {
				t.Errorf("kept %v, %d profiles", plan.Keep, plan.Profiles)
			}
			if _, err := os.Stat(filepath.Join(s.victim, "precious")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPurgeOfAKernelThatCannotBeRead(t *testing.T) {
	s, kernel := kernelSite(t)
	kernel.FailInstalled(reason.New(reason.InstallFailed, "kernel", "no securityfs"))
	plan, err := Run(t.Context(), s.options)
	s.must(err)
	if len(plan.Keep) != 1 || !strings.Contains(plan.Keep[0].What, "no securityfs") || !strings.Contains(strings.Join(s.tree(), "\n"), "state/kernel/") {
		t.Errorf("kept %v", plan.Keep)
	}
	kernel.FailInstalled(reason.New(reason.InstallFailed, "kernel", "%w", fs.ErrPermission))
	s.write(filepath.Join(s.root, lockName)) // as a purge leaves it that was refused
	before := s.tree()
	for range 2 {
		if _, err := Run(t.Context(), s.options); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("without the right to read: %v", err)
		}
	}
	if diff := cmp.Diff(before, s.tree()); diff != "" {
		t.Error(diff)
	}
}

// TestWithoutKernelKindsNoHostIsAsked: nothing of AppArmor or SELinux was ever
// installed.
func TestWithoutKernelKindsNoHostIsAsked(t *testing.T) {
	s := newSite(t)
	s.stop()
	s.options.loaded = loadedKinds()
	for i := range s.options.loaded {
		s.options.loaded[i].open = func(Options, string) (profile.Host, error) {
			t.Error("a host was opened")
			return nil, errors.New("no")
		}
	}
	_, err := Run(t.Context(), s.options)
	s.must(err)
	if diff := cmp.Diff(others(), s.tree()); diff != "" {
		t.Error(diff)
	}
}

// TestRealHostsLeaveNothing purges what the hosts' own code left, on a machine
// whose root has neither kind: an empty folder of each.
func TestRealHostsLeaveNothing(t *testing.T) {
	s := newSite(t)
	s.stop()
	s.options.HostRoot = t.TempDir()
	for _, k := range loadedKinds() {
		s.must(os.Mkdir(filepath.Join(s.root, k.folder), 0o700))
	}
	plan, err := Run(t.Context(), s.options)
	s.must(err)
	t.Log(plan.Keep)
	if _, err := os.Stat(filepath.Join(s.root, "apparmor")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("AppArmor's empty folder stays: %v", plan.Keep)
	}
}

// strangeHost has things in the kernel that its Installed does not speak for.
type strangeHost struct {
	profile.Host
	names []string
}

func (h strangeHost) Foreign(context.Context) ([]string, error) { return h.names, nil }

// TestPurgeKeepsWhatItCannotRead: a damaged record may be all that says what of
// Confine is in the kernel.
func TestPurgeKeepsWhatItCannotRead(t *testing.T) {
	for name, c := range map[string]struct {
		foreign []string
		left    bool
	}{"all is known": {nil, false}, "a damaged record": {[]string{"x.json"}, true}} {
		t.Run(name, func(t *testing.T) {
			s, kernel := kernelSite(t)
			for i := range s.options.loaded {
				s.options.loaded[i].open = func(Options, string) (profile.Host, error) { return strangeHost{kernel, c.foreign}, nil }
			}
			for _, work := range []func(context.Context, Options) (*Plan, error){Survey, Run} {
				plan, err := work(t.Context(), s.options)
				s.must(err)
				if said := fmt.Sprint(plan.Keep); strings.Contains(said, "kernel x.json") != c.left {
					t.Errorf("kept %s", said)
				}
			}
			if left := strings.Contains(strings.Join(s.tree(), "\n"), "state/kernel/"); left != c.left || inKernel(t, kernel) != "" {
				t.Errorf("records are left: %v; the kernel has %q", left, inKernel(t, kernel))
			}
		})
	}
}
