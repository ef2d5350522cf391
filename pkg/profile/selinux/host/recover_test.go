//go:build !lsm_selinux

package host

import (
	"errors"
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
)

// TestAMarkThatStaysIsOneReload: where nobody installs any more, nothing takes
// the mark away, and every listing would load the whole policy again.
func TestAMarkThatStaysIsOneReload(t *testing.T) {
	m, dead := newMemory(), errors.New("died")
	b := newBench(t, m)
	web := unit(owner("shop", "web"), profiletest.First)
	leaveMark := func() {
		t.Helper()
		b.h.store = killed{m, dead}
		if got := b.h.Install(t.Context(), []profile.Unit{web})[0]; !errors.Is(got.Err, dead) || !durableMark(b.h) {
			t.Fatalf("%+v, a mark: %v", got, durableMark(b.h))
		}
		b.h.store = m
	}
	list := func(types int) {
		t.Helper()
		in, err := b.h.Installed(t.Context())
		must(t, err)
		if len(in) != 1 || len(in[0].References) != types {
			t.Errorf("listed %+v, want %d types", in, types)
		}
	}
	reloads := func(want int) {
		t.Helper()
		if m.reloads != want {
			t.Errorf("%d reloads, want %d", m.reloads, want)
		}
	}
	leaveMark()
	m.fails = errors.New("no memory")
	if _, err := b.h.Installed(t.Context()); !errors.Is(err, m.fails) {
		t.Errorf("a reload that failed: %v", err)
	}
	m.fails = nil
	reloads(1)
	for range 5 {
		list(2)
	}
	reloads(2)
	if !durableMark(b.h) {
		t.Error("listing took the mark away")
	}

	// Another transaction is another mark, of this process or another.
	web = unit(web.Owner, profiletest.Fewer)
	leaveMark()
	reloads(3) // with which Install begins
	list(1)
	list(1)
	reloads(4)
	other := *b
	other.again()
	web = unit(web.Owner, profiletest.First)
	mine := b.h
	b.h = other.h
	leaveMark()
	b.h = mine
	reloads(5)
	list(2)
	list(2)
	reloads(6)

	b.again()
	list(2)
	list(2)
	reloads(7)
	b.install(false, web) // takes it away
	reloads(8)
	b.inForce(web)
	reloads(8)
}
