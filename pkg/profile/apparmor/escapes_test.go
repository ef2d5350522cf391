package apparmor_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/profile/apparmor/internal/corpus"
	"github.com/confine-dev/confine/pkg/reason"
)

const sibling = "profile confine.web.other {\n  /x r,\n}\n"

func TestEscapesAreRefused(t *testing.T) {
	k := apparmor.NewKind()
	all := corpus.Escapes()
	if len(all) < 60 {
		t.Fatalf("only %d escapes", len(all))
	}
	seen := map[string]bool{}
	for _, e := range all {
		if seen[e.Name] || e.Why == "" {
			t.Errorf("%q stands here twice, or without a reason", e.Name)
		}
		seen[e.Name] = true
		t.Run(e.Name, func(t *testing.T) {
			p, err := k.Parse("escape.aa", []byte(e.Policy()))
			if e.Class == "" {
				if !errors.Is(err, reason.ProfileInvalid) {
					t.Fatalf("read as %v, %v: %s\n%s", p, err, e.Why, e.Policy())
				}
				return
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, e.Policy())
			}
			found := apparmor.Violations(p.(*apparmor.Profile))
			if len(found) == 0 || found[0].Class != e.Class {
				t.Fatalf("found %v, want %s: %s\n%s", found, e.Class, e.Why, e.Policy())
			}
			err = k.Constrain(p, profile.ForAnyone(), nil)
			if !errors.Is(err, reason.ProfileForbidden) {
				t.Errorf("got %v: %s", err, e.Why)
			}
			if refusal, _ := reason.Of(err); !strings.HasPrefix(refusal.Object, "escape.aa:") || refusal.Advice == "" {
				t.Errorf("%v has no position or advice", err)
			}
		})
	}
}

// TestTheFrameOfEscapesPasses: what is forbidden is the escape itself.
func TestTheFrameOfEscapesPasses(t *testing.T) {
	k := apparmor.NewKind()
	for _, text := range []string{body("/x r,"), body("^x {\n}", "hat y {\n}", "profile z {\n}"), sibling, body("deny /** w,", "deny capability,", "deny mount,", "deny ptrace,", "deny all,")} {
		if err := k.Constrain(parse(t, text), profile.ForAnyone(), nil); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	}
}
