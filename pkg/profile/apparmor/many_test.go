package apparmor_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/reason"
)

// TestATextGivesFewNamesToPods: a node has to be able to name all that it offers
// for removal.
func TestATextGivesFewNamesToPods(t *testing.T) {
	text := func(tops, children int) string {
		var b strings.Builder
		for i := range tops {
			fmt.Fprintf(&b, "profile confine.web.p%d {\n", i)
			for c := range children {
				fmt.Fprintf(&b, "  profile c%d {\n    /x r,\n  }\n", c)
			}
			b.WriteString("}\n")
		}
		return b.String()
	}
	for name, tc := range map[string]struct {
		tops, children int
		want           error
	}{
		"one": {1, 0, nil}, "sixteen": {16, 0, nil}, "sixteen with children": {16, 8, nil},
		"seventeen": {17, 0, reason.ProfileForbidden}, "hundreds": {400, 0, reason.ProfileForbidden},
	} {
		k := apparmor.NewKind()
		parsed, err := k.Parse(name, []byte(text(tc.tops, tc.children)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := k.Constrain(parsed, profile.For(profile.Owner{Namespace: "web", Name: "x"}), nil); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}
