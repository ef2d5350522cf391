package plan_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/node/intent"
	"github.com/confine-dev/confine/pkg/node/journal"
	"github.com/confine-dev/confine/pkg/node/plan"
	"github.com/confine-dev/confine/pkg/node/unit"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

var (
	epoch     = time.Unix(1e9, 0).UTC()
	errNoHost = errors.New("no host")
	errOld    = errors.New("the kernel is too old")
)

func source(s string) unit.Source {
	return unit.Source{Repository: reference.Repository{Host: "registry.example.com", Path: "web"}, Digest: digest.FromString(s)}
}

func files(names string) []unit.File {
	var found []unit.File
	for name := range strings.FieldsSeq(names) {
		found = append(found, unit.File{Name: name, Digest: digest.FromString(name)})
	}
	return found
}

func owner(name string) profile.Owner { return profile.Owner{Namespace: "web", Name: name} }

// slot is installed from a source with files.
func slot(kind, name, from, names string) journal.Slot {
	return journal.Slot{
		Key:     journal.Key{Kind: kind, Owner: owner(name)},
		Current: &unit.Revision{Source: source(from), Files: files(names)},
	}
}

func (w world) with(change func(*plan.Input)) plan.Input {
	in := w.in()
	change(&in)
	return in
}

type world struct{}

func (world) in() plan.Input {
	return plan.Input{
		Now: epoch, Delay: time.Hour, Complete: true,
		Hosts:  map[string]error{"alpha": nil, "beta": nil},
		NoHost: func(string) error { return errNoHost },
		Wanted: map[profile.Owner]*plan.Target{},
	}
}

func render(p plan.Plan) []string {
	var lines []string
	for _, a := range p.Actions {
		line := fmt.Sprintf("%s %s", a.Verb, a.Key)
		if a.Verb == plan.Install {
			line += " +" + fmt.Sprint(len(a.Revision.Files), len(a.Revision.Retained))
		}
		if !a.Due.IsZero() {
			line += " in " + a.Due.Sub(epoch).String()
		}
		lines = append(lines, line)
	}
	for o, kinds := range p.Unsupported {
		for kind, err := range kinds {
			lines = append(lines, fmt.Sprintf("unsupported %s %s: %v", kind, o, err))
		}
	}
	slices.Sort(lines)
	return lines
}

