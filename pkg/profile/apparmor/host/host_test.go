//go:build !lsm_apparmor

package host

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/reason"
)

// TestHost runs the suite against a kernel and a compiler in memory; the same
// runs in a virtual machine against the real ones.
func TestHost(t *testing.T) {
	profiletest.RunHost(t, profiletest.HostCase{
		Machine:  func(t *testing.T) profiletest.Machine { return machine(t, newMemoryKernel(), memoryCompiler{}) },
		FilesFor: files,
	})
}

// memoryKernel is a kernel that keeps names and checksums, and enforces nothing.
type memoryKernel struct{ profiles map[string]Loaded }

func newMemoryKernel() *memoryKernel { return &memoryKernel{profiles: map[string]Loaded{}} }

func (*memoryKernel) supported() error { return nil }

func (k *memoryKernel) list() (map[string]Loaded, error) {
	found := map[string]Loaded{}
	for name, l := range k.profiles {
		found[name] = l
	}
	return found, nil
}

func (k *memoryKernel) replace(policy []byte) error {
	profiles, err := readCompiled(policy)
	for _, c := range profiles {
		k.profiles[c.name] = Loaded{Name: c.name, Mode: "enforce", sum: c.sum}
	}
	return err
}

func (k *memoryKernel) remove(name string) error {
	for n := range k.profiles {
		if n == name || strings.HasPrefix(n, name+"//") {
			delete(k.profiles, n)
		}
	}
	return nil
}

// memoryCompiler makes policies with the right names and the text as rules.
type memoryCompiler struct{}

func (memoryCompiler) supported() error { return nil }

func (memoryCompiler) compile(_ context.Context, f profile.File) ([]byte, error) {
	parsed, err := apparmor.NewKind().Parse(f.Name, f.Data)
	if err != nil {
		return nil, err
	}
	var policy []byte
	for _, name := range apparmor.Names(parsed) {
		policy = append(policy, binaryOf(name, f.Data)...)
	}
	return policy, nil
}

func binaryOf(name string, rules []byte) []byte {
	var b []byte
	tag := func(code byte, text string) {
		b = append(binary.LittleEndian.AppendUint16(append(b, code), uint16(len(text)+1)), text...)
		b = append(b, 0)
	}
	tag(codeName, "version")
	b = binary.LittleEndian.AppendUint32(append(b, codeU32), 7)
	tag(codeName, "profile")
	b = append(b, codeStruct)
	tag(codeString, name)
	b = binary.LittleEndian.AppendUint32(append(b, codeBlob), uint32(len(rules)))
	b = append(append(b, rules...), codeStructEnd)
	return b
}

func TestNamesOfTheHostAreNotTouched(t *testing.T) {
	k, root := newMemoryKernel(), fastDir(t)
	web := profile.Owner{Namespace: "shop", Name: "web"}
	foreign := binaryOf("confine.shop.web.web", []byte("the host's"))
	must(t, k.replace(foreign))
	before, err := state(root, k)
	must(t, err)
	h, err := open(Options{Root: root}, k, memoryCompiler{})
	must(t, err)
	got := h.Install(t.Context(), []profile.Unit{unit(web, profiletest.First)})[0]
	if !errors.Is(got.Err, reason.NameConflict) || got.Changed {
		t.Errorf("install: %+v", got)
	}
	wantSame(t, before, root, k)
	if got := h.Remove(t.Context(), []profile.Owner{web})[0]; got.Err != nil || got.Changed {
		t.Errorf("remove: %+v", got)
	}
	wantSame(t, before, root, k)
}

func TestNamesOfAnotherOwner(t *testing.T) {
	k, root := newMemoryKernel(), fastDir(t)
	h, err := open(Options{Root: root}, k, memoryCompiler{})
	must(t, err)
	first := unit(profile.Owner{Namespace: "shop", Name: "web"}, profiletest.First)
	other := unit(first.Owner, profiletest.Second)
	other.Owner.Name = "thief"
	must(t, h.Install(t.Context(), []profile.Unit{first})[0].Err)
	before, err := state(root, k)
	must(t, err)
	got := h.Install(t.Context(), []profile.Unit{other})[0]
	if !errors.Is(got.Err, reason.NameConflict) || !strings.Contains(got.Err.Error(), "shop/web") {
		t.Errorf("%+v", got)
	}
	wantSame(t, before, root, k)

	// The same text under another digest is shared, and stays with the last owner.
	same := first
	same.Owner, same.Digest = profile.Owner{Namespace: "shop", Name: "copy"}, digestOf("another artifact")
	must(t, h.Install(t.Context(), []profile.Unit{same})[0].Err)
	must(t, h.Remove(t.Context(), []profile.Owner{first.Owner})[0].Err)
	if _, there := k.profiles["confine.shop.web.worker//child"]; !there {
		t.Error("a shared profile went with its first owner")
	}
	must(t, h.Remove(t.Context(), []profile.Owner{same.Owner})[0].Err)
	if len(k.profiles) > 0 {
		t.Errorf("left: %v", k.profiles)
	}
}

