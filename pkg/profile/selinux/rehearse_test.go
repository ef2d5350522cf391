package selinux_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/confine-dev/confine/pkg/profile/selinux"
	"github.com/confine-dev/confine/pkg/profile/selinux/host/secilc"
	"github.com/confine-dev/confine/pkg/reason"
)

// rehearsed compiles text where approved stands in what Confine approved of,
// and reports whether that makes the policy that was approved.
func rehearsed(t *testing.T, text, approved string) (same bool, said error) {
	t.Helper()
	r, err := selinux.Rehearse(parse(t, approved))
	if err != nil {
		t.Fatal(err)
	}
	c := secilc.New(secilc.Options{})
	want, err := c.Compile(t.Context(), true, r.Flat)
	if err != nil {
		t.Fatal(err)
	}
	made, err := c.Compile(t.Context(), false, r.Base, []byte(text))
	return err == nil && bytes.Equal(made, want), err
}

// TestEscapesFailTheRehearsal: had the grammar taken an escape for a harmless
// profile, what the compiler makes of it would still tell.
func TestEscapesFailTheRehearsal(t *testing.T) {
	newCompiler(t) // skips where there is none
	// The rehearsed policy lacks what these name, or levels, and they vanish in it.
	// The grammar alone stands in front of them.
	unseen := []string{"an optional", "optionals that vanish", "an optional beside", "an optional that takes", "in, after inheriting", "levels of its own"}
	for name, e := range corpus() {
		t.Run(name, func(t *testing.T) {
			same, _ := rehearsed(t, e.text, block(""))
			if want := slices.Contains(unseen, name); same != want {
				t.Errorf("it compiles to what a harmless profile does: %v, want %v: %s", same, want, e.why)
			}
		})
	}
}

// TestAdmittedProfilesPassTheRehearsal: what the default admits is read by the
// compiler as it is read here.
func TestAdmittedProfilesPassTheRehearsal(t *testing.T) {
	newCompiler(t)
	all := admitted()
	for name, u := range udica() {
		if u.needs != "never" {
			all["udica: "+name] = "(block confine_web_x\n    (blockinherit container)\n" + u.body + ")"
		}
	}
	all["the conformance suite's"] = serving
	all["what needs a policy"] = reaching
	for _, name := range []string{"container", "net_container", "confine_web_x", "file", "read", "role", "type", "allow", "s0", "low", "kernel"} {
		all["a type called "+name] = block("(blockinherit net_container) (allow process " + name + " (file (read))) (allow process self (" + name + " (read " + name + ")))")
		if name != "container" && name != "confine_web_x" {
			all["a template called "+name] = block("(blockinherit " + name + ")")
		}
	}
	for name, text := range all {
		t.Run(name, func(t *testing.T) {
			if same, said := rehearsed(t, text, text); !same {
				t.Errorf("it compiles to another policy: %v", said)
			}
		})
	}
}

func TestOnlyTheGrammarIsRehearsed(t *testing.T) {
	for _, text := range []string{
		foreign, "(type a)", "(block a)", "(block a (blockinherit net_container))", block("(typepermissive process)"),
		block("") + "(block b (blockinherit container))", block("(allow process a.b (file (read)))"), block("(allow process self (file (all)))"),
	} {
		if _, err := selinux.Rehearse(parse(t, block("")), parse(t, text)); !errors.Is(err, reason.ProfileInvalid) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
