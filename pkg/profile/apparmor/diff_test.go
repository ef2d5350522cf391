package apparmor_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
)

func TestDiff(t *testing.T) {
	const in = "profile confine.web.nginx: "
	for name, tc := range map[string]struct {
		old, updated string
		want         []profile.Change
	}{
		"order, comments and spelling": {
			body("/a rw,", "/b r,", "capability chown kill,"), body("# why", "capability kill,", "rw \"/a\",", "/b r,", "capability chown,"), nil,
		},
		"access over several rules": {body("/a rwk,"), body("/a r,", "/a wk,"), nil},
		"access more": {
			body("/a r,"), body("/a rw,"),
			[]profile.Change{{Sense: profile.Gained, Subject: in + "/a", Old: "allow r", New: "allow r w"}},
		},
		"access less": {
			body("/a rw,"), body("/a r,"),
			[]profile.Change{{Sense: profile.Lost, Subject: in + "/a", Old: "allow r w", New: "allow r"}},
		},
		"other access": {
			body("/a r,"), body("/a w,"),
			[]profile.Change{{Sense: profile.Altered, Subject: in + "/a", Old: "allow r", New: "allow w"}},
		},
		"a rule more and one less": {
			body("/a r,"), body("network inet,"),
			[]profile.Change{
				{Sense: profile.Lost, Subject: in + "/a", Old: "allow r"},
				{Sense: profile.Gained, Subject: in + "network inet", New: "allow it"},
			},
		},
		"a deny more": {
			body(), body("deny /a w,"), []profile.Change{{Sense: profile.Lost, Subject: in + "/a", New: "deny w"}},
		},
		"a deny for an allow": {
			body("/a w,"), body("deny /a w,"), []profile.Change{{Sense: profile.Lost, Subject: in + "/a", Old: "allow w", New: "deny w"}},
		},
		"capabilities one by one": {
			body("capability chown kill,"), body("capability chown setuid,"),
			[]profile.Change{
				{Sense: profile.Lost, Subject: in + "capability kill", Old: "allow it"},
				{Sense: profile.Gained, Subject: in + "capability setuid", New: "allow it"},
			},
		},
		"owner": {
			body("owner /a r,"), body("/a r,"),
			[]profile.Change{
				{Sense: profile.Gained, Subject: in + "/a", New: "allow r"},
				{Sense: profile.Lost, Subject: in + "owner /a", Old: "allow r"},
			},
		},
		"another way to execute": {
			body("/a ix,"), body("/a Cx -> x,", "profile x {\n}"),
			[]profile.Change{
				{Sense: profile.Altered, Subject: in + "/a", Old: "allow ix", New: "allow -> x Cx"},
				{Sense: profile.Gained, Subject: "profile confine.web.nginx//x", New: "profile x"},
			},
		},
		"only audited": {
			body("/a r,"), body("audit /a r,"), []profile.Change{{Sense: profile.Altered, Subject: in + "/a", Old: "allow r", New: "allow r; audit"}},
		},
		"a flag": {
			"profile x {\n}\n", "profile x flags=(complain) {\n}\n",
			[]profile.Change{{Sense: profile.Gained, Subject: "profile x: flag complain", New: "allow complain"}},
		},
		"includes, variables and limits": {
			"@{X} = a\nprofile x {\n  include <abstractions/base>\n  set rlimit nofile <= 5,\n}\n", "@{X} = b\nprofile x {\n  set rlimit nofile <= 6,\n}\n",
			[]profile.Change{
				{Sense: profile.Altered, Subject: "variable @{X}", Old: "@{X} = a", New: "@{X} = b"},
				{Sense: profile.Lost, Subject: "profile x: include <abstractions/base>", Old: "allow its rules"},
				{Sense: profile.Altered, Subject: "profile x: rlimit nofile", Old: "5", New: "6"},
			},
		},
		"a condition": {
			body("/a r,"), body("if $x {", "/a r,", "}"),
			[]profile.Change{
				{Sense: profile.Lost, Subject: in + "/a", Old: "allow r"},
				{Sense: profile.Gained, Subject: in + "/a (if $x)", New: "allow r"},
			},
		},
		"profiles": {
			nginx, strings.ReplaceAll(nginx, "nginx flags", "httpd flags"),
			[]profile.Change{
				{Sense: profile.Gained, Subject: "profile confine.web.httpd", New: "profile confine.web.httpd flags=(attach_disconnected,mediate_deleted)"},
				{Sense: profile.Lost, Subject: "profile confine.web.nginx", Old: "profile confine.web.nginx flags=(attach_disconnected,mediate_deleted)"},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := apparmor.NewKind().Diff(parse(t, tc.old), parse(t, tc.updated))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestFindings(t *testing.T) {
	for name, tc := range map[string]struct{ text, position, says string }{
		"no abi":              {"profile x {\n  /a r,\n}\n", "1:1", "no abi"},
		"complain":            {"profile x flags=(complain) {\n}\n", "1:18", "nothing is enforced"},
		"no rules":            {"profile x {\n}\n", "1:1", "has no rules"},
		"unconfined":          {"profile x flags=(unconfined) {\n}\n", "1:18", "allows everything"},
		"if it exists":        {body("include if exists <abstractions/x>"), "4:1", "depends on a file"},
		"twice":               {body("/a r,", "/a r,"), "5:1", "twice"},
		"a strong capability": {body("capability sys_admin,"), "4:1", "nearly as much as root"},
		"any network":         {body("network,"), "4:1", "raw and packet"},
		"every peer":          {body("signal,"), "4:1", "every peer"},
		"an unconfined peer":  {body("dbus send peer=(label=unconfined),"), "4:1", "unconfined processes"},
		"every file":          {body("file,"), "4:1", "every file"},
		"every file, a glob":  {body("/** rw,"), "4:1", "every file"},
		"write and execute":   {body("/a/** rwix,"), "4:1", "write what it allows to execute"},
		"write and map":       {body("/a/** rwm,"), "4:1", "execute or map"},
		"unsafe":              {body("unsafe /a Px -> confine.web.nginx,"), "4:1", "LD_PRELOAD"},
		"lower case":          {body("/a cx -> x,", "profile x {", "/b r,", "}"), "4:1", "LD_PRELOAD"},
		"a condition":         {body("if $x {", "/a r,", "}"), "5:1", "variables decide"},
		"a variable added to": {"@{X} += y\nprofile x {\n  /a r,\n}\n", "1:1", "tunables"},
	} {
		t.Run(name, func(t *testing.T) {
			found := parse(t, tc.text).Findings()
			if !slices.ContainsFunc(found, func(f profile.Finding) bool { return f.Position == tc.position && strings.Contains(f.Message, tc.says) }) {
				t.Errorf("found %v", found)
			}
		})
	}
	if found := parse(t, body("/a r,", "deny /b w,", "network inet stream,")).Findings(); len(found) > 0 {
		t.Errorf("nothing is wrong, and found %v", found)
	}
	if found := parse(t, body(strings.Repeat("network,\n", 1000))).Findings(); len(found) != 201 {
		t.Errorf("%d findings", len(found))
	}
}
