//go:build !lsm_selinux

package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/profile/selinux"
	"github.com/confine-dev/confine/pkg/profile/selinux/host/semodule"
	"github.com/confine-dev/confine/pkg/reason"
)

func recordOf(t *testing.T, u profile.Unit) *record {
	t.Helper()
	r, err := newRecord(u)
	must(t, err)
	return r
}

func TestModulesComeBackAsTheyWere(t *testing.T) {
	long := owner(strings.Repeat("n", 63), strings.Repeat(strings.Repeat("a", 49)+".", 5)+"end")
	units := map[profile.Owner]*record{}
	for _, o := range []profile.Owner{owner("shop", "web"), owner("shop", "web.v1"), owner("shop-web", "v1"), long} {
		units[o] = recordOf(t, unit(o, profiletest.First))
	}
	odd := unit(owner("shop", "odd"), profiletest.Fewer)
	odd.Files[0].Data = blockWith(block(odd.Owner, "web"), "; file web.cil x y 0 elsewhere\n")
	units[odd.Owner] = recordOf(t, odd)
	sharing := unit(owner("shop", "web"), profiletest.First)
	sharing.Owner = owner("store", "copy")
	units[sharing.Owner] = recordOf(t, sharing)

	modules := render(units)
	if len(modules) != len(units) {
		t.Fatalf("%d modules for %d units", len(modules), len(units))
	}
	back := map[profile.Owner]*record{}
	for name, cil := range modules {
		if len(name) > 128 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			t.Errorf("a name that no module should have: %q", name)
		}
		r, err := decode(name, cil)
		must(t, err)
		back[r.Owner] = r
	}
	if back[sharing.Owner].whole() {
		t.Error("a text stands in two modules")
	}
	resolve(back)
	if diff := cmp.Diff(units, back); diff != "" {
		t.Errorf("units (-want +got):\n%s", diff)
	}
}

// TestDamageIsSeen changes each byte of a module, cuts it everywhere, and doubles it.
func TestDamageIsSeen(t *testing.T) {
	o := owner("shop", "web")
	units := map[profile.Owner]*record{o: recordOf(t, unit(o, profiletest.First))}
	name := moduleName(o)
	whole := render(units)[name]
	judge := func(what string, cil []byte) {
		r, err := decode(name, cil)
		if err == nil && r.same(units[o]) && r.whole() && !bytes.Equal(render(map[profile.Owner]*record{o: r})[name], whole) {
			t.Errorf("%s: it renders otherwise", what)
		}
		if err == nil && r.Owner != o {
			t.Errorf("%s: it is of %s", what, r.Owner)
		}
		if err == nil && r.same(units[o]) && r.whole() && !bytes.Equal(cil, whole) && checksumOf(cil) == checksumOf(whole) {
			t.Errorf("%s: not seen", what)
		}
	}
	for i := range whole {
		changed := bytes.Clone(whole)
		changed[i] ^= 1
		judge(fmt.Sprintf("byte %d", i), changed)
		judge(fmt.Sprintf("cut at %d", i), whole[:i])
	}
	if _, err := decode(name, append(bytes.Clone(whole), whole...)); err == nil {
		t.Error("twice is no module")
	}
	if _, err := decode(moduleName(owner("shop", "api")), whole); err == nil {
		t.Error("a module under another's name")
	}
}

func FuzzDecode(f *testing.F) {
	o := owner("shop", "web")
	r, err := newRecord(unit(o, profiletest.First))
	if err != nil {
		f.Fatal(err)
	}
	name := moduleName(o)
	f.Add(render(map[profile.Owner]*record{o: r})[name])
	f.Add([]byte(firstLine + "\n; owner shop/web\n; digest " + r.Digest.String() + "\n; file a b c -1 here\n"))
	f.Fuzz(func(t *testing.T, cil []byte) {
		r, err := decode(name, cil)
		if err != nil {
			return
		}
		if r.Owner != o {
			t.Errorf("of %s", r.Owner)
		}
		for _, text := range r.Files {
			if text.Data != nil && sumOf(text.Data) != text.Sum {
				t.Errorf("%s has other bytes than its sum", text.Name)
			}
		}
	})
}

