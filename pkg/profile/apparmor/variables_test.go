package apparmor_test

import (
	"errors"
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/reason"
)

// TestVariablesOfATextAreWhatItSays: a text that declares a variable of the host's
// tunables itself has not got theirs, and a deny rule with it denies something else.
func TestVariablesOfATextAreWhatItSays(t *testing.T) {
	const everything = "  /proc/sys/** w,\n"
	for name, c := range map[string]struct {
		preamble, rules string
		admitted        bool
	}{
		"of the host":                      {"include <tunables/global>\n", everything + "  deny @{PROC}/sys/** w,\n", true},
		"of the host, and one more":        {"include <tunables/global>\n@{PROC} += /x/\n", everything + "  deny @{PROC}/sys/** w,\n", true},
		"of the text":                      {"@{V} = /proc/\n", everything + "  deny @{V}/sys/** w,\n", true},
		"of the text, in two steps":        {"@{V} = /x/\n@{V} += /proc/\n", everything + "  deny @{V}/sys/** w,\n", true},
		"declared anew":                    {"@{PROC} = /x/\n", everything + "  deny @{PROC}/sys/** w,\n", false},
		"declared anew, and one more":      {"@{PROC} = /x/\n@{PROC} += /y/\n", everything + "  deny @{PROC}/sys/** w,\n", false},
		"declared anew, in another":        {"@{sys} = /x/\n@{V} = @{sys}\n", "  /sys/** w,\n  deny @{V}/** w,\n", false},
		"declared where it is not":         {"@{PROC} ?= /x/\n", everything + "  deny @{PROC}/sys/** w,\n", false},
		"declared over it":                 {"@{PROC} := /x/\n", everything + "  deny @{PROC}/sys/** w,\n", false},
		"declared where it is not, to see": {"@{V} ?= /proc/\n", everything + "  deny @{V}/sys/** w,\n", false},
		"two slashes at the beginning":     {"", everything + "  deny //proc/sys/** w,\n", false},
		"two slashes by a variable":        {"@{V} = /\n", everything + "  deny @{V}/proc/sys/** w,\n", false},
		"three slashes at the beginning":   {"", everything + "  deny ///proc/sys/** w,\n", true},
		"two slashes within":               {"", everything + "  deny /proc//sys/** w,\n", true},
		"two slashes that allow":           {"", "  //proc/sys/** w,\n", false},
		"what is allowed is both":          {"@{V} ?= /x/\n@{V} += /proc/\n", "  @{V}/sys/** w,\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := apparmor.NewKind().Parse("x.aa", []byte(c.preamble+"profile confine.shop.web {\n"+c.rules+"}\n"))
			if err != nil {
				t.Fatal(err)
			}
			err = apparmor.NewKind().Constrain(p, profile.For(profile.Owner{Namespace: "shop", Name: "web"}), nil)
			if (err == nil) != c.admitted || err != nil && !errors.Is(err, reason.ProfileForbidden) {
				t.Errorf("%v", err)
			}
		})
	}
}