func TestRestoreAfterReboot(t *testing.T) {
	k, root := newMemoryKernel(), fastDir(t)
	h, err := open(Options{Root: root}, k, memoryCompiler{})
	must(t, err)
	for _, name := range []string{"b", "a"} {
		must(t, h.Install(t.Context(), []profile.Unit{unit(profile.Owner{Namespace: "shop", Name: name}, profiletest.First)})[0].Err)
	}
	before, err := state(root, k)
	must(t, err)
	clear(k.profiles)
	in, err := h.Installed(t.Context())
	must(t, err)
	for _, i := range in {
		if len(i.References) > 0 {
			t.Errorf("%s: references %q after a reboot", i.Owner, i.References)
		}
	}
	again, err := open(Options{Root: root}, k, memoryCompiler{})
	must(t, err)
	outcomes, err := again.Restore(t.Context())
	must(t, err)
	if len(outcomes) != 2 {
		t.Fatalf("%d outcomes", len(outcomes))
	}
	for _, o := range outcomes {
		if o.Err != nil || !o.Changed {
			t.Errorf("%+v", o)
		}
	}
	wantSame(t, before, root, k)
}

// TestNothingLoadedIsForgotten kills an install before each step and never asks
// for it again: the next call, about another owner, cleans up.
func TestNothingLoadedIsForgotten(t *testing.T) {
	web, db := profile.Owner{Namespace: "shop", Name: "web"}, profile.Owner{Namespace: "shop", Name: "db"}
	died := errors.New("died")
	for at := range 100 {
		k, root := newMemoryKernel(), fastDir(t)
		steps := 0
		h, err := open(Options{Root: root, Before: func(durable.Step) error {
			if steps++; steps > at {
				return died
			}
			return nil
		}}, k, memoryCompiler{})
		must(t, err)
		got := h.Install(t.Context(), []profile.Unit{unit(web, profiletest.First)})[0]
		again, err := open(Options{Root: root}, k, memoryCompiler{})
		must(t, err)
		must(t, again.Install(t.Context(), []profile.Unit{unit(db, profiletest.First)})[0].Err)
		in, err := again.Installed(t.Context())
		must(t, err)
		owned := map[string]bool{}
		for _, i := range in {
			for _, r := range i.References {
				owned[r] = true
			}
		}
		for name := range k.profiles {
			if top, _, _ := strings.Cut(name, "//"); !owned[top] {
				t.Fatalf("died before step %d: %s is loaded and of nobody", at, name)
			}
		}
		if got.Err == nil {
			return
		}
	}
	t.Error("the install never came to its end")
}

func TestCompiledNamesMustBeTheApprovedOnes(t *testing.T) {
	web := profile.Owner{Namespace: "shop", Name: "web"}
	for name, c := range map[string]compiler{
		"another name":      fixedCompiler(binaryOf("docker-default", nil)),
		"one more":          fixedCompiler(append(binaryOf("confine.shop.web.web", nil), binaryOf("docker-default", nil)...)),
		"one less":          fixedCompiler(binaryOf("confine.shop.web.other", nil)),
		"one name twice":    fixedCompiler(append(binaryOf("confine.shop.web.web", nil), binaryOf("confine.shop.web.web", nil)...)),
		"nothing":           fixedCompiler(nil),
		"text":              fixedCompiler("profile confine.shop.web.web {}"),
		"cut off":           fixedCompiler(binaryOf("confine.shop.web.web", nil)[:30]),
		"a policy name too": fixedCompiler(append([]byte("\x04\x0a\x00namespace\x00"), binaryOf("confine.shop.web.web", nil)...)),
	} {
		t.Run(name, func(t *testing.T) {
			k, root := newMemoryKernel(), fastDir(t)
			h, err := open(Options{Root: root}, k, c)
			must(t, err)
			u := unit(web, profiletest.Fewer)
			got := h.Install(t.Context(), []profile.Unit{u})[0]
			if !errors.Is(got.Err, reason.ProfileInvalid) && !errors.Is(got.Err, reason.InstallFailed) {
				t.Errorf("%+v", got)
			}
			if len(k.profiles) > 0 {
				t.Errorf("loaded: %v", k.profiles)
			}
		})
	}
}

type fixedCompiler []byte

func (fixedCompiler) supported() error { return nil }

func (c fixedCompiler) compile(context.Context, profile.File) ([]byte, error) {
	return slices.Clone(c), nil
}

func unit(o profile.Owner, v profiletest.Variant) profile.Unit {
	return profile.Unit{Owner: o, Digest: digestOf(string(v) + o.String()), Files: files(o, v)}
}

func wantSame(t *testing.T, before map[string]string, root string, k kernel) {
	t.Helper()
	after, err := state(root, k)
	must(t, err)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the machine differs (-want +got):\n%s", diff)
	}
}
