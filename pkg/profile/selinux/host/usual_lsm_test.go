//go:build lsm_selinux

package host

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/profile/selinux"
	"github.com/confine-dev/confine/pkg/profile/selinux/host/semodule"
	"github.com/confine-dev/confine/pkg/reason"
)

// usual is a module as udica writes them, and what its process may do.
type usual struct {
	body string
	// policy are the constraints that admit it; empty where the default does.
	policy string
	may    []string
	mayNot []string
}

const (
	readData     = "read -r x < /srv/data"
	readSettings = "read -r x < /srv/settings"
	readTheOther = "read -r x < /srv/secret"
	changeOwner  = "/bin/busybox chown 1:1 /srv/data && /bin/busybox chown 0:0 /srv/data"
	connect      = "connect"
	capabilities = "    (allow process process ( capability ( chown dac_override fowner fsetid kill net_bind_service setfcap setgid setpcap setuid sys_chroot ))) \n\n"
)

func usuals() map[string]usual {
	return map[string]usual{
		"nothing but the template": {"", "", []string{readData}, []string{readSettings, readTheOther, changeOwner, connect}},
		"capabilities":             {capabilities, "", []string{readData, changeOwner}, []string{readSettings, readTheOther, connect}},
		"full network":             {"    (blockinherit net_container)\n" + capabilities, "", []string{readData, changeOwner, connect}, []string{readSettings, readTheOther}},
		"restricted network":       {"    (blockinherit restricted_net_container)\n", "", []string{readData}, []string{readSettings, connect}},
		"settings of the host": {"    (blockinherit config_container)\n", `{"allowedTemplates":["config_container"]}`,
			[]string{readData, readSettings}, []string{readTheOther, changeOwner, connect}},
		"a type that a policy lists": {"    (allow process secret_t ( file ( getattr open read ))) \n", `{"allowedTypes":["secret_t"]}`,
			[]string{readData, readTheOther}, []string{readSettings, changeOwner, connect}},
	}
}

// TestUsualModulesConfine: what Confine admits is installed and gives exactly
// what it says.
func TestUsualModulesConfine(t *testing.T) {
	s := newScene(t)
	b := newBench(t, s.p)
	var units []profile.Unit
	blocks := map[string]string{}
	for name, u := range usuals() {
		o := owner("shop", strings.ReplaceAll(name, " ", "-"))
		block, _, err := selinux.BlockName("shop", strings.ReplaceAll(name, " ", "_"))
		must(t, err)
		blocks[name] = block
		text := "(block " + block + "\n    (blockinherit container)\n" + u.body + ")"
		k := selinux.NewKind()
		p, err := k.Parse("a.cil", []byte(text))
		must(t, err)
		var limits []profile.Limits
		if u.policy != "" {
			if err := k.Constrain(p, profile.For(o), nil); !errors.Is(err, reason.ProfileForbidden) {
				t.Errorf("%s: without a policy: %v", name, err)
			}
			limits = []profile.Limits{profile.Limits(u.policy)}
		}
		must(t, k.Constrain(p, profile.For(o), limits))
		units = append(units, profile.Unit{Owner: o, Digest: digestOf(name), Files: []profile.File{{Name: "a.cil", Data: []byte(text)}}})
	}
	b.install(true, units...)
	b.inForce(units...)
	for name, u := range usuals() {
		t.Run(name, func(t *testing.T) {
			inner := *s
			inner.t = t
			for command, want := range both(u) {
				do := inner.can
				if command == connect {
					do = func(block, _ string) bool { return inner.connects(block) }
				}
				if got := do(blocks[name], command); got != want {
					t.Errorf("%s: %v, want %v", command, got, want)
				}
			}
		})
	}
}

func both(u usual) map[string]bool {
	all := map[string]bool{}
	for _, command := range u.may {
		all[command] = true
	}
	for _, command := range u.mayNot {
		all[command] = false
	}
	return all
}

// TestBaseTypesStay: a module that declares what the host's policy has, or that
// breaks the policy otherwise, changes nothing, and others commit beside it.
func TestBaseTypesStay(t *testing.T) {
	b := newBench(t, onThisMachine(t))
	p := b.p.(ownPolicy)
	good := unit(owner("shop", "good"), profiletest.First)
	for name, c := range map[string]struct {
		text string
		want reason.Reason
	}{
		"a type of the host":         {"(type secret_t)", reason.ProfileInvalid},
		"an alias for one":           {"(typealias secret_t) (typealiasactual secret_t etc_t)", reason.ProfileInvalid},
		"an attribute of the host":   {"(typeattribute domain)", reason.ProfileInvalid},
		"a class of the host":        {"(class file (read))", reason.ProfileInvalid},
		"a neverallow":               {"(neverallow kernel_t secret_t (file (read)))", reason.ProfileInvalid},
		"the block container":        {"(block container (blockinherit net_container))", reason.ProfileInvalid},
		"the block net_container":    {"(block net_container (blockinherit container))", reason.NameConflict},
		"a template that is missing": {"(block confine_shop_bad (blockinherit container) (blockinherit nosuch))", reason.InstallFailed},
		"a type that is missing":     {"(block confine_shop_bad (blockinherit container) (allow process nosuch_t (file (read))))", reason.InstallFailed},
		"a permission that is none":  {"(block confine_shop_bad (blockinherit container) (allow process self (file (nosuch))))", reason.InstallFailed},
		"the template twice":         {"(block confine_shop_bad (blockinherit container) (blockinherit container))", reason.ProfileInvalid},
	} {
		bad := profile.Unit{Owner: owner("shop", "bad"), Digest: digestOf(name), Files: []profile.File{{Name: "a.cil", Data: []byte(c.text)}}}
		got := b.h.Install(t.Context(), []profile.Unit{bad, good})
		if !errors.Is(got[0].Err, c.want) || got[0].Changed {
			t.Errorf("%s: %+v, want %s", name, got[0], c.want)
		}
		if got[1].Err != nil {
			t.Errorf("%s: the other: %+v", name, got[1])
		}
		b.inForce(good)
		if c.want == reason.ProfileInvalid { // semodule has not seen it yet
			p.judges(t, name, c.text)
		}
		for _, label := range []string{"system_u:object_r:secret_t:s0", "system_u:object_r:etc_t:s0", "system_u:system_r:kernel_t:s0"} {
			must(t, os.WriteFile("/sys/fs/selinux/context", []byte(label), 0))
		}
		wantKnown(t, p, block(good.Owner, "web"), true)
	}
}

