package profiletest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// Variant chooses one of the sets of files a HostCase provides.
type Variant string

// The variants. Each is an artifact of its own, with a digest of its own.
const (
	First  Variant = "first"  // at least two files
	Second Variant = "second" // the same file names, each with other bytes
	Fewer  Variant = "fewer"  // First without one of its files
)

// HostCase is what RunHost needs to know about one implementation.
type HostCase struct {
	// Machine returns a fresh machine on which nothing is installed.
	Machine func(t *testing.T) Machine
	// Files returns valid payloads of the kind. They may not depend on an owner.
	Files func(v Variant) []profile.File
	// FilesFor stands in for Files where what is in a payload has a name that
	// only one owner can have on a machine: names of two owners differ, those of
	// one owner's variants do not.
	FilesFor func(o profile.Owner, v Variant) []profile.File
	// FewerCrashes leaves out the crashes in the middle of a repair. It is for a
	// slow machine, beside one in memory that runs them all.
	FewerCrashes bool
}

// Machine is what survives the end of a process: disk and kernel.
type Machine struct {
	// Open starts a Host on the machine, as a process does. before, if not
	// nil, is called before every change; its error means that the process
	// died there, and must stop the Host from changing anything.
	Open func(before func() error) (profile.Host, error)
	// Unsupported starts a Host on the same machine without kernel support.
	Unsupported func() (profile.Host, error)
	// State is everything the Host may change, by name, for comparison.
	State func() (map[string]string, error)
	// Drift damages a unit in force, by what the damage is. At least one.
	Drift map[string]func(in profile.Installed) error
}

// RunHost is the suite that every profile.Host passes.
func RunHost(t *testing.T, c HostCase) {
	t.Helper()
	for name, run := range map[string]func(s *hostSuite, t *testing.T){
		"an empty machine":              (*hostSuite).empty,
		"install, and install again":    (*hostSuite).installTwice,
		"update":                        (*hostSuite).update,
		"update that drops a file":      (*hostSuite).updateDropsFile,
		"remove, and remove again":      (*hostSuite).removeTwice,
		"list is sorted":                (*hostSuite).sorted,
		"two owners of one digest":      (*hostSuite).sharedDigest,
		"one digest with other bytes":   (*hostSuite).sharedDigestOtherBytes,
		"drift is repaired":             (*hostSuite).drift,
		"crash between any two steps":   (*hostSuite).crash,
		"bad units are refused":         (*hostSuite).badUnits,
		"a bad unit stops no good one":  (*hostSuite).badBesideGood,
		"an unsupported host":           (*hostSuite).unsupported,
		"an ended context":              (*hostSuite).cancelled,
		"what is listed can be removed": (*hostSuite).removeListed,
	} {
		t.Run(name, func(t *testing.T) { run(&hostSuite{HostCase: c, machine: c.Machine(t)}, t) })
	}
}

type hostSuite struct {
	HostCase
	machine Machine
}

func owner(namespace, name string) profile.Owner {
	return profile.Owner{Namespace: namespace, Name: name}
}

// unit is one variant for one owner. The digest only has to differ between
// variants: a Host trusts its caller to have verified it.
func (s *hostSuite) unit(o profile.Owner, v Variant) profile.Unit {
	if s.FilesFor != nil {
		return profile.Unit{Owner: o, Digest: digest.FromString(string(v) + o.String()), Files: s.FilesFor(o, v)}
	}
	return profile.Unit{Owner: o, Digest: digest.FromString(string(v)), Files: s.Files(v)}
}

// shared is what u is, for another owner.
func shared(u profile.Unit, o profile.Owner) profile.Unit {
	u.Owner = o
	return u
}

func (s *hostSuite) open(t *testing.T, before func() error) profile.Host {
	t.Helper()
	h, err := s.machine.Open(before)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return h
}

func (s *hostSuite) state(t *testing.T) map[string]string {
	t.Helper()
	state, err := s.machine.State()
	if err != nil {
		t.Fatalf("state: %v", err)
	}
	return state
}

func (s *hostSuite) wantState(t *testing.T, want map[string]string, when string) {
	t.Helper()
	if diff := cmp.Diff(want, s.state(t), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s: the machine differs (-want +got):\n%s", when, diff)
	}
}

func list(t *testing.T, h profile.Host) []profile.Installed {
	t.Helper()
	in, err := h.Installed(t.Context())
	if err != nil {
		t.Fatalf("Installed: %v", err)
	}
	return in
}

// digests renders what is in force as owner to digest.
func digests(in []profile.Installed) map[string]string {
	found := map[string]string{}
	for _, i := range in {
		found[i.Owner.String()] = i.Digest.String()
	}
	return found
}