func TestUnitsWithoutTypesAreRefused(t *testing.T) {
	o := owner("shop", "web")
	for name, cil := range map[string]string{
		"no CIL":               "(block",
		"no block":             "(type a)",
		"two blocks":           "(block confine_shop_a (blockinherit container)) (block confine_shop_b (blockinherit container))",
		"a block beside rules": "(block confine_shop_a (blockinherit container)) (allow a b (file (read)))",
		"a name with a dot":    "(block host.a (blockinherit container))",
		"nothing":              "",
	} {
		b := newBench(t, newMemory())
		u := profile.Unit{Owner: o, Digest: digestOf(name), Files: []profile.File{{Name: "a.cil", Data: []byte(cil)}}}
		b.refused(b.h.Install(t.Context(), []profile.Unit{u})[0], reason.ProfileInvalid, "")
		b.inForce()
	}
	b := newBench(t, newMemory())
	twice := unit(o, profiletest.First)
	twice.Files[1].Data = twice.Files[0].Data
	b.refused(b.h.Install(t.Context(), []profile.Unit{twice})[0], reason.ProfileInvalid, "is in web.cil, too")
}

func TestManyAreOneTransaction(t *testing.T) {
	m := newMemory()
	b := newBench(t, m)
	var units []profile.Unit
	var owners []profile.Owner
	for i := range 50 {
		units = append(units, unit(owner("shop", fmt.Sprintf("web-%d", i)), profiletest.First))
		owners = append(owners, units[i].Owner)
	}
	b.install(true, units...)
	b.install(false, units...)
	if m.commits != 1 {
		t.Errorf("%d transactions", m.commits)
	}
	// One broken among many costs three: all, those not named, and the named.
	got := b.h.Install(t.Context(), append([]profile.Unit{broken(owner("shop", "broken"))}, seconds(units)...))
	b.refused(got[0], reason.InstallFailed, "")
	b.want(true, got[1:])
	if m.commits != 4 {
		t.Errorf("%d transactions", m.commits-1)
	}
	b.remove(true, owners...)
	if m.commits != 5 {
		t.Errorf("%d transactions", m.commits-4)
	}
	b.inForce()
}

func seconds(units []profile.Unit) []profile.Unit {
	var all []profile.Unit
	for _, u := range units {
		all = append(all, unit(u.Owner, profiletest.Second))
	}
	return all
}

// TestManyBrokenEndSoon: what one call does is bounded, and calls after it come
// to the good ones behind.
func TestManyBrokenEndSoon(t *testing.T) {
	m := newMemory()
	b := newBench(t, m)
	var units []profile.Unit
	for i := range 100 {
		units = append(units, broken(owner("shop", fmt.Sprintf("broken-%d", i))))
	}
	good := unit(owner("shop", "good"), profiletest.First)
	units = append(units, good)
	for range 10 {
		before := m.commits
		got := b.h.Install(t.Context(), units)
		if m.commits-before > maxRefusals+1 {
			t.Fatalf("%d transactions in one call", m.commits-before)
		}
		for _, o := range got[:100] {
			b.refused(o, reason.InstallFailed, "")
		}
		if got[100].Err == nil {
			b.inForce(good)
			return
		}
	}
	t.Error("the good one never got in")
}

func TestFailuresOfTheStore(t *testing.T) {
	said := func(log string) error { return refusal(log) }
	for name, c := range map[string]struct {
		fails error
		want  reason.Reason
		says  string
	}{
		"busy":         {fmt.Errorf("%w: %w", semodule.ErrBusy, said("Could not get direct transaction lock at x")), reason.InstallFailed, "locked by another"},
		"full":         {said("Could not copy files to sandbox x. (No space left on device)."), reason.NoSpace, "full"},
		"nearly full":  {said("Could not copy files to sandbox x. (Input/output error)."), reason.NoSpace, "full"},
		"quota":        {said("write: Disk quota exceeded"), reason.NoSpace, "full"},
		"too old":      {said("semodule: unrecognized option '--checksum'"), reason.KindUnsupported, "too old"},
		"no semodule":  {fmt.Errorf("semodule: %w", exec.ErrNotFound), reason.KindUnsupported, "semodule"},
		"another":      {errors.New("broken pipe"), reason.InstallFailed, "broken pipe"},
		"no reason":    {said("semodule gave no reason"), reason.InstallFailed, "gave no reason"},
		"no room here": {&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, reason.NoSpace, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			b := newBench(t, m)
			old := unit(owner("shop", "old"), profiletest.First)
			b.install(true, old)
			m.fails = c.fails
			for _, got := range b.h.Install(t.Context(), []profile.Unit{unit(old.Owner, profiletest.Second), unit(owner("shop", "web"), profiletest.First)}) {
				b.refused(got, c.want, c.says)
				if told, ok := reason.Of(got.Err); !ok || told.WhatToDo() == "" {
					t.Errorf("no advice: %v", got.Err)
				}
			}
			b.refused(b.h.Remove(t.Context(), []profile.Owner{old.Owner})[0], c.want, "")
			m.fails = nil
			b.again()
			b.install(true, unit(owner("shop", "web"), profiletest.First))
			b.inForce(old, unit(owner("shop", "web"), profiletest.First))
		})
	}
}

