package seccomp_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
)

type diffCase struct {
	old, updated string
	want         []profile.Change
}

func TestEqualMeaningsDoNotDiffer(t *testing.T) {
	const x = "X86_64"
	compare(t, map[string]diffCase{
		"order and grouping": {
			on(x, `{"names":["read","write"],"action":"SCMP_ACT_ALLOW"}`, rule("ALLOW", "clone", cond(0, "EQ", 1), cond(1, "EQ", 2))),
			on(x, rule("ALLOW", "clone", cond(1, "EQ", 2), cond(0, "EQ", 1)), rule("ALLOW", "write"), rule("ALLOW", "read"), rule("ALLOW", "read")),
			nil,
		},
		"other spellings of a condition": {
			on(x, rule("ALLOW", "clone", cond(0, "LT", 8)), rule("ALLOW", "socket", cond(0, "GT", 8)), rule("ALLOW", "personality", cond(0, "EQ", 8))),
			on(x, rule("ALLOW", "clone", cond(0, "LE", 7)), rule("ALLOW", "socket", cond(0, "GE", 9)), rule("ALLOW", "personality", cond(0, "MASKED_EQ", ^uint64(0), 8))),
			nil,
		},
		"a rule that does what the default does": {
			on(x), on(x, `{"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":1}`), nil,
		},
		"a condition beside none": {
			on(x, rule("ALLOW", "read")), on(x, rule("ALLOW", "read"), rule("ALLOW", "read", cond(0, "EQ", 0))), nil,
		},
		"a condition that always holds": {
			on(x, rule("ALLOW", "read")), on(x, rule("ALLOW", "read", cond(0, "GE", 0))), nil,
		},
		"one index twice is two rules": {
			on(x, rule("ALLOW", "read", cond(0, "EQ", 1), cond(0, "EQ", 2))), on(x, rule("ALLOW", "read", cond(0, "EQ", 2)), rule("ALLOW", "read", cond(0, "EQ", 1))), nil,
		},
		"KILL and KILL_THREAD": {on(x, rule("KILL", "read")), on(x, rule("KILL_THREAD", "read")), nil},
	})
}

func TestDiffOfSyscalls(t *testing.T) {
	const x = "X86_64"
	compare(t, map[string]diffCase{
		"gained and lost": {
			on(x, rule("ALLOW", "read"), rule("ALLOW", "bpf")), on(x, rule("ALLOW", "read"), rule("ALLOW", "acct")),
			[]profile.Change{
				{Sense: profile.Gained, Subject: "acct", Old: "SCMP_ACT_ERRNO(1)", New: "SCMP_ACT_ALLOW"},
				{Sense: profile.Lost, Subject: "bpf", Old: "SCMP_ACT_ALLOW", New: "SCMP_ACT_ERRNO(1)"},
			},
		},
		"a condition dropped": {
			on(x, rule("ALLOW", "clone", cond(0, "MASKED_EQ", 0x7E020000))), on(x, rule("ALLOW", "clone")),
			[]profile.Change{{Sense: profile.Gained, Subject: "clone", Old: "SCMP_ACT_ALLOW when arg0 & 0x7e020000 == 0x0", New: "SCMP_ACT_ALLOW"}},
		},
		"a condition narrowed": {
			on(x, rule("ALLOW", "socket", cond(0, "LT", 9))), on(x, rule("ALLOW", "socket", cond(0, "EQ", 2))),
			[]profile.Change{{Sense: profile.Lost, Subject: "socket", Old: "SCMP_ACT_ALLOW when arg0 <= 8", New: "SCMP_ACT_ALLOW when arg0 == 2"}},
		},
		"another condition": {
			on(x, rule("ALLOW", "socket", cond(0, "EQ", 1))), on(x, rule("ALLOW", "socket", cond(0, "EQ", 2))),
			[]profile.Change{{Sense: profile.Altered, Subject: "socket", Old: "SCMP_ACT_ALLOW when arg0 == 1", New: "SCMP_ACT_ALLOW when arg0 == 2"}},
		},
		"another errno": {
			on(x, `{"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38}`), on(x),
			[]profile.Change{{Sense: profile.Altered, Subject: "clone3", Old: "SCMP_ACT_ERRNO(38)", New: "SCMP_ACT_ERRNO(1)"}},
		},
		"logging": {
			on(x, rule("ALLOW", "read")), on(x, rule("LOG", "read")),
			[]profile.Change{{Sense: profile.Altered, Subject: "read", Old: "SCMP_ACT_ALLOW", New: "SCMP_ACT_LOG"}},
		},
		"a denied condition more": {
			`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[` + rule("ERRNO", "read", cond(0, "EQ", 1)) + `]}`,
			`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[` + rule("ERRNO", "read", cond(0, "LE", 1)) + `]}`,
			[]profile.Change{{Sense: profile.Lost, Subject: "read", Old: "SCMP_ACT_ERRNO(1) when arg0 == 1", New: "SCMP_ACT_ERRNO(1) when arg0 <= 1"}},
		},
	})
}

func TestDiffOfTheWholeProfile(t *testing.T) {
	compare(t, map[string]diffCase{
		"the default, not what is named": {
			`{"defaultAction":"SCMP_ACT_KILL","syscalls":[` + rule("ALLOW", "read") + `]}`, `{"defaultAction":"SCMP_ACT_LOG","syscalls":[` + rule("ALLOW", "read") + `]}`,
			[]profile.Change{{Sense: profile.Gained, Subject: "default action", Old: "SCMP_ACT_KILL_THREAD", New: "SCMP_ACT_LOG"}},
		},
		"architectures": {
			on("X86_64 X86"), on("X32 X86_64"),
			[]profile.Change{{Sense: profile.Gained, Subject: "architecture", New: "SCMP_ARCH_X32"}, {Sense: profile.Lost, Subject: "architecture", Old: "SCMP_ARCH_X86"}},
		},
		"architectures for none": {
			on(""), on("X86_64"), []profile.Change{{Sense: profile.Altered, Subject: "architecture", New: "SCMP_ARCH_X86_64"}},
		},
		"flags": {
			`{"defaultAction":"SCMP_ACT_KILL","flags":["SECCOMP_FILTER_FLAG_LOG"]}`, `{"defaultAction":"SCMP_ACT_KILL","flags":["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]}`,
			[]profile.Change{
				{Sense: profile.Altered, Subject: "flag", Old: "SECCOMP_FILTER_FLAG_LOG"},
				{Sense: profile.Gained, Subject: "flag", New: "SECCOMP_FILTER_FLAG_SPEC_ALLOW"},
			},
		},
		"a listener": {
			`{"defaultAction":"SCMP_ACT_KILL"}`, `{"defaultAction":"SCMP_ACT_KILL","listenerPath":"/x"}`,
			[]profile.Change{{Sense: profile.Altered, Subject: "listenerPath", New: "/x"}},
		},
	})
}

func compare(t *testing.T, tests map[string]diffCase) {
	t.Helper()
	k := seccomp.New(seccomp.Options{})
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			old, err := k.Parse("old", []byte(tc.old))
			if err != nil {
				t.Fatal(err)
			}
			updated, err := k.Parse("new", []byte(tc.updated))
			if err != nil {
				t.Fatal(err)
			}
			got, err := k.Diff(old, updated)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
