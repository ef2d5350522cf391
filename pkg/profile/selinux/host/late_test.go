//go:build !lsm_selinux

package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/profile/selinux/host/secilc"
	"github.com/confine-dev/confine/pkg/profile/selinux/host/semodule"
	"github.com/confine-dev/confine/pkg/reason"
)

// takesItsTime is a compiler that no texts get past that say so, within
// secilc's bounds.
type takesItsTime struct {
	alone []string // the last text of each run that was of one
}

func (*takesItsTime) Supported() error { return nil }

func (c *takesItsTime) Compile(ctx context.Context, qualified bool, texts ...[]byte) ([]byte, error) {
	all := bytes.Join(texts, nil)
	if len(texts) == 2 {
		c.alone = append(c.alone, string(texts[1]))
	}
	run, cancel := context.WithTimeout(ctx, 29*time.Second) // no part of a call's time, so that one is cut
	defer cancel()
	if bytes.Contains(all, []byte("slow")) && !qualified {
		<-run.Done()
		return nil, fmt.Errorf("%w: %w", secilc.ErrLimit, run.Err())
	}
	return nil, errors.New("fast, and not to be installed")
}

func slow(name string) profile.Unit {
	o := owner("shop", name)
	return profile.Unit{Owner: o, Digest: digestOf(name), Files: []profile.File{{Name: "a.cil", Data: blockWith(block(o, "slow"), "")}}}
}

// TestTextsThatTakeTimeAreBoundedTogether: however many there are, the call ends
// in time, says so, and all have their turn in later calls.
func TestTextsThatTakeTimeAreBoundedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &takesItsTime{}
		b, m := rehearsing(t, c)
		var units []profile.Unit
		for i := range 30 {
			units = append(units, slow(fmt.Sprintf("slow-%d", i)))
		}
		tried := map[string]int{}
		for call := range 15 {
			began, before := time.Now(), len(c.alone)
			late := 0
			for _, got := range b.h.Install(t.Context(), units) {
				b.refused(got, reason.InstallFailed, "")
				told, _ := reason.Of(got.Err)
				if !strings.Contains(told.WhatToDo(), "tried again by itself") {
					t.Errorf("advice %q", told.WhatToDo())
				}
				if strings.Contains(got.Err.Error(), "no time left in this call") {
					late++
				}
			}
			if spent := time.Since(began); spent > defaultCallTime/2 {
				t.Errorf("call %d took %s", call, spent)
			}
			if runs := len(c.alone) - before; late != len(units)-runs {
				t.Errorf("call %d: %d had no turn, and %d had", call, late, runs)
			}
			for _, text := range c.alone[before:] {
				tried[text]++
			}
		}
		// Six a call, and five in the first, which tries them together, too.
		if len(tried) != len(units) || m.commits > 0 {
			t.Errorf("%d of %d had a turn, %d transactions", len(tried), len(units), m.commits)
		}
		for text, n := range tried {
			if n < 2 || n > 3 {
				t.Errorf("%d turns of %q", n, text)
			}
		}
	})
}

// TestNewTextsDoNotWaitForSlowOnes, wherever they stand; and those that came with
// slow ones have their turn before the slow ones have another.
func TestNewTextsDoNotWaitForSlowOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := rehearsing(t, &takesItsTime{})
		var units []profile.Unit
		for i := range 7 {
			units = append(units, slow(fmt.Sprintf("slow-%d", i)))
		}
		beside, later := unit(owner("shop", "beside"), profiletest.Fewer), unit(owner("shop", "later"), profiletest.Fewer)
		units = append(units, beside)
		got := b.h.Install(t.Context(), units)
		b.refused(got[7], reason.InstallFailed, "no time left")
		units = append(units, later)
		got = b.h.Install(t.Context(), units)
		b.refused(got[7], reason.InstallFailed, "not to be installed") // it was looked at
		b.refused(got[8], reason.InstallFailed, "not to be installed")
		b.refused(got[0], reason.InstallFailed, "ended by its bounds")
		b.refused(got[4], reason.InstallFailed, "no time left") // the last that had a turn
	})
}

