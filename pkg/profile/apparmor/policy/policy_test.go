package policy_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/confine-dev/confine/pkg/profile/apparmor/policy"
)

// one reads a text whose profile holds one rule.
func one(t *testing.T, rule string) *policy.Rule {
	t.Helper()
	f, err := policy.Parse([]byte("profile x {\n" + rule + "\n}\n"))
	if err != nil {
		t.Fatalf("%s: %v", rule, err)
	}
	if n := len(f.Profiles[0].Rules); n != 1 {
		t.Fatalf("%s: %d rules", rule, n)
	}
	return f.Profiles[0].Rules[0]
}

func TestFileRules(t *testing.T) {
	for rule, want := range map[string]policy.FileRule{
		"/a rw,":                    {Path: "/a", Access: "rw"},
		"wr /a,":                    {Path: "/a", Access: "rw"},
		"file /a mrk,":              {Path: "/a", Access: "rkm"},
		"file,":                     {Bare: true},
		`"/a b" r,`:                 {Path: "/a b", Access: "r"},
		`/a\ b r,`:                  {Path: "/a b", Access: "r"},
		"/a{b,c} r,":                {Path: "/a{b,c}", Access: "r"},
		"@{HOME}/x r,":              {Path: "@{HOME}/x", Access: "r"},
		"/a rPx -> b//c,":           {Path: "/a", Access: "r", Exec: "Px", Target: "b//c"},
		"/a rpix,":                  {Path: "/a", Access: "r", Exec: "pix"},
		"/a rCUx,":                  {Path: "/a", Access: "r", Exec: "CUx"},
		"unsafe /a cx -> b,":        {Path: "/a", Exec: "cx", Safety: "unsafe", Target: "b"},
		"l subset /a -> /b,":        {Path: "/a", Access: "l", Subset: true, Target: "/b"},
		"/a rwl -> /b,":             {Path: "/a", Access: "rwl", Target: "/b", Aimless: true},
		"rwl /a -> /b,":             {Path: "/a", Access: "rwl", Target: "/b"},
		"/c16[6,7]:* r,":            {Path: "/c16[6,7]:*", Access: "r"},
		"link /a -> /b,":            {Path: "/a", Access: "l", Target: "/b"},
		"deny /a rwx,":              {Path: "/a", Access: "rw", Exec: "x"},
		"/a#b r, # and a comment\n": {Path: "/a#b", Access: "r"},
	} {
		if diff := cmp.Diff(&want, one(t, rule).File); diff != "" {
			t.Errorf("%s (-want +got):\n%s", rule, diff)
		}
	}
}

func TestQualifiers(t *testing.T) {
	got := one(t, "  priority=-5 audit deny owner /a w,")
	want := &policy.Rule{Pos: policy.Pos{Line: 2, Column: 3}, Priority: "-5", Audit: true, Mode: "deny", Owner: "owner",
		Class: policy.FileClass, File: &policy.FileRule{Path: "/a", Access: "w"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTerms(t *testing.T) {
	condition := func(key string, values ...string) policy.Condition { return policy.Condition{Key: key, Values: values} }
	for rule, want := range map[string]policy.Terms{
		"capability chown\n kill,":          {Words: []string{"chown", "kill"}},
		"network (bind, send) inet stream,": {Access: []string{"bind", "send"}, Words: []string{"inet", "stream"}},
		"mount options in (rw,bind) fstype=ext4 /a -> /b,": {Words: []string{"/a"}, Arrow: true, Target: "/b",
			Conditions: []policy.Condition{{Key: "options", In: true, List: true, Values: []string{"rw", "bind"}}, condition("fstype", "ext4")}},
		`dbus send bus=system path="/a" peer=(name=b, label="c d"),`: {Access: []string{"send"}, Conditions: []policy.Condition{
			condition("bus", "system"), condition("path", "/a"),
			{Key: "peer", List: true, Inner: []policy.Condition{condition("name", "b"), condition("label", "c d")}}}},
		"change_profile unsafe /a -> b,": {Safety: "unsafe", Words: []string{"/a"}, Arrow: true, Target: "b"},
		"set rlimit as <= 4 GB,":         {Words: []string{"as", "4", "GB"}},
		"signal (send) set=(a b) peer=c,": {Access: []string{"send"}, Conditions: []policy.Condition{
			{Key: "set", List: true, Values: []string{"a", "b"}}, condition("peer", "c")}},
		"userns,": {},
	} {
		if diff := cmp.Diff(want, one(t, rule).Terms, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", rule, diff)
		}
	}
}

func TestStatements(t *testing.T) {
	f, err := policy.Parse([]byte("abi <abi/4.0>,\n#include <tunables/global>\ninclude if exists \"/x\"\n@{A}=a \"b c\" \\\n d\n" +
		"${B} = false\nalias /a -> /b,\n/p{,q} (audit) {\n ^h {\n }\n}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := &policy.File{
		ABIs:      []policy.ABI{{Path: "abi/4.0", Searched: true}},
		Includes:  []policy.Include{{Path: "tunables/global", Form: policy.Searched}, {Path: "/x", Form: policy.Quoted, IfExists: true}},
		Variables: []policy.Assignment{{Name: "@{A}", Op: "=", Values: []string{"a", "b c", "d"}}, {Name: "${B}", Op: "=", Values: []string{"false"}}},
		Aliases:   []policy.Alias{{From: "/a", To: "/b"}},
		Profiles: []*policy.Profile{{Name: "/p{,q}", Flags: []policy.Flag{{Name: "audit"}},
			Children: []*policy.Profile{{Name: "h", Keyword: true, Hat: true}}}},
	}
	if diff := cmp.Diff(want, f, cmpopts.IgnoreTypes(policy.Pos{})); diff != "" {
		t.Error(diff)
	}
}

func TestBounds(t *testing.T) {
	lines := func(n int, line string) string { return strings.Repeat(line+"\n", n) }
	for name, text := range map[string]string{
		"bytes":       strings.Repeat(" ", policy.MaxBytes+1),
		"variables":   lines(policy.MaxVariables+1, "@{A} += b") + "profile x {\n}\n",
		"values":      "@{A} =" + strings.Repeat(" b", policy.MaxValues+1) + "\nprofile x {\n}\n",
		"includes":    lines(policy.MaxIncludes+1, "include <a/b>") + "profile x {\n}\n",
		"rules":       "profile x {\n" + lines(policy.MaxRules+1, "/a r,") + "}\n",
		"list":        "profile x {\nsignal set=(" + strings.Repeat("a ", policy.MaxValues+1) + "),\n}\n",
		"parentheses": "profile x {\nif " + strings.Repeat("(", 1<<19),
		"braces":      "profile x {\n/" + strings.Repeat("{a,", 20) + strings.Repeat("}", 20) + " r,\n}\n",
	} {
		_, err := policy.Parse([]byte(text))
		if _, ok := errors.AsType[*policy.Error](err); !ok {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