func TestMake(t *testing.T) {
	target := func(from string, kinds map[string]string) *plan.Target {
		tg := &plan.Target{Source: source(from), Files: map[string][]unit.File{}}
		for kind, names := range kinds {
			tg.Files[kind] = files(names)
		}
		return tg
	}
	removing := func(s journal.Slot, in time.Duration) journal.Slot { s.RemoveAt = epoch.Add(in); return s }
	for name, c := range map[string]struct {
		change func(in *plan.Input)
		want   []string
	}{
		"nothing": {func(*plan.Input) {}, nil},
		"first install": {func(in *plan.Input) {
			in.Wanted[owner("a")] = target("one", map[string]string{"alpha": "x", "beta": "y z"})
		}, []string{"install alpha web/a +1 0", "install beta web/a +2 0"}},
		"in force": {func(in *plan.Input) {
			in.Wanted[owner("a")] = target("one", map[string]string{"alpha": "x"})
			in.Slots = []journal.Slot{removing(slot("alpha", "a", "one", "x"), -time.Hour)}
		}, []string{"keep alpha web/a"}},
		"update that drops a file": {func(in *plan.Input) {
			in.Wanted[owner("a")] = target("two", map[string]string{"alpha": "x"})
			in.Slots = []journal.Slot{slot("alpha", "a", "one", "x y")}
		}, []string{"install alpha web/a +1 1"}},
		"not known which is in force": {func(in *plan.Input) {
			in.Wanted[owner("a")] = target("two", map[string]string{"alpha": "x"})
			s := slot("alpha", "a", "one", "x")
			s.Next = &unit.Revision{Source: source("two"), Files: files("x")}
			in.Slots = []journal.Slot{s}
		}, []string{"keep alpha web/a"}},
		"a dropped kind stays until the rest is in force": {func(in *plan.Input) {
			in.Wanted[owner("a")] = target("two", map[string]string{"alpha": "x"})
			in.Slots = []journal.Slot{slot("alpha", "a", "one", "x"), slot("beta", "a", "one", "y")}
		}, []string{"install alpha web/a +1 0", "keep beta web/a"}},
		"then it waits": {func(in *plan.Input) {
			in.Wanted[owner("a")] = target("two", map[string]string{"alpha": "x"})
			in.Slots = []journal.Slot{slot("alpha", "a", "two", "x"), slot("beta", "a", "one", "y")}
		}, []string{"keep alpha web/a", "remove-later beta web/a in 1h0m0s"}},
		"wanted and not verified": {func(in *plan.Input) {
			in.Wanted[owner("a")] = nil
			in.Slots = []journal.Slot{removing(slot("alpha", "a", "one", "x"), -time.Hour)}
		}, []string{"keep alpha web/a"}},
		"nobody wants it": {func(in *plan.Input) {
			in.Slots = []journal.Slot{slot("alpha", "a", "one", "x")}
		}, []string{"remove-later alpha web/a in 1h0m0s"}},
		"it waits": {func(in *plan.Input) {
			in.Slots = []journal.Slot{removing(slot("alpha", "a", "one", "x"), time.Second)}
		}, []string{"remove-later alpha web/a in 1s"}},
		"it is due": {func(in *plan.Input) {
			in.Slots = []journal.Slot{removing(slot("alpha", "a", "one", "x"), 0)}
		}, []string{"remove-now alpha web/a"}},
		"due, but not all could be read": {func(in *plan.Input) {
			in.Complete = false
			in.Slots = []journal.Slot{removing(slot("alpha", "a", "one", "x"), -time.Hour), slot("alpha", "b", "one", "x")}
		}, []string{"remove-later alpha web/a in -1h0m0s", "remove-later alpha web/b"}},
		"due and not released": {func(in *plan.Input) {
			in.Released = func(journal.Key, time.Time) bool { return false }
			in.Slots = []journal.Slot{removing(slot("alpha", "a", "one", "x"), -time.Hour)}
		}, []string{"remove-later alpha web/a in -1h0m0s"}},
		"released at another time": {func(in *plan.Input) {
			in.Released = func(_ journal.Key, due time.Time) bool { return !due.Equal(epoch) }
			in.Slots = []journal.Slot{removing(slot("alpha", "a", "one", "x"), 0)}
		}, []string{"remove-later alpha web/a in 0s"}},
		"another one is released": {func(in *plan.Input) {
			in.Released = func(key journal.Key, _ time.Time) bool { return key.Owner == owner("b") }
			in.Slots = []journal.Slot{removing(slot("alpha", "a", "one", "x"), 0), removing(slot("alpha", "b", "one", "x"), 0)}
		}, []string{"remove-later alpha web/a in 0s", "remove-now alpha web/b"}},
		"released and not due": {func(in *plan.Input) {
			in.Released = func(journal.Key, time.Time) bool { return true }
			in.Slots = []journal.Slot{removing(slot("alpha", "a", "one", "x"), time.Second)}
		}, []string{"remove-later alpha web/a in 1s"}},
		"released, but not all could be read": {func(in *plan.Input) {
			in.Complete = false
			in.Released = func(journal.Key, time.Time) bool { return true }
			in.Slots = []journal.Slot{removing(slot("alpha", "a", "one", "x"), -time.Hour)}
		}, []string{"remove-later alpha web/a in -1h0m0s"}},
		"released before it was unwanted": {func(in *plan.Input) {
			in.Released = func(_ journal.Key, due time.Time) bool { return due.Equal(epoch.Add(time.Hour)) }
			in.Slots = []journal.Slot{slot("alpha", "a", "one", "x")}
		}, []string{"remove-later alpha web/a in 1h0m1s"}},
		"the clock was set back": {func(in *plan.Input) {
			in.Slots = []journal.Slot{removing(slot("alpha", "a", "one", "x"), 1000*time.Hour)}
		}, []string{"remove-later alpha web/a in 1h0m0s"}},
		"supported kinds only": {func(in *plan.Input) {
			in.Hosts["beta"] = errOld
			in.Wanted[owner("a")] = target("one", map[string]string{"alpha": "x", "beta": "y", "gamma": "z"})
			in.Slots = []journal.Slot{slot("beta", "a", "zero", "y")}
		}, []string{
			"install alpha web/a +1 0", "keep beta web/a",
			"unsupported beta web/a: the kernel is too old", "unsupported gamma web/a: no host",
		}},
		"all kinds or none": {func(in *plan.Input) {
			in.Hosts["beta"] = errOld
			in.Wanted[owner("a")] = target("two", map[string]string{"alpha": "x", "beta": "y"})
			in.Wanted[owner("a")].RequireAll = true
			in.Slots = []journal.Slot{slot("alpha", "a", "one", "x")}
		}, []string{"keep alpha web/a", "unsupported beta web/a: the kernel is too old"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, render(plan.Make(world{}.with(c.change)))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestResolve(t *testing.T) {
	claim := func(origin, wants string, created int, uid string) intent.Profile {
		p := intent.Profile{Owner: owner("a"), Origin: origin, UID: uid}
		p.Artifact = reference.Reference{Repository: source("").Repository, Digest: digest.FromString(wants)}
		if created > 0 {
			p.Created = epoch.Add(time.Duration(created) * time.Second)
		}
		return p
	}
	for name, c := range map[string]struct {
		profiles  []intent.Profile
		holding   []journal.Claim
		held      string
		conflicts string
	}{
		"one":                              {profiles: []intent.Profile{claim("a", "x", 0, "")}, held: "a"},
		"the same bytes are shared":        {profiles: []intent.Profile{claim("b", "x", 0, ""), claim("a", "x", 0, "")}, held: "a b"},
		"other bytes conflict":             {profiles: []intent.Profile{claim("b", "y", 0, ""), claim("a", "x", 0, "")}, held: "a", conflicts: "b"},
		"the oldest has it":                {profiles: []intent.Profile{claim("a", "x", 2, ""), claim("b", "y", 1, "")}, held: "b", conflicts: "a"},
		"then who has it already":          {profiles: []intent.Profile{claim("a", "x", 0, ""), claim("b", "y", 0, "")}, holding: []journal.Claim{{Origin: "b"}}, held: "b", conflicts: "a"},
		"an older one takes it":            {profiles: []intent.Profile{claim("a", "x", 1, ""), claim("b", "y", 2, "")}, holding: []journal.Claim{{Origin: "b"}}, held: "a", conflicts: "b"},
		"then the UID":                     {profiles: []intent.Profile{claim("a", "x", 1, "2"), claim("b", "y", 1, "1")}, held: "b", conflicts: "a"},
		"who shared it is next":            {profiles: []intent.Profile{claim("a", "y", 0, ""), claim("z", "x", 0, "")}, holding: []journal.Claim{{Origin: "m"}, {Origin: "z"}}, held: "z", conflicts: "a"},
		"a new UID is another object":      {profiles: []intent.Profile{claim("a", "x", 1, "1"), claim("b", "y", 1, "3")}, holding: []journal.Claim{{Origin: "b", UID: "2"}}, held: "a", conflicts: "b"},
		"three, two of which are the same": {profiles: []intent.Profile{claim("c", "x", 3, ""), claim("b", "y", 2, ""), claim("a", "x", 1, "")}, held: "a c", conflicts: "b"},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // whatever the order they are read in
				got := plan.Resolve(c.profiles, func(profile.Owner) []journal.Claim { return c.holding })
				held, conflicts := origins(got.Held[owner("a")]), ""
				for _, conflict := range got.Conflicts {
					conflicts = strings.TrimSpace(conflicts + " " + conflict.Profile.Origin)
					holder := got.Held[owner("a")][0]
					if !errors.Is(conflict.Err, reason.NameConflict) || !strings.Contains(conflict.Err.Detail, holder.Origin) {
						t.Errorf("%v does not name the holder", conflict.Err)
					}
				}
				if held != c.held || conflicts != c.conflicts {
					t.Errorf("held %q, conflicts %q; want %q and %q", held, conflicts, c.held, c.conflicts)
				}
				slices.Reverse(c.profiles)
			}
		})
	}
}

func origins(profiles []intent.Profile) string {
	var names []string
	for _, p := range profiles {
		names = append(names, p.Origin)
	}
	return strings.Join(names, " ")
}

// TestNothingGoesWithoutItsRelease makes random plans, and lets no slot and no
// dropped file go that is not due, not released, or not known to be unwanted.
func TestNothingGoesWithoutItsRelease(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	removed := 0
	for range 20_000 {
		in := world{}.in()
		in.Complete = random.IntN(4) > 0
		released := map[time.Time]bool{}
		for range random.IntN(3) {
			released[epoch.Add(time.Duration(random.IntN(7)-3)*time.Second)] = true
		}
		in.Released = func(_ journal.Key, due time.Time) bool { return released[due] }
		for _, name := range []string{"a", "b"} {
			s := slot("alpha", name, "one", "x y")
			if random.IntN(2) == 0 {
				s.RemoveAt = epoch.Add(time.Duration(random.IntN(7)-3) * time.Second)
			}
			s.Current.Retained = []unit.Retained{{File: files("z")[0], From: source("zero"), Due: epoch.Add(time.Duration(random.IntN(7)-3) * time.Second)}}
			in.Slots = append(in.Slots, s)
		}
		if random.IntN(2) == 0 {
			in.Wanted[owner("a")] = &plan.Target{Source: source("two"), Files: map[string][]unit.File{"alpha": files("x")}}
		}
		may := func(due time.Time) bool { return in.Complete && released[due] && !due.After(in.Now) }
		for _, action := range plan.Make(in).Actions {
			i := slices.IndexFunc(in.Slots, func(s journal.Slot) bool { return s.Key == action.Key })
			before := in.Slots[i]
			switch action.Verb {
			case plan.RemoveNow:
				removed++
				if _, wanted := in.Wanted[action.Key.Owner]; wanted || !may(before.RemoveAt) {
					t.Fatalf("%s goes, due %v, released %v, complete %v", action.Key, before.RemoveAt, released, in.Complete)
				}
			case plan.Install:
				left := map[string]bool{}
				for _, kept := range action.Revision.Retained {
					left[kept.Name] = true
				}
				if !left["y"] || !left["z"] && !may(before.Current.Retained[0].Due) {
					t.Fatalf("a dropped file goes: %+v of %+v, released %v", action.Revision, before.Current, released)
				}
			case plan.Keep, plan.RemoveLater:
			}
		}
	}
	if removed == 0 {
		t.Error("nothing was ever removed: this test could not fail")
	}
}