// slowly is a policy store whose transactions take their time.
type slowly struct {
	*memory
	each time.Duration
}

func (s slowly) Commit(ctx context.Context, c semodule.Change) error {
	select {
	case <-time.After(s.each):
	case <-ctx.Done():
		return ctx.Err()
	}
	err := s.memory.Commit(ctx, c)
	if refused, said := errors.AsType[*semodule.Error](err); said {
		return refusal(strings.ReplaceAll(refused.Log, "/cil:", "/somewhere:")) // it names no module
	}
	return err
}

// TestTransactionsThatTakeTimeAreBoundedTogether: none is begun after the call's
// time, none is cut, and calls after it come to the good ones.
func TestTransactionsThatTakeTimeAreBoundedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		b := newBench(t, m)
		b.h.store = slowly{m, 2 * time.Minute}
		var units, good []profile.Unit
		for i := range 8 {
			units = append(units, broken(owner("shop", fmt.Sprintf("broken-%d", i))))
		}
		for i := range 4 {
			good = append(good, unit(owner("shop", fmt.Sprintf("web-%d", i)), profiletest.First))
		}
		units = append(units, good...)
		for range 12 {
			began := time.Now()
			got := b.h.Install(t.Context(), units)
			if spent := time.Since(began); spent > defaultCallTime+2*time.Minute {
				t.Fatalf("a call took %s", spent)
			}
			for _, o := range got[:8] {
				b.refused(o, reason.InstallFailed, "")
			}
			if !slices.ContainsFunc(got[8:], func(o profile.Outcome) bool { return o.Err != nil }) {
				b.inForce(good...)
				return
			}
		}
		t.Error("the good ones never got in")
	})
}

// TestCallsThatHangEnd: a store that answers nothing does not hold the agent for
// longer than its watchdog waits.
func TestCallsThatHangEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		b := newBench(t, m)
		web := unit(owner("shop", "web"), profiletest.First)
		b.install(true, web)
		b.h.store = slowly{m, time.Hour}
		for name, call := range map[string]func() error{
			"install": func() error {
				return b.h.Install(t.Context(), []profile.Unit{unit(web.Owner, profiletest.Second)})[0].Err
			},
			"remove": func() error { return b.h.Remove(t.Context(), []profile.Owner{web.Owner})[0].Err },
		} {
			began := time.Now()
			if err := call(); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, reason.InstallFailed) {
				t.Errorf("%s: %v", name, err)
			}
			if spent := time.Since(began); spent != defaultCallTime+defaultTime {
				t.Errorf("%s took %s", name, spent)
			}
		}
		b.h.store = hung{m}
		began := time.Now()
		if _, err := b.h.Installed(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > defaultCallTime+defaultTime {
			t.Errorf("installed: %v after %s", err, time.Since(began))
		}
	})
}

// hung is a store that does not answer.
type hung struct{ *memory }

func (hung) List(ctx context.Context) ([]semodule.Listed, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestAttemptsAreInTurnAndBounded(t *testing.T) {
	var a attempts
	self := func(s string) string { return s }
	for _, key := range []string{"a", "b", "c", "a"} {
		a.note(key)
	}
	a.forget("c")
	fresh, again := order(&a, []string{"a", "x", "b", "c"}, self)
	if diff := cmp.Diff([][]string{{"x", "c"}, {"b", "a"}}, [][]string{fresh, again}); diff != "" {
		t.Errorf("fresh and again (-want +got):\n%s", diff)
	}
	for i := range 3 * maxRemembered {
		a.note(fmt.Sprint(i))
		if len(a.last) > maxRemembered {
			t.Fatalf("%d are remembered", len(a.last))
		}
	}
}
