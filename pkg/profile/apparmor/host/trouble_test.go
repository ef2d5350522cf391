//go:build !lsm_apparmor

package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/reason"
)

// troubledKernel fails to say what it has, or has something else, once it has loaded something.
type troubledKernel struct {
	*memoryKernel
	loaded, blind, other bool
}

var errBlind = errors.New("the listing failed")

func (k *troubledKernel) replace(policy []byte) error {
	k.loaded = true
	return k.memoryKernel.replace(policy)
}

func (k *troubledKernel) list() (map[string]Loaded, error) {
	if k.loaded && k.blind {
		return nil, errBlind
	}
	found, err := k.memoryKernel.list()
	if l, there := found["confine.shop.web.worker"]; k.loaded && k.other && there {
		l.sum = "of another program"
		found[l.Name] = l
	}
	return found, err
}

// TestWhatWasLoadedStaysKnown: the kernel took a unit, and then could not be
// asked, or says something else. Nothing stays loaded that no record names, and
// what was in force before comes back.
func TestWhatWasLoadedStaysKnown(t *testing.T) {
	web := profile.Owner{Namespace: "shop", Name: "web"}
	for name, trouble := range map[string]troubledKernel{"not readable": {blind: true}, "one is another": {other: true}} {
		for before, had := range map[string]bool{"nothing before": false, "another before": true} {
			t.Run(name+", "+before, func(t *testing.T) {
				k, root := newMemoryKernel(), fastDir(t)
				sound, err := open(Options{Root: root}, k, memoryCompiler{})
				must(t, err)
				if had {
					must(t, sound.Install(t.Context(), []profile.Unit{unit(web, profiletest.Fewer)})[0].Err)
				}
				was, err := state(root, k)
				must(t, err)
				trouble.memoryKernel, trouble.loaded = k, false
				h, err := open(Options{Root: root}, &trouble, memoryCompiler{})
				must(t, err)
				if got := h.Install(t.Context(), []profile.Unit{unit(web, profiletest.Second)})[0]; !errors.Is(got.Err, reason.InstallFailed) {
					t.Fatalf("%+v", got)
				}
				records, _, err := sound.records(t.Context())
				must(t, err)
				for loaded := range k.profiles {
					if !strings.Contains(strings.Join(records[web].names(), " "), loaded) {
						t.Errorf("%s is loaded and of nobody", loaded)
					}
				}
				if had {
					must(t, sound.Install(t.Context(), []profile.Unit{unit(web, profiletest.Fewer)})[0].Err)
				}
				wantSame(t, was, root, k)
			})
		}
	}
}

// mute is a kernel that does not tell what its profiles are.
type mute struct{ *memoryKernel }

func (k mute) list() (map[string]Loaded, error) {
	found, err := k.memoryKernel.list()
	for name, l := range found {
		l.sum = ""
		found[name] = l
	}
	return found, err
}

// TestSilenceIsNoProofOfOwnership: where a kernel does not tell the bytes of a
// profile, one that no record names is the host's.
func TestSilenceIsNoProofOfOwnership(t *testing.T) {
	k, root := newMemoryKernel(), fastDir(t)
	must(t, k.replace(binaryOf("confine.shop.web.web", []byte("the host's"))))
	h, err := open(Options{Root: root}, mute{k}, memoryCompiler{})
	must(t, err)
	u := unit(profile.Owner{Namespace: "shop", Name: "web"}, profiletest.First)
	if got := h.Install(t.Context(), []profile.Unit{u})[0]; !errors.Is(got.Err, reason.NameConflict) {
		t.Errorf("%+v", got)
	}
	must(t, k.remove("confine.shop.web.web"))
	for range 2 {
		must(t, h.Install(t.Context(), []profile.Unit{u})[0].Err)
	}
}

// slowCompiler never ends with texts that say so.
type slowCompiler struct{ memoryCompiler }

func (c slowCompiler) compile(ctx context.Context, f profile.File) ([]byte, error) {
	if strings.Contains(string(f.Data), "slow") {
		<-ctx.Done()
		return nil, reason.New(reason.InstallFailed, f.Name, "slow: %w", ctx.Err())
	}
	return c.memoryCompiler.compile(ctx, f)
}

// TestSlowUnitsHoldUpNobodyElse: one call is bounded in time, and in the next one
// those that took it stand at the end.
func TestSlowUnitsHoldUpNobodyElse(t *testing.T) {
	k := newMemoryKernel()
	h, err := open(Options{Root: fastDir(t), CallTime: 100 * time.Millisecond}, k, slowCompiler{})
	must(t, err)
	slow, good := unit(profile.Owner{Namespace: "shop", Name: "slow"}, profiletest.First), unit(profile.Owner{Namespace: "shop", Name: "web"}, profiletest.First)
	for round, want := range []bool{false, true} {
		began := time.Now()
		got := h.Install(t.Context(), []profile.Unit{slow, good})
		if got[0].Err == nil || (got[1].Err == nil) != want {
			t.Errorf("round %d: %+v", round, got)
		}
		if spent := time.Since(began); spent > 20*time.Second {
			t.Errorf("round %d took %s", round, spent)
		}
	}
}

