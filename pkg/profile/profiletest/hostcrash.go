package profiletest

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile"
)

// maxSteps bounds the crash loop, for a Host whose steps never end.
const maxSteps = 10_000

var errCrash = errors.New("the process died here")

// crashScenario is one call that is killed before each of its steps.
type crashScenario struct {
	setup []profile.Unit
	// damage is a drift of the case, done to the first owner after setup.
	damage string
	// act is the call; wanted repeats it after the crash and must converge.
	act    func(t *testing.T, h profile.Host) []profile.Outcome
	wanted []profile.Unit // in force in the end
	// either holds what may be in force for an owner in between.
	either map[profile.Owner][]profile.Unit
}

func (s *hostSuite) crash(t *testing.T) {
	web, api := owner("shop", "web"), owner("store", "api")
	w1, w2, wf, a1 := s.unit(web, First), s.unit(web, Second), s.unit(web, Fewer), s.unit(api, First)
	installs := func(units ...profile.Unit) func(*testing.T, profile.Host) []profile.Outcome {
		return func(t *testing.T, h profile.Host) []profile.Outcome {
			t.Helper()
			return h.Install(t.Context(), units)
		}
	}
	absent := profile.Unit{}
	scenarios := map[string]crashScenario{
		"first install": {
			act: installs(w1), wanted: []profile.Unit{w1},
			either: map[profile.Owner][]profile.Unit{web: {absent, w1}}},
		"two at once": {
			act: installs(w2, a1), wanted: []profile.Unit{w2, a1},
			either: map[profile.Owner][]profile.Unit{web: {absent, w2}, api: {absent, a1}}},
		"update": {
			setup: []profile.Unit{w1, a1}, act: installs(w2), wanted: []profile.Unit{w2, a1},
			either: map[profile.Owner][]profile.Unit{web: {w1, w2}, api: {a1}}},
		"update that drops a file": {
			setup: []profile.Unit{w1}, act: installs(wf), wanted: []profile.Unit{wf},
			either: map[profile.Owner][]profile.Unit{web: {w1, wf}}},
		"remove": {
			setup: []profile.Unit{w2, a1}, wanted: []profile.Unit{a1},
			act: func(t *testing.T, h profile.Host) []profile.Outcome {
				t.Helper()
				return h.Remove(t.Context(), []profile.Owner{web})
			},
			either: map[profile.Owner][]profile.Unit{web: {absent, w2}, api: {a1}}},
	}
	for _, drift := range slices.Sorted(maps.Keys(s.machine.Drift)) {
		if s.FewerCrashes {
			break
		}
		scenarios["repair of "+drift] = crashScenario{
			setup: []profile.Unit{w1, a1}, damage: drift, act: installs(w1, a1), wanted: []profile.Unit{w1, a1}}
	}
	for name, sc := range scenarios {
		t.Run(name, func(t *testing.T) { s.crashEverywhere(t, sc) })
	}
}

// crashEverywhere runs the scenario once for each step of its call, each time
// on a fresh machine, and lets the call die before that step.
func (s *hostSuite) crashEverywhere(t *testing.T, sc crashScenario) {
	t.Helper()
	want := s.reference(t, sc.wanted...)
	at := 0
	for ; at < maxSteps; at++ {
		fresh := &hostSuite{HostCase: s.HostCase, machine: s.Machine(t)}
		fresh.prepare(t, sc)
		steps, died := 0, false
		h := fresh.open(t, func() error {
			if steps++; steps > at {
				died = true
				return errCrash
			}
			return nil
		})
		got := sc.act(t, h)
		if !died {
			break
		}
		for _, o := range got { // collecting garbage may fail in silence
			if o.Err != nil && !errors.Is(o.Err, errCrash) {
				t.Errorf("step %d: %v", at, o.Err)
			}
		}
		again := fresh.open(t, nil)
		wantEither(t, list(t, again), sc.either, at)
		for _, o := range sc.act(t, again) {
			if o.Err != nil {
				t.Errorf("step %d: again: %v", at, o.Err)
			}
		}
		wantInForce(t, again, sc.wanted...)
		fresh.wantState(t, want, "after a crash and the call again")
		if t.Failed() {
			t.Fatalf("crashed before step %d", at)
		}
	}
	if at == 0 || at == maxSteps {
		t.Errorf("the call announced %d steps: before is not called where something changes", at)
	}
}

func (s *hostSuite) prepare(t *testing.T, sc crashScenario) {
	t.Helper()
	h := s.open(t, nil)
	if len(sc.setup) > 0 {
		install(t, h, true, sc.setup...)
	}
	if sc.damage != "" {
		if err := s.machine.Drift[sc.damage](list(t, h)[0]); err != nil {
			t.Fatalf("damage: %v", err)
		}
	}
}

// wantEither checks that each owner has one of its units whole: the digest and
// as many references as that unit has files.
func wantEither(t *testing.T, in []profile.Installed, either map[profile.Owner][]profile.Unit, at int) {
	t.Helper()
	type whole struct {
		Digest string
		Files  int
	}
	for o, units := range either {
		got := whole{}
		if i := slices.IndexFunc(in, func(i profile.Installed) bool { return i.Owner == o }); i >= 0 {
			got = whole{in[i].Digest.String(), len(in[i].References)}
		}
		allowed := make([]whole, 0, len(units))
		for _, u := range units {
			allowed = append(allowed, whole{u.Digest.String(), len(u.Files)})
		}
		if !slices.Contains(allowed, got) {
			t.Errorf("step %d: %s has %v in force, want one of:\n%s", at, o, got, cmp.Diff(nil, allowed))
		}
	}
}
