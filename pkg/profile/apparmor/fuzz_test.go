package apparmor_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/profile/apparmor/internal/corpus"
	"github.com/confine-dev/confine/pkg/reason"
)

func raw(text string) []profile.Limits { return []profile.Limits{profile.Limits(text)} }

// readAgain holds that what a profile writes is read as the same profile.
func readAgain(t *testing.T, p *apparmor.Profile) {
	t.Helper()
	k := apparmor.NewKind()
	first := p.Policy.String()
	again, err := k.Parse("again", []byte(first))
	if err != nil {
		t.Fatalf("what it wrote it does not read: %v\n%s", err, first)
	}
	if diff := cmp.Diff(apparmor.Names(p), apparmor.Names(again)); diff != "" {
		t.Errorf("its names change when read again:\n%s", diff)
	}
	if second := again.(*apparmor.Profile).Policy.String(); first != second {
		t.Errorf("reading is not stable:\n%s", cmp.Diff(first, second))
	}
}

func FuzzParse(f *testing.F) {
	for _, set := range []map[string]string{{"a": nginx, "b": everything, "c": sibling}} {
		for _, text := range set {
			f.Add([]byte(text))
		}
	}
	for _, e := range corpus.Escapes() {
		f.Add([]byte(e.Policy()))
	}
	for _, bad := range conformance().Bad {
		if len(bad.Data) < 512 {
			f.Add([]byte(bad.Data))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		k := apparmor.NewKind()
		k.Sniff(data)
		p, err := k.Parse("p.aa", data)
		if err != nil {
			if !errors.Is(err, reason.ProfileInvalid) && !errors.Is(err, reason.TooLarge) {
				t.Errorf("the refusal is %v", err)
			}
			return
		}
		if len(apparmor.Names(p)) == 0 {
			t.Error("accepted without a name")
		}
		readAgain(t, p.(*apparmor.Profile))
		if changes, err := k.Diff(p, p); err != nil || len(changes) > 0 {
			t.Errorf("it differs from itself: %v %v", changes, err)
		}
		p.Findings()
	})
}

func FuzzConstrain(f *testing.F) {
	for _, e := range corpus.Escapes() {
		f.Add([]byte(e.Policy()), []byte(`{"allowedRules":["mount"],"allowedNames":["web.*"]}`))
	}
	f.Add([]byte(everything), []byte(`{"allowedFlags":["complain"],"allowedCapabilities":["sys_admin"]}`))
	f.Fuzz(func(t *testing.T, data, limits []byte) {
		k := apparmor.NewKind()
		p, err := k.Parse("p.aa", data)
		if err != nil {
			return
		}
		begin := time.Now()
		safe := k.Constrain(p, profile.ForAnyone(), nil)
		both := k.Constrain(p, profile.ForAnyone(), []profile.Limits{nil, limits})
		alone := k.Constrain(p, profile.ForAnyone(), []profile.Limits{limits})
		if safe != nil && both == nil {
			t.Fatalf("a second policy admitted what the first forbids: %v", safe)
		}
		if safe == nil && errors.Is(alone, reason.ProfileForbidden) {
			t.Fatalf("limits forbid what the safe default admits: %v", alone)
		}
		for _, err := range []error{safe, both, alone} {
			if err != nil && !errors.Is(err, reason.ProfileForbidden) && !errors.Is(err, reason.TrustPolicyInvalid) {
				t.Errorf("the refusal is %v", err)
			}
		}
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("judging took %s", took)
		}
	})
}
