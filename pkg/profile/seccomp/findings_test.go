package seccomp_test

import (
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/profile/seccomp"
)

func TestFindings(t *testing.T) {
	const x = "X86_64"
	exec := rule("ALLOW", "execve")
	tests := map[string]struct {
		profile string
		says    []string // one a finding, in order
	}{
		"nothing to see":       {on(x, exec, rule("ALLOW", "clone", cond(0, "MASKED_EQ", noNamespaces))), nil},
		"a misspelt name":      {on(x, exec, rule("ALLOW", "opneat")), []string{"1:151 opneat is no known syscall; did you mean openat?"}},
		"a name like no other": {on(x, exec, rule("ALLOW", "zzzzzzzzzzzz")), []string{"zzzzzzzzzzzz is no known syscall; runtimes skip it"}},
		"no architectures":     {`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[` + exec + `]}`, []string{"no architectures are named"}},
		"one twice":            {on("X86_64 X86_64", exec), []string{"SCMP_ARCH_X86_64 stands twice"}},
		"both byte orders":     {on("X86_64 S390X", exec), []string{"no runtime can load that"}},
		"foreign to runc":      {on("X86_64 SH", exec), []string{"runc does not know the architecture SCMP_ARCH_SH"}},
		"an open default":      {`{"defaultAction":"SCMP_ACT_LOG","architectures":["SCMP_ARCH_X86_64"]}`, []string{"the default action SCMP_ACT_LOG lets"}},
		"nothing starts":       {on(x), []string{"execve is not allowed"}},
		"speculation":          {`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"flags":["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]}`, []string{"the default action", "Speculative Store Bypass"}},
		"a listener":           {`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"listenerPath":"/x"}`, []string{"the default action", "hands syscalls to an agent"}},
		"an agent":             {on(x, exec, rule("NOTIFY", "mount")), []string{"SCMP_ACT_NOTIFY leaves the decision"}},
		"as the default":       {on(x, exec, rule("ERRNO", "mount")), []string{"does what the default action does"}},
		"another errno":        {on(x, exec, `{"names":["mount"],"action":"SCMP_ACT_ERRNO","errnoRet":38}`), nil},
		"a ring":               {on(x, exec, rule("ALLOW", "io_uring_setup")), []string{"never passes the filter"}},
		"a ring denied":        {on(x, exec, rule("KILL", "io_uring_setup")), nil},
		"clone3":               {on(x, exec, rule("ALLOW", "clone3")), []string{"its flags lie behind a pointer"}},
		"the same rule twice":  {on(x, exec, rule("ALLOW", "read"), rule("ALLOW", "read")), []string{"the rule for read stands at 1:151 already"}},
		"contradiction":        {on(x, exec, rule("ALLOW", "read"), rule("KILL", "read")), []string{"read gets SCMP_ACT_KILL_THREAD here and SCMP_ACT_ALLOW at 1:151: which wins"}},
		"shadowed":             {on(x, exec, rule("ALLOW", "read"), rule("KILL", "read", cond(0, "EQ", 1))), []string{"the rule for read without conditions at 1:151 may decide alone"}},
		"shadowing":            {on(x, exec, rule("KILL", "read", cond(0, "EQ", 1)), rule("ALLOW", "read")), []string{"not the one at 1:151"}},
		"one index twice":      {on(x, exec, rule("ALLOW", "read", cond(0, "GT", 1), cond(0, "LT", 9))), []string{"one match is enough"}},
		"never":                {on(x, exec, rule("ALLOW", "read", cond(0, "LT", 0))), []string{"never holds"}},
		"always":               {on(x, exec, rule("ALLOW", "read", cond(0, "GE", 0))), []string{"always holds"}},
		"outside the mask":     {on(x, exec, rule("ALLOW", "read", cond(0, "MASKED_EQ", 1, 2))), []string{"libseccomp drops them"}},
		"a second value":       {on(x, exec, rule("ALLOW", "read", cond(0, "EQ", 1, 2))), []string{"means nothing beside SCMP_CMP_EQ"}},
	}
	k := seccomp.New(seccomp.Options{})
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := k.Parse("p.json", []byte(tc.profile))
			if err != nil {
				t.Fatal(err)
			}
			found := p.Findings()
			if len(found) != len(tc.says) {
				t.Fatalf("got %+v, want %d findings", found, len(tc.says))
			}
			for i, f := range found {
				if !strings.Contains(f.Position+" "+f.Message, tc.says[i]) {
					t.Errorf("%+v does not say %q", f, tc.says[i])
				}
			}
		})
	}
}

func TestNamesThatOnlyTheLibraryKnowsAreKnown(t *testing.T) {
	p, err := seccomp.New(seccomp.Options{Resolver: only("brandnew")}).Parse("p.json",
		[]byte(on("X86_64", rule("ALLOW", "execve"), rule("ALLOW", "brandnew"))))
	if err != nil || len(p.Findings()) > 0 {
		t.Errorf("got %v, %+v", err, p.Findings())
	}
}

type only string

func (o only) Resolves(name string) bool { return name == string(o) }

func TestFindingsAreBounded(t *testing.T) {
	names := strings.Repeat(`"zzzz",`, 2047) + `"zzzz"`
	p, err := seccomp.New(seccomp.Options{}).Parse("p.json", []byte(entry(`"names":[`+names+`],"action":"SCMP_ACT_ALLOW"`)))
	if err != nil {
		t.Fatal(err)
	}
	found := p.Findings()
	if len(found) != 257 || !strings.Contains(found[256].Message, "more") {
		t.Errorf("%d findings", len(found))
	}
}
