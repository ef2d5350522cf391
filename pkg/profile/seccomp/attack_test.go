package seccomp_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/reason"
)

// What a policy denies must not be had by another name, whatever else the
// policy relaxes.
func TestDeniedWorkIsNotHadByAnotherName(t *testing.T) {
	cases := map[string]verdictCase{}
	for denied, other := range map[string]string{
		"write":          "io_submit",
		"read":           "io_submit",
		"ppoll":          "io_submit",
		"open_tree":      "open_tree_attr",
		"mount":          "open_tree_attr",
		"vm86":           "vm86old",
		"ioctl":          "io_uring_setup",
		"ptrace":         "process_vm_writev",
		"io_uring_enter": "io_uring_setup",
		"mknod":          "mknodat",
		"settimeofday":   "clock_adjtime64",
		"setuid":         "setresuid32",
	} {
		cases[denied+" by "+other] = verdictCase{
			profile: on("X86_64", rule("ALLOW", other)),
			limits:  raw(fmt.Sprintf(`{"baseline":"Unbounded","allowedSyscalls":[%q],"deniedSyscalls":[%q]}`, other, denied)),
			want:    reason.ProfileForbidden, says: other + " is denied by policy",
		}
	}
	judge(t, nil, cases)
}

// On these architectures libseccomp makes two rules of one for a socket or
// System V IPC call, and the second lets the multiplexer through.
func TestADeniedMultiplexerIsNotLetThroughByItsParts(t *testing.T) {
	noSocketcall := raw(`{"baseline":"Unbounded","deniedSyscalls":["socketcall"]}`)
	noIPC := raw(`{"deniedSyscalls":["ipc"]}`)
	judge(t, nil, map[string]verdictCase{
		"socket on i386":               {profile: on(x86, rule("ALLOW", "socket", cond(0, "EQ", 2))), limits: noSocketcall, want: reason.ProfileForbidden, says: "socketcall"},
		"connect on s390x":             {profile: on("S390X", rule("ALLOW", "connect")), limits: noSocketcall, want: reason.ProfileForbidden},
		"connect, no architecture":     {profile: on("", rule("ALLOW", "connect")), limits: noSocketcall, want: reason.ProfileForbidden},
		"shmat on i386":                {profile: on(x86, rule("ALLOW", "shmat")), limits: noIPC, want: reason.ProfileForbidden, says: "ipc"},
		"socket on amd64 alone":        {profile: on("X86_64", rule("ALLOW", "socket", cond(0, "EQ", 2))), limits: noSocketcall},
		"socket denied on i386":        {profile: on(x86, rule("ERRNO", "socket")), limits: noSocketcall},
		"read on i386":                 {profile: on(x86, rule("ALLOW", "read")), limits: noSocketcall},
		"connect where bind is denied": {profile: on(x86, rule("ALLOW", "connect")), limits: raw(`{"deniedSyscalls":["bind"]}`)},
	})
}

// Of rules that contradict each other, libseccomp makes filters that let
// through what none of them allows.
func TestContradictingRulesAreNotTrusted(t *testing.T) {
	asked := rule("ALLOW", "personality", cond(0, "EQ", 0))
	denyOther := `{"names":["personality"],"action":"SCMP_ACT_ERRNO","errnoRet":2,"args":[` + cond(1, "GE", 45) + `,` + cond(0, "NE", 45) + `]}`
	open := func(rules ...string) string {
		return `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[` + strings.Join(rules, ",") + `]}`
	}
	noBpf := raw(`{"baseline":"Unbounded","deniedSyscalls":["bpf"]}`)
	judge(t, allBut{}, map[string]verdictCase{
		"allowed and denied under conditions":   {profile: on("X86_64", denyOther, asked), want: reason.ProfileForbidden, says: "another effect"},
		"in the other order":                    {profile: on("X86_64", asked, denyOther), want: reason.ProfileForbidden},
		"denied as the default does":            {profile: on("X86_64", asked, rule("ERRNO", "personality", cond(0, "EQ", 45)))},
		"denied alone":                          {profile: on("X86_64", denyOther)},
		"allowed at will by the default":        {profile: on("X86_64", rule("ALLOW", "read"), rule("KILL", "read", cond(0, "EQ", 0)))},
		"conditions that the default lacks":     {profile: on("X86_64", rule("ALLOW", "read", cond(0, "EQ", 1)), rule("KILL", "read", cond(0, "EQ", 0)))},
		"open, one unconditional":               {profile: open(rule("ERRNO", "bpf")), limits: noBpf},
		"open, one unconditional and one other": {profile: open(rule("ERRNO", "bpf"), rule("KILL", "bpf", cond(0, "EQ", 1))), limits: noBpf, want: reason.ProfileForbidden},
	})
}