func wantInForce(t *testing.T, h profile.Host, units ...profile.Unit) {
	t.Helper()
	want := map[string]string{}
	for _, u := range units {
		want[u.Owner.String()] = u.Digest.String()
	}
	in := list(t, h)
	if diff := cmp.Diff(want, digests(in), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("in force (-want +got):\n%s", diff)
	}
	for _, i := range in {
		for _, u := range units {
			if u.Owner == i.Owner && len(u.Files) > len(i.References) {
				t.Errorf("%s: %d references for %d files", u.Owner, len(i.References), len(u.Files))
			}
		}
		if len(slices.Compact(slices.Sorted(slices.Values(i.References)))) != len(i.References) {
			t.Errorf("%s: two files have one reference: %q", i.Owner, i.References)
		}
		wantReferencesByFile(t, i, units)
	}
}

// install expects every unit to succeed, and to report changed.
func install(t *testing.T, h profile.Host, changed bool, units ...profile.Unit) {
	t.Helper()
	wantOutcomes(t, h.Install(t.Context(), units), len(units), changed)
}

func remove(t *testing.T, h profile.Host, changed bool, owners ...profile.Owner) {
	t.Helper()
	wantOutcomes(t, h.Remove(t.Context(), owners), len(owners), changed)
}

func wantOutcomes(t *testing.T, got []profile.Outcome, n int, changed bool) {
	t.Helper()
	if len(got) != n {
		t.Fatalf("%d outcomes for %d requests", len(got), n)
	}
	for i, o := range got {
		if o.Err != nil {
			t.Errorf("outcome %d: %v", i, o.Err)
		} else if o.Changed != changed {
			t.Errorf("outcome %d: changed = %v, want %v", i, o.Changed, changed)
		}
	}
}

// wantRefused expects a reason.Error of one of the given reasons, with advice.
func wantRefused(t *testing.T, err error, want ...reason.Reason) {
	t.Helper()
	got, ok := reason.Of(err)
	if !ok || !slices.Contains(want, got.Reason) {
		t.Errorf("error %v, want one of %v", err, want)
		return
	}
	if got.Object == "" || got.Detail == "" || got.WhatToDo() == "" {
		t.Errorf("error %v lacks object, detail or advice", err)
	}
}

func (s *hostSuite) empty(t *testing.T) {
	h := s.open(t, nil)
	if h.Kind() == "" || strings.ToLower(h.Kind()) != h.Kind() {
		t.Errorf("Kind = %q", h.Kind())
	}
	if err := h.Supported(t.Context()); err != nil {
		t.Errorf("Supported: %v", err)
	}
	before := s.state(t)
	wantInForce(t, h)
	remove(t, h, false, owner("shop", "web"))
	wantOutcomes(t, h.Install(t.Context(), nil), 0, false)
	s.wantState(t, before, "after reading and removing nothing")
}

func (s *hostSuite) installTwice(t *testing.T) {
	u := s.unit(owner("shop", "web.v1"), First)
	h := s.open(t, nil)
	install(t, h, true, u)
	wantInForce(t, h, u)
	after := s.state(t)
	if len(after) == 0 {
		t.Fatal("the machine's State shows nothing after an install: the suite could not fail")
	}
	install(t, h, false, u)
	again := s.open(t, nil)
	install(t, again, false, u)
	wantInForce(t, again, u)
	s.wantState(t, after, "after installing again")
}

func (s *hostSuite) update(t *testing.T) {
	o := owner("shop", "web")
	h := s.open(t, nil)
	install(t, h, true, s.unit(o, First))
	refs := list(t, h)[0].References
	first := s.state(t)
	install(t, h, true, s.unit(o, Second))
	wantInForce(t, h, s.unit(o, Second))
	if diff := cmp.Diff(refs, list(t, h)[0].References); diff != "" {
		t.Errorf("an update changed how workloads name the files:\n%s", diff)
	}
	install(t, h, true, s.unit(o, First))
	s.wantState(t, first, "after going back")
}

func (s *hostSuite) updateDropsFile(t *testing.T) {
	o := owner("shop", "web")
	h := s.open(t, nil)
	install(t, h, true, s.unit(o, First))
	with := list(t, h)[0].References
	install(t, h, true, s.unit(o, Fewer))
	without := list(t, h)[0].References
	if len(without) != len(with)-1 {
		t.Errorf("references %q after dropping one of %q", without, with)
	}
	s.wantState(t, s.reference(t, s.unit(o, Fewer)), "after the update")
}

// reference is the state of another fresh machine with these units installed.
func (s *hostSuite) reference(t *testing.T, units ...profile.Unit) map[string]string {
	t.Helper()
	fresh := &hostSuite{HostCase: s.HostCase, machine: s.Machine(t)}
	install(t, fresh.open(t, nil), true, units...)
	return fresh.state(t)
}