// judges gives a text to semodule alone. It takes few of these, and what it
// takes is taken away again.
func (p ownPolicy) judges(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bad.cil")
	must(t, os.WriteFile(file, []byte(text), 0o600))
	err := program(t.Context(), "", "--priority="+adminPriority, "--install="+file)
	t.Logf("%s: semodule alone: %v", name, err)
	if err == nil {
		must(t, program(t.Context(), "", "--priority="+adminPriority, "--remove=bad"))
	}
}

const inside = "CONFINE_TEST_IN_A_CONTAINER"

// TestFromAContainer runs this test again in a root folder with nothing but
// /proc and the host's process IDs, as the agent's container has.
func TestFromAContainer(t *testing.T) {
	if os.Getenv(inside) != "" {
		fromAContainer(t)
		return
	}
	onThisMachine(t)
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "proc"), 0o755))
	must(t, os.Mkdir(filepath.Join(root, "tmp"), 0o755))
	must(t, os.Mkdir(filepath.Join(root, "dev"), 0o755))
	must(t, os.Symlink("/proc/1/root/dev/null", filepath.Join(root, "dev/null")))
	must(t, unix.Mount("proc", filepath.Join(root, "proc"), "proc", 0, ""))
	defer func() { must(t, unix.Unmount(filepath.Join(root, "proc"), unix.MNT_DETACH)) }()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestFromAContainer$", "-test.v")
	cmd.Env, cmd.Dir = append(os.Environ(), inside+"=1"), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC}
	said, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(said), "--- PASS") {
		t.Errorf("%v:\n%s", err, said)
	}
}

func fromAContainer(t *testing.T) {
	for _, name := range []string{"/usr/sbin/semodule", "/usr/bin/secilc", "/sys/fs/selinux", "/run", "/bin/sh"} {
		if _, err := os.Lstat(name); err == nil {
			t.Fatalf("the container has %s", name)
		}
	}
	h, err := New(Options{Root: "/state", HostRoot: "/proc/1/root"})
	must(t, err)
	must(t, h.Supported(t.Context()))
	must(t, h.Rehearses())
	b := &bench{t, ownPolicy{h.store.(*semodule.Store), h.kernel.(selinuxfs)}, h}
	web := unit(owner("shop", "web"), profiletest.First)
	b.install(true, web)
	b.inForce(web)
	b.install(true, unit(web.Owner, profiletest.Fewer))
	b.refused(h.Install(t.Context(), []profile.Unit{{Owner: web.Owner, Digest: digestOf("bad"), Files: []profile.File{
		{Name: "a.cil", Data: []byte("(block confine_shop_x\n(blockinherit container)\n(blockinherit container))")}}}})[0], reason.ProfileInvalid, "a.cil:3")
	b.remove(true, web.Owner)
	b.inForce()
}

// counted counts the transactions of a host.
func counted(b *bench) *int {
	n := 0
	b.h.opts.Before = func(s durable.Step) error {
		if s.Op == OpCommit {
			n++
		}
		return nil
	}
	return &n
}

// BenchmarkFifty prints what one transaction for fifty modules saves:
//
//	vmrun test -lsm selinux -run '^$' -bench Fifty -benchtime 1x ./pkg/profile/selinux/host
func BenchmarkFifty(b *testing.B) {
	const many = 50
	var units []profile.Unit
	var owners []profile.Owner
	for i := range many {
		units = append(units, unit(owner("shop", fmt.Sprintf("web-%d", i)), profiletest.Fewer))
		owners = append(owners, units[i].Owner)
	}
	for name, each := range map[string]int{"together": many, "one_by_one": 1} {
		b.Run(name, func(b *testing.B) {
			h, err := New(Options{Root: filepath.Join(b.TempDir(), "selinux")})
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				for i := 0; i < many; i += each {
					for _, got := range h.Install(b.Context(), units[i:i+each]) {
						if got.Err != nil {
							b.Fatal(got.Err)
						}
					}
				}
				b.StopTimer()
				for _, got := range h.Remove(b.Context(), owners) {
					if got.Err != nil {
						b.Fatal(got.Err)
					}
				}
				b.StartTimer()
			}
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)/many*1000, "ms/module")
		})
	}
}