// processes makes a folder like /proc, with the labels of each one's threads.
func processes(t *testing.T, labels map[string][]string) string {
	t.Helper()
	proc := t.TempDir()
	for pid, threads := range labels {
		for i, label := range threads {
			folder := filepath.Join(proc, pid, "task", fmt.Sprint(i), "attr")
			must(t, os.MkdirAll(folder, 0o755))
			must(t, os.WriteFile(filepath.Join(folder, "current"), []byte(label), 0o644))
		}
	}
	return proc
}

func TestTypesInUseStay(t *testing.T) {
	b := newBench(t, newMemory())
	o := owner("shop", "web")
	b.install(true, unit(o, profiletest.First))
	worker := selinux.ProcessType(block(o, "worker"))
	b.h.proc = processes(t, map[string][]string{
		"1": {"system_u:system_r:init_t:s0\x00"}, "self": {"a:b:" + worker + ":s0"},
		"77": {"system_u:system_r:container_t:s0:c1,c2", "system_u:system_r:" + worker + ":s0:c1,c2\n"}, "78": {"kernel"},
	})
	b.refused(b.h.Remove(t.Context(), []profile.Owner{o})[0], reason.InstallFailed, "process 77 runs as the type "+worker)
	b.refused(b.h.Install(t.Context(), []profile.Unit{unit(o, profiletest.Fewer)})[0], reason.InstallFailed, worker)
	b.inForce(unit(o, profiletest.First))
	b.install(true, unit(o, profiletest.Second)) // the names stay

	sharing := unit(o, profiletest.Second)
	sharing.Owner = owner("shop", "sharing")
	b.install(true, sharing)
	b.remove(true, o) // the type stays with the other
	b.refused(b.h.Remove(t.Context(), []profile.Owner{sharing.Owner})[0], reason.InstallFailed, worker)
	b.inForce(sharing)

	b.h.proc = filepath.Join(b.h.proc, "unreadable")
	b.refused(b.h.Remove(t.Context(), []profile.Owner{sharing.Owner})[0], reason.InstallFailed, "cannot be told")
	b.h.proc = processes(t, map[string][]string{"2": {"system_u:system_r:init_t:s0"}}) // hidepid, or another's processes
	b.refused(b.h.Remove(t.Context(), []profile.Owner{sharing.Owner})[0], reason.InstallFailed, "cannot be told")
	b.h.proc = initAlone
	b.remove(true, sharing.Owner)
}

