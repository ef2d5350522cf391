package selinux_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/selinux"
)

func TestDiff(t *testing.T) {
	for name, tc := range map[string]struct {
		old, updated string
		want         []profile.Change
	}{
		"order, comments and spelling": {
			block("(blockinherit net_container) (allow process self (file (read open))) (allow process self (fd (use)))"),
			"; x\n" + block("(allow process process (fd (use use))) (allow process self (file (open)))\n(allow process self (file (read)))(blockinherit net_container)"),
			nil,
		},
		"permissions both ways": {
			block("(allow process self (file (read open lock)))"),
			block("(allow process self (file (open append)))"),
			[]profile.Change{
				{Sense: profile.Gained, Subject: "self file", New: "append"},
				{Sense: profile.Lost, Subject: "self file", Old: "lock read"},
			},
		},
		"targets and classes": {
			block("(allow process etc_t (dir (search)))"),
			block("(allow process etc_t (file (read open))) (allow process self (dir (search)))"),
			[]profile.Change{
				{Sense: profile.Lost, Subject: "etc_t dir", Old: "search"},
				{Sense: profile.Gained, Subject: "etc_t file", New: "open read"},
				{Sense: profile.Gained, Subject: "self dir", New: "search"},
			},
		},
		"templates": {
			block("(blockinherit net_container)"),
			block("(blockinherit log_container)"),
			[]profile.Change{
				{Sense: profile.Gained, Subject: "template", New: "log_container"},
				{Sense: profile.Lost, Subject: "template", Old: "net_container"},
			},
		},
		"the block": {
			block("(allow process self (fd (use)))"),
			"(block confine_web_y (blockinherit container) (allow process self (fd (use))))",
			[]profile.Change{{Sense: profile.Altered, Subject: "block", Old: "confine_web_x", New: "confine_web_y"}},
		},
		"statements of other shapes": {
			block("(typepermissive process) (allow process self (file (all)))"),
			block("(allow process self (file   (all)))(deny a b (c (d)))"),
			[]profile.Change{
				{Sense: profile.Altered, Subject: "statement", New: "(deny a b (c (d)))"},
				{Sense: profile.Altered, Subject: "statement", Old: "(typepermissive process)"},
			},
		},
		"a rule for another source is another rule": {
			block("(allow process self (fd (use)))"),
			block("(allow socket self (fd (use)))"),
			[]profile.Change{
				{Sense: profile.Lost, Subject: "self fd", Old: "use"},
				{Sense: profile.Altered, Subject: "statement", New: "(allow socket self (fd (use)))"},
			},
		},
		"a string is no name": {
			block("(allow process self (fd (use)))"),
			block(`(allow process "self" (fd (use)))`),
			[]profile.Change{
				{Sense: profile.Lost, Subject: "self fd", Old: "use"},
				{Sense: profile.Altered, Subject: "statement", New: `(allow process "self" (fd (use)))`},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := selinux.NewKind().Diff(parse(t, tc.old), parse(t, tc.updated))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
