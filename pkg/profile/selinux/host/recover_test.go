//go:build !lsm_selinux

package host

import (
	"errors"
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
)

// reloading is a bench of which the reloads are counted.
type reloading struct {
	*bench
	m *memory
}

// leaveMark ends as a process that is killed between the store and the kernel.
func (b reloading) leaveMark(u profile.Unit) {
	b.t.Helper()
	dead := errors.New("died")
	b.h.store = killed{b.m, dead}
	if got := b.h.Install(b.t.Context(), []profile.Unit{u})[0]; !errors.Is(got.Err, dead) || !durableMark(b.h) {
		b.t.Fatalf("%+v, a mark: %v", got, durableMark(b.h))
	}
	b.h.store = b.m
}

// listTwice expects one unit with so many types, after so many reloads in all.
func (b reloading) listTwice(types, reloads int) {
	b.t.Helper()
	for range 2 {
		in, err := b.h.Installed(b.t.Context())
		must(b.t, err)
		if len(in) != 1 || len(in[0].References) != types || b.m.reloads != reloads {
			b.t.Errorf("listed %+v after %d reloads, want %d types and %d", in, b.m.reloads, types, reloads)
		}
	}
}

// TestAMarkThatStaysIsOneReload: where nobody installs any more, nothing takes
// the mark away, and every listing would load the whole policy again.
func TestAMarkThatStaysIsOneReload(t *testing.T) {
	m := newMemory()
	b := reloading{newBench(t, m), m}
	o := owner("shop", "web")
	b.leaveMark(unit(o, profiletest.First))
	m.fails = errors.New("no memory")
	if _, err := b.h.Installed(t.Context()); !errors.Is(err, m.fails) || m.reloads != 1 {
		t.Errorf("a reload that failed: %v, %d", err, m.reloads)
	}
	m.fails = nil
	b.listTwice(2, 2)
	if !durableMark(b.h) {
		t.Error("listing took the mark away")
	}

	// Another transaction is another mark, of this process or another. Install
	// begins with a reload of its own.
	b.leaveMark(unit(o, profiletest.Fewer))
	b.listTwice(1, 4)
	mine := b.h
	b.again()
	b.leaveMark(unit(o, profiletest.First))
	b.h = mine
	b.listTwice(2, 6)
	b.again()
	b.listTwice(2, 7)
	b.install(false, unit(o, profiletest.First)) // takes it away
	b.listTwice(2, 8)
	b.inForce(unit(o, profiletest.First))
}