func TestSupported(t *testing.T) {
	root := t.TempDir()
	h, err := New(Options{Root: filepath.Join(root, "state"), HostRoot: root})
	must(t, err)
	enforce := filepath.Join(root, "sys/fs/selinux/enforce")
	must(t, os.MkdirAll(filepath.Dir(enforce), 0o755))
	for _, step := range []struct {
		file, data, says string
	}{
		{"", "", "does not run SELinux"},
		{enforce, "0", "permissive"},
		{enforce, "1", "semodule"},
	} {
		if step.file != "" {
			must(t, os.WriteFile(step.file, []byte(step.data), 0o644))
		}
		if err := h.Supported(t.Context()); !errors.Is(err, reason.KindUnsupported) || !strings.Contains(err.Error(), step.says) {
			t.Errorf("%v, want %q", err, step.says)
		}
	}
	// Where nothing ever was, nothing is there, and nothing is to be removed.
	if in, err := h.Installed(t.Context()); err != nil || len(in) > 0 {
		t.Errorf("%v, %v", in, err)
	}
	if got := h.Remove(t.Context(), []profile.Owner{owner("shop", "web")})[0]; got.Err != nil || got.Changed {
		t.Errorf("%+v", got)
	}
	// Where something was, its absence must not be taken for nothing.
	must(t, os.Mkdir(h.opts.Root, 0o700))
	if _, err := h.Installed(t.Context()); !errors.Is(err, reason.KindUnsupported) {
		t.Errorf("installed: %v", err)
	}
	must(t, os.MkdirAll(filepath.Join(root, "usr/sbin"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "usr/sbin/semodule"), nil, 0o755))
	if err := h.Supported(t.Context()); !errors.Is(err, reason.KindUnsupported) || (os.Geteuid() == 0 && !strings.Contains(err.Error(), "no /bin/sh")) {
		t.Errorf("without a shell: %v", err)
	}
	must(t, os.MkdirAll(filepath.Join(root, "bin"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "bin/sh"), nil, 0o755))
	if err := h.Supported(t.Context()); (err == nil) != (os.Geteuid() == 0) {
		t.Errorf("as user %d: %v", os.Geteuid(), err)
	}
}

// otherwise is a policy of which one answer is false.
type otherwise struct {
	*memory
	extract func(map[string][]byte)
	deaf    bool
}

func (o otherwise) Extract(ctx context.Context, names []string) (map[string][]byte, error) {
	found, err := o.memory.Extract(ctx, names)
	if o.extract != nil {
		o.extract(found)
	}
	return found, err
}

func (o otherwise) known(name string) (bool, error) {
	if o.deaf {
		return false, nil
	}
	return o.memory.known(name)
}

// TestStoreAndKernelAreBothAsked: what one of them has is not taken for both.
func TestStoreAndKernelAreBothAsked(t *testing.T) {
	web := unit(owner("shop", "web"), profiletest.First)
	sharing := web
	sharing.Owner = owner("store", "sharing")
	name := moduleName(web.Owner)
	for what, c := range map[string]struct {
		damage func(m *memory)
		unit   profile.Unit
	}{
		"the text of another is gone from the store": {func(m *memory) { delete(m.modules, name) }, sharing},
		"disabled, and not loaded since":             {func(m *memory) { m.modules[name] = module{m.modules[name].cil, true} }, web},
		"another comment in the store": {func(m *memory) {
			m.modules[moduleName(sharing.Owner)] = module{replace(m.modules[moduleName(sharing.Owner)].cil, " 0 elsewhere", " 7 elsewhere"), false}
		}, sharing},
	} {
		t.Run(what, func(t *testing.T) {
			m := newMemory()
			b := newBench(t, m)
			b.install(true, web, sharing)
			c.damage(m)
			b.install(true, c.unit)
			b.install(false, c.unit)
			m.load()
			in, err := b.h.Installed(t.Context())
			must(t, err)
			for _, i := range in {
				if len(i.References) != 2 {
					t.Errorf("%s has %q after a reload", i.Owner, i.References)
				}
			}
		})
	}
}

func TestTheKernelDoesNotFollow(t *testing.T) {
	m := newMemory()
	b := newBench(t, m)
	b.h.kernel = otherwise{memory: m, deaf: true}
	got := b.h.Install(t.Context(), []profile.Unit{unit(owner("shop", "web"), profiletest.First)})[0]
	if !errors.Is(got.Err, reason.InstallFailed) || !got.Changed || !strings.Contains(got.Err.Error(), "the kernel does not have") {
		t.Errorf("%+v", got)
	}
}

// TestWhatComesOutMustBeWhatIsListed: a module that changes between two answers
// is nobody's.
func TestWhatComesOutMustBeWhatIsListed(t *testing.T) {
	m := newMemory()
	b := newBench(t, m)
	web := unit(owner("shop", "web"), profiletest.First)
	b.install(true, web)
	b.again()
	b.h.store = otherwise{memory: m, extract: func(found map[string][]byte) {
		found[moduleName(web.Owner)] = render(map[profile.Owner]*record{web.Owner: recordOf(t, unit(web.Owner, profiletest.Second))})[moduleName(web.Owner)]
	}}
	in, err := b.h.Installed(t.Context())
	must(t, err)
	if len(in) > 0 {
		t.Errorf("listed %+v", in)
	}
}