func (s *hostSuite) removeTwice(t *testing.T) {
	web, db := s.unit(owner("shop", "web"), First), s.unit(owner("store", "db"), Second)
	h := s.open(t, nil)
	install(t, h, true, web, db)
	remove(t, h, true, web.Owner)
	wantInForce(t, h, db)
	remove(t, h, false, web.Owner)
	s.wantState(t, s.reference(t, db), "after one of two was removed")
	remove(t, s.open(t, nil), true, db.Owner)
	wantInForce(t, h)
	install(t, h, true, web, db)
	wantInForce(t, h, web, db)
}

func (s *hostSuite) sorted(t *testing.T) {
	h := s.open(t, nil)
	owners := []profile.Owner{
		owner("b", "a"), owner("a-b", "x"), owner("a", "z"), owner("a", "b"), owner("a", "b-c"), owner("c", "a"), owner("a", "b.c"),
	}
	for _, o := range owners {
		install(t, h, true, s.unit(o, First))
	}
	var got []profile.Owner
	for _, i := range list(t, h) {
		got = append(got, i.Owner)
		if !slices.IsSorted(i.References) {
			t.Errorf("%s: references are not sorted: %q", i.Owner, i.References)
		}
	}
	slices.SortFunc(owners, func(a, b profile.Owner) int {
		if n := strings.Compare(a.Namespace, b.Namespace); n != 0 {
			return n
		}
		return strings.Compare(a.Name, b.Name)
	})
	if diff := cmp.Diff(owners, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func (s *hostSuite) sharedDigest(t *testing.T) {
	web := s.unit(owner("shop", "web"), First)
	api := shared(web, owner("store", "api"))
	h := s.open(t, nil)
	install(t, h, true, web)
	install(t, h, true, api)
	wantInForce(t, h, web, api)
	remove(t, h, true, web.Owner)
	wantInForce(t, h, api)
	s.wantState(t, s.reference(t, api), "after one of two owners left")
	install(t, h, false, api)
	update := s.unit(api.Owner, Second)
	install(t, h, true, web, update)
	wantInForce(t, h, web, update)
}

func (s *hostSuite) sharedDigestOtherBytes(t *testing.T) {
	web := s.unit(owner("shop", "web"), First)
	api := shared(web, owner("store", "api"))
	api.Files = s.unit(api.Owner, Second).Files
	h := s.open(t, nil)
	install(t, h, true, web)
	before := s.state(t)
	got := h.Install(t.Context(), []profile.Unit{api})
	wantRefused(t, got[0].Err, reason.InstallFailed)
	s.wantState(t, before, "after the second owner was refused")
	together := h.Install(t.Context(), []profile.Unit{web, api})
	wantOutcomes(t, together[:1], 1, false)
	wantRefused(t, together[1].Err, reason.InstallFailed)
	s.wantState(t, before, "after both came together")
}

func (s *hostSuite) drift(t *testing.T) {
	if len(s.machine.Drift) == 0 {
		t.Fatal("the case names no drift")
	}
	for _, name := range slices.Sorted(maps.Keys(s.machine.Drift)) {
		t.Run(name, func(t *testing.T) {
			fresh := &hostSuite{HostCase: s.HostCase, machine: s.Machine(t)}
			web, api := fresh.unit(owner("shop", "web"), First), fresh.unit(owner("store", "api"), Second)
			h := fresh.open(t, nil)
			install(t, h, true, web, api)
			want := fresh.state(t)
			if err := fresh.machine.Drift[name](list(t, h)[0]); err != nil {
				t.Fatalf("damage: %v", err)
			}
			if cmp.Equal(want, fresh.state(t)) {
				t.Fatal("the damage does not show in State: the suite could not fail")
			}
			install(t, h, true, web)
			install(t, h, false, web, api)
			fresh.wantState(t, want, "after the repair")
		})
	}
}

func (s *hostSuite) removeListed(t *testing.T) {
	h := s.open(t, nil)
	install(t, h, true, s.unit(owner("shop", "web"), First), s.unit(owner("shop", "api"), Second))
	var owners []profile.Owner
	for _, i := range list(t, s.open(t, nil)) {
		owners = append(owners, i.Owner)
	}
	if len(owners) != 2 {
		t.Fatalf("listed %v", owners)
	}
	remove(t, h, true, owners...)
	wantInForce(t, h)
}

func (s *hostSuite) badUnits(t *testing.T) {
	h := s.open(t, nil)
	before := s.state(t)
	good := s.unit(owner("shop", "web"), First)
	for name, o := range badOwners() {
		t.Run(name, func(t *testing.T) {
			got := h.Install(t.Context(), []profile.Unit{s.unit(o, First)})
			wantRefused(t, got[0].Err, reason.ProfileInvalid)
			wantRefused(t, h.Remove(t.Context(), []profile.Owner{o})[0].Err, reason.ProfileInvalid)
		})
	}
	for name, spoil := range badUnits() {
		t.Run(name, func(t *testing.T) {
			u := good
			u.Files = slices.Clone(good.Files)
			spoil(&u)
			wantRefused(t, h.Install(t.Context(), []profile.Unit{u})[0].Err, reason.ProfileInvalid)
		})
	}
	s.wantState(t, before, "after refusals")
}

func badOwners() map[string]profile.Owner {
	return map[string]profile.Owner{
		"no namespace": owner("", "web"), "no name": owner("shop", ""), "climbing namespace": owner("..", "web"),
		"climbing name": owner("shop", ".."), "self": owner("shop", "."), "path in namespace": owner("shop/x", "web"),
		"path in name": owner("shop", "web/../../x"), "absolute": owner("shop", "/etc"), "hidden": owner(".artifacts", "web"),
		"hidden name": owner("shop", ".web"), "NUL": owner("shop", "we\x00b"), "newline": owner("shop", "web\n"),
		"upper case": owner("Shop", "web"), "dots in namespace": owner("shop.a", "web"), "space": owner("shop", "w b"),
		"long namespace": owner(strings.Repeat("a", 64), "web"), "long name": owner("shop", strings.Repeat("a.", 127)+"a"),
		"hyphen first": owner("-shop", "web"), "hyphen last": owner("shop", "web-"), "empty label": owner("shop", "a..b"),
		"not ASCII": owner("shop", "wéb"), "long label": owner("shop", strings.Repeat("a", 64)),
	}
}

func badUnits() map[string]func(u *profile.Unit) {
	name := func(name string) func(u *profile.Unit) { return func(u *profile.Unit) { u.Files[0].Name = name } }
	return map[string]func(u *profile.Unit){
		"no digest":        func(u *profile.Unit) { u.Digest = "" },
		"digest as a path": func(u *profile.Unit) { u.Digest = "sha256:../../../../etc/x" },
		"short digest":     func(u *profile.Unit) { u.Digest = "sha256:abc" },
		"no files":         func(u *profile.Unit) { u.Files = nil },
		"same name twice":  func(u *profile.Unit) { u.Files[1].Name = u.Files[0].Name },
		"too large":        func(u *profile.Unit) { u.Files[0].Data = make([]byte, profile.MaxPayloadBytes+1) },
		"too many files": func(u *profile.Unit) {
			for i := range 100 {
				u.Files = append(u.Files, profile.File{Name: fmt.Sprintf("more-%d", i)})
			}
		},
		"file without name": name(""), "climbing file": name("../x"), "file in a folder": name("a/b"), "hidden file": name(".x"),
		"file is self": name("."), "file is parent": name(".."), "NUL in file": name("a\x00"), "newline in file": name("a\n"),
		"backslash in file": name(`a\b`), "long file": name(strings.Repeat("a", 300)), "option as file": name("-rf"),
	}
}

func (s *hostSuite) badBesideGood(t *testing.T) {
	h := s.open(t, nil)
	bad := s.unit(owner("shop", ".."), First)
	good := s.unit(owner("shop", "web"), Second)
	got := h.Install(t.Context(), []profile.Unit{bad, good})
	wantRefused(t, got[0].Err, reason.ProfileInvalid)
	wantOutcomes(t, got[1:], 1, true)
	wantInForce(t, h, good)
}

func (s *hostSuite) unsupported(t *testing.T) {
	h, err := s.machine.Unsupported()
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	before := s.state(t)
	wantRefused(t, h.Supported(t.Context()), reason.KindUnsupported)
	for _, o := range h.Install(t.Context(), []profile.Unit{s.unit(owner("shop", "web"), First), s.unit(owner("shop", "api"), Second)}) {
		wantRefused(t, o.Err, reason.KindUnsupported)
		if o.Changed {
			t.Error("an unsupported host changed something")
		}
	}
	s.wantState(t, before, "after installing on an unsupported host")
}

func (s *hostSuite) cancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	h := s.open(t, nil)
	web := s.unit(owner("shop", "web"), First)
	install(t, h, true, web)
	before := s.state(t)
	cancel()
	for name, got := range map[string][]profile.Outcome{
		"Install": h.Install(ctx, []profile.Unit{s.unit(web.Owner, Second)}),
		"Remove":  h.Remove(ctx, []profile.Owner{web.Owner}),
	} {
		if len(got) != 1 || got[0].Changed || !errors.Is(got[0].Err, context.Canceled) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if _, err := h.Installed(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Installed: %v", err)
	}
	s.wantState(t, before, "after calls with an ended context")
}