// TestUnitsAreBoundedAsAWhole: each file may be small enough, and all of them are not.
func TestUnitsAreBoundedAsAWhole(t *testing.T) {
	k := newMemoryKernel()
	h, err := open(Options{Root: fastDir(t)}, k, bulky{})
	must(t, err)
	got := h.Install(t.Context(), []profile.Unit{unit(profile.Owner{Namespace: "shop", Name: "web"}, profiletest.First)})[0]
	if !errors.Is(got.Err, reason.ProfileInvalid) || len(k.profiles) > 0 {
		t.Errorf("%+v, %d loaded", got, len(k.profiles))
	}
}

type bulky struct{ memoryCompiler }

func (bulky) compile(_ context.Context, f profile.File) ([]byte, error) {
	parsed, err := (memoryCompiler{}).compile(context.Background(), f)
	if err != nil {
		return nil, err
	}
	profiles, err := readCompiled(parsed)
	if err != nil {
		return nil, err
	}
	var policy []byte
	for _, c := range profiles {
		policy = append(policy, binaryOf(c.name, make([]byte, maxCompiled*2/5))...)
	}
	return policy, nil
}

// TestLongAttributesAreNotCut: a label that is cut would hide what a process is under.
func TestLongAttributesAreNotCut(t *testing.T) {
	task := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(task, "attr"), 0o755))
	label := strings.Repeat("x", maxAttribute) + "//&confine.shop.web.web (enforce)\n"
	must(t, os.WriteFile(filepath.Join(task, "attr/current"), []byte(label), 0o600))
	if got, err := labelOf(task); !errors.Is(err, errLong) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestRemovingNothingFinishesWhatWasBegun as a purge does that finds nobody with
// something in force.
func TestRemovingNothingFinishesWhatWasBegun(t *testing.T) {
	k, root := newMemoryKernel(), fastDir(t)
	died := errors.New("died")
	loaded := false
	h, err := open(Options{Root: root, Before: func(s durable.Step) error {
		if loaded {
			return died
		}
		loaded = s.Op == OpLoad
		return nil
	}}, k, memoryCompiler{})
	must(t, err)
	if got := h.Install(t.Context(), []profile.Unit{unit(profile.Owner{Namespace: "shop", Name: "web"}, profiletest.First)})[0]; !errors.Is(got.Err, died) || len(k.profiles) == 0 {
		t.Fatalf("%+v, %d loaded", got, len(k.profiles))
	}
	again, err := open(Options{Root: root}, k, memoryCompiler{})
	must(t, err)
	foreign, err := again.Foreign(t.Context())
	must(t, err)
	if len(foreign) != 1 {
		t.Errorf("nothing speaks for what is loaded: %q", foreign)
	}
	again.Remove(t.Context(), nil)
	foreign, err = again.Foreign(t.Context())
	must(t, err)
	if len(foreign)+len(k.profiles) > 0 {
		t.Errorf("left: %q, %v", foreign, k.profiles)
	}
}

// TestSlowTextsAreNotTriedAllTheTime: nothing else is installed while one is compiled.
func TestSlowTextsAreNotTriedAllTheTime(t *testing.T) {
	p := stand(t, "exec sleep 1000")
	p.time = 200 * time.Millisecond
	_, err := p.compile(t.Context(), profile.File{Name: "web.aa", Data: []byte("profile x {}\n")})
	if e, ok := reason.Of(err); !ok || e.RetryAfter != slowAgain {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = p.compile(ctx, profile.File{Name: "web.aa", Data: []byte("profile x {}\n")})
	if e, ok := reason.Of(err); !ok || e.RetryAfter != 0 {
		t.Errorf("its call was over: %v", err)
	}
}

// TestLongNamesDoNotReachTheKernel: with one Linux 6.1 loads no other profile
// until the next boot.
func TestLongNamesDoNotReachTheKernel(t *testing.T) {
	for length, fine := range map[int]bool{maxName: true, maxName + 1: false, 253: false} {
		k := newMemoryKernel()
		h, err := open(Options{Root: fastDir(t)}, k, memoryCompiler{})
		must(t, err)
		name := "confine.shop." + strings.Repeat("a", length-len("confine.shop."))
		u := unit(profile.Owner{Namespace: "shop", Name: "web"}, profiletest.Fewer)
		u.Files[0].Data = []byte("profile " + name + " {\n  file,\n}\n")
		if got := h.Install(t.Context(), []profile.Unit{u})[0]; fine != (got.Err == nil) || !fine && (!errors.Is(got.Err, reason.ProfileInvalid) || len(k.profiles) > 0) {
			t.Errorf("%d bytes: %+v, %d loaded", length, got, len(k.profiles))
		}
	}
}
