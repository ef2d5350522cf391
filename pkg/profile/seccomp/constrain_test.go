package seccomp_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/reason"
)

// allBut is a Resolver that knows all real syscalls but those it holds.
type allBut map[string]bool

func (u allBut) Resolves(name string) bool { return !u[name] && len(embedded().Syscalls[name]) > 0 }

func raw(texts ...string) []profile.Limits {
	var all []profile.Limits
	for _, text := range texts {
		if text == "" {
			all = append(all, nil)
			continue
		}
		all = append(all, profile.Limits(text))
	}
	return all
}

// on makes a profile that denies by default on the given architectures.
func on(arches string, rules ...string) string {
	var named []string
	for _, a := range strings.Fields(arches) {
		named = append(named, `"SCMP_ARCH_`+a+`"`)
	}
	return fmt.Sprintf(`{"defaultAction":"SCMP_ACT_ERRNO","architectures":[%s],"syscalls":[%s]}`,
		strings.Join(named, ","), strings.Join(rules, ","))
}

func rule(action, name string, args ...string) string {
	return fmt.Sprintf(`{"names":["%s"],"action":"SCMP_ACT_%s","args":[%s]}`, name, action, strings.Join(args, ","))
}

func cond(index int, op string, value uint64, two ...uint64) string {
	text := fmt.Sprintf(`{"index":%d,"value":%d,"op":"SCMP_CMP_%s"`, index, value, op)
	if len(two) > 0 {
		text += fmt.Sprintf(`,"valueTwo":%d`, two[0])
	}
	return text + "}"
}

// noNamespaces is the mask of clone's namespace flags in containerd's default
// profile: CLONE_NEWNS|NEWUTS|NEWIPC|NEWUSER|NEWPID|NEWNET|NEWCGROUP.
const noNamespaces = 0x7E020000

type verdictCase struct {
	profile string
	limits  []profile.Limits
	want    error
	says    string // part of the refusal
}

const x86 = "X86_64 X86 X32"

func TestRuntimeDefault(t *testing.T) {
	masked := func(mask uint64, two ...uint64) string {
		return rule("ALLOW", "clone", cond(0, "MASKED_EQ", mask, two...))
	}
	judge(t, nil, map[string]verdictCase{
		"nothing allowed":                {profile: on(x86)},
		"common syscalls":                {profile: on(x86, rule("ALLOW", "read"), rule("ALLOW", "openat2"))},
		"own syscalls of amd64":          {profile: on("X86_64", rule("ALLOW", "arch_prctl"), rule("ALLOW", "modify_ldt"))},
		"names of several architectures": {profile: on("X86_64 AARCH64", rule("ALLOW", "arch_prctl"), rule("ALLOW", "set_tls"))},
		"cacheflush of MIPS":             {profile: on("MIPS", rule("ALLOW", "cacheflush")), want: reason.ProfileForbidden},
		"no architectures":               {profile: on("", rule("ALLOW", "read"), rule("ALLOW", "arch_prctl"))},
		"mount":                          {profile: on(x86, rule("ALLOW", "mount")), want: reason.ProfileForbidden, says: "mount is beyond RuntimeDefault"},
		"mount by LOG":                   {profile: on(x86, rule("LOG", "mount")), want: reason.ProfileForbidden},
		"mount with a condition":         {profile: on(x86, rule("ALLOW", "mount", cond(0, "EQ", 0))), want: reason.ProfileForbidden},
		"mount denied":                   {profile: on(x86, rule("KILL", "mount"))},
		"mount denied, then allowed":     {profile: on(x86, rule("KILL", "mount"), rule("ALLOW", "mount")), want: reason.ProfileForbidden},
		"a name nobody knows":            {profile: on(x86, rule("ALLOW", "openatt")), want: reason.ProfileForbidden, says: "did you mean openat?"},
		"clone3":                         {profile: on(x86, rule("ALLOW", "clone3")), want: reason.ProfileForbidden},
		"the same beside harmless":       {profile: on(x86, `{"names":["read","bpf"],"action":"SCMP_ACT_ALLOW"}`), want: reason.ProfileForbidden, says: "bpf"},

		"clone as containerd allows":     {profile: on(x86, masked(noNamespaces))},
		"clone with a wider mask":        {profile: on(x86, masked(noNamespaces|0xff))},
		"clone with one value":           {profile: on(x86, rule("ALLOW", "clone", cond(0, "EQ", 0x11)))},
		"clone with more conditions":     {profile: on(x86, rule("ALLOW", "clone", cond(0, "MASKED_EQ", noNamespaces), cond(1, "NE", 0)))},
		"clone unconditionally":          {profile: on(x86, rule("ALLOW", "clone")), want: reason.ProfileForbidden, says: "arg0 & 0x7e020000 == 0x0"},
		"clone with a narrower mask":     {profile: on(x86, masked(noNamespaces&^0x10000000)), want: reason.ProfileForbidden},
		"clone with a namespace":         {profile: on(x86, masked(noNamespaces, 0x10000000)), want: reason.ProfileForbidden},
		"clone of another argument":      {profile: on(x86, rule("ALLOW", "clone", cond(1, "MASKED_EQ", noNamespaces))), want: reason.ProfileForbidden},
		"clone without mask":             {profile: on(x86, masked(0)), want: reason.ProfileForbidden},
		"clone with a high mask":         {profile: on(x86, masked(0xffffffff00000000)), want: reason.ProfileForbidden},
		"clone greater than nothing":     {profile: on(x86, rule("ALLOW", "clone", cond(0, "GE", 0))), want: reason.ProfileForbidden},
		"clone never":                    {profile: on(x86, rule("ALLOW", "clone", cond(0, "LT", 0))), want: reason.ProfileForbidden},
		"clone but one value":            {profile: on(x86, rule("ALLOW", "clone", cond(0, "NE", noNamespaces))), want: reason.ProfileForbidden},
		"a bit outside the mask":         {profile: on(x86, masked(noNamespaces&^0x10000000, 0x10000000)), want: reason.ProfileForbidden},
		"a bit outside a good mask":      {profile: on(x86, masked(noNamespaces, 1))},
		"one index twice is OR":          {profile: on(x86, rule("ALLOW", "clone", cond(0, "MASKED_EQ", noNamespaces), cond(0, "GE", 0))), want: reason.ProfileForbidden},
		"another index twice splits too": {profile: on(x86, rule("ALLOW", "clone", cond(0, "MASKED_EQ", noNamespaces), cond(1, "EQ", 0), cond(1, "EQ", 1))), want: reason.ProfileForbidden},
		"clone on s390x":                 {profile: on("S390X S390", rule("ALLOW", "clone", cond(1, "MASKED_EQ", noNamespaces)))},
		"clone of amd64 on s390x":        {profile: on("S390X", masked(noNamespaces)), want: reason.ProfileForbidden, says: "only when arg1"},
		"clone, architectures absent":    {profile: on("", masked(noNamespaces)), want: reason.ProfileForbidden, says: "name the architectures"},
		"clone of s390x on amd64":        {profile: on("X86_64", rule("ALLOW", "clone", cond(1, "MASKED_EQ", noNamespaces))), want: reason.ProfileForbidden},
		"an architecture of no baseline": {profile: on("PARISC", rule("ALLOW", "read")), want: reason.ProfileForbidden},
	})
}

func TestRuntimeDefaultSocketsAndDefaults(t *testing.T) {
	judge(t, nil, map[string]verdictCase{
		"socket of one family":           {profile: on(x86, rule("ALLOW", "socket", cond(0, "EQ", 2)))},
		"socket of low families":         {profile: on(x86, rule("ALLOW", "socket", cond(0, "LE", 30)))},
		"socket of any family":           {profile: on(x86, rule("ALLOW", "socket")), want: reason.ProfileForbidden, says: "arg0 <= 37"},
		"AF_ALG":                         {profile: on(x86, rule("ALLOW", "socket", cond(0, "EQ", 38))), want: reason.ProfileForbidden},
		"AF_VSOCK":                       {profile: on(x86, rule("ALLOW", "socket", cond(0, "EQ", 40))), want: reason.ProfileForbidden},
		"families up to AF_ALG":          {profile: on(x86, rule("ALLOW", "socket", cond(0, "LE", 38))), want: reason.ProfileForbidden},
		"AF_ALG with high bits":          {profile: on(x86, rule("ALLOW", "socket", cond(0, "EQ", 1<<32|38))), want: reason.ProfileForbidden},
		"AF_INET with high bits":         {profile: on(x86, rule("ALLOW", "socket", cond(0, "EQ", 1<<32|2))), want: reason.ProfileForbidden},
		"personality beyond the default": {profile: on(x86, rule("ALLOW", "personality", cond(0, "EQ", 0x0040000))), want: reason.ProfileForbidden},
		"personality asked for":          {profile: on(x86, rule("ALLOW", "personality", cond(0, "EQ", 0xffffffff)))},

		"default ALLOW":     {profile: `{"defaultAction":"SCMP_ACT_ALLOW"}`, want: reason.ProfileForbidden, says: "default action SCMP_ACT_ALLOW"},
		"default LOG":       {profile: `{"defaultAction":"SCMP_ACT_LOG"}`, want: reason.ProfileForbidden},
		"default TRAP":      {profile: `{"defaultAction":"SCMP_ACT_TRAP"}`},
		"default KILL":      {profile: `{"defaultAction":"SCMP_ACT_KILL_THREAD"}`},
		"the flags of runc": {profile: `{"defaultAction":"SCMP_ACT_KILL","flags":["SECCOMP_FILTER_FLAG_SPEC_ALLOW","SECCOMP_FILTER_FLAG_LOG"]}`},
	})
}

func TestNoPolicyAdmits(t *testing.T) {
	unbounded := `{"baseline":"Unbounded","allowedSyscalls":["read"]}`
	cases := map[string]verdictCase{}
	for name, p := range map[string]string{
		"default TRACE":          `{"defaultAction":"SCMP_ACT_TRACE"}`,
		"default NOTIFY":         `{"defaultAction":"SCMP_ACT_NOTIFY"}`,
		"TRACE":                  on("X86_64", rule("TRACE", "read")),
		"NOTIFY":                 on("X86_64", rule("NOTIFY", "read")),
		"a listener":             `{"defaultAction":"SCMP_ACT_ERRNO","listenerPath":"/run/x"}`,
		"errno 0":                entry(`"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":0`),
		"errno 4096":             entry(`"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":4096`),
		"errno 65536":            entry(`"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":65536`),
		"default errno 0":        `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":0}`,
		"default errno too high": `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4294967295}`,
	} {
		cases[name+", by default"] = verdictCase{profile: p, want: reason.ProfileForbidden}
		cases[name+", unbounded"] = verdictCase{profile: p, limits: raw(unbounded), want: reason.ProfileForbidden}
	}
	cases["errno 4095"] = verdictCase{profile: entry(`"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":4095`)}
	judge(t, allBut{}, cases)
}

func TestPolicies(t *testing.T) {
	mounts := on("X86_64", rule("ALLOW", "mount"))
	judge(t, nil, map[string]verdictCase{
		"a relaxation":                    {profile: mounts, limits: raw(`{"allowedSyscalls":["mount"]}`)},
		"a relaxation of another":         {profile: mounts, limits: raw(`{"allowedSyscalls":["umount2"]}`), want: reason.ProfileForbidden},
		"a relaxation in one of two":      {profile: mounts, limits: raw(`{"allowedSyscalls":["mount"]}`, `{}`), want: reason.ProfileForbidden},
		"a relaxation beside nil":         {profile: mounts, limits: raw(`{"allowedSyscalls":["mount"]}`, ""), want: reason.ProfileForbidden},
		"two kinds of relaxation":         {profile: mounts, limits: raw(`{"allowedSyscalls":["mount"]}`, `{"baseline":"Unbounded"}`)},
		"unbounded":                       {profile: mounts, limits: raw(`{"baseline":"Unbounded"}`)},
		"unbounded beside bounded":        {profile: mounts, limits: raw(`{"baseline":"Unbounded"}`, `{"baseline":"RuntimeDefault"}`), want: reason.ProfileForbidden},
		"an empty baseline":               {profile: mounts, limits: raw(`{"baseline":""}`), want: reason.ProfileForbidden},
		"denied and allowed":              {profile: mounts, limits: raw(`{"baseline":"Unbounded","allowedSyscalls":["mount"],"deniedSyscalls":["mount"]}`), want: reason.ProfileForbidden},
		"denied by the other":             {profile: mounts, limits: raw(`{"baseline":"Unbounded"}`, `{"baseline":"Unbounded","deniedSyscalls":["mount"]}`), want: reason.ProfileForbidden},
		"denied within the baseline":      {profile: on("X86_64", rule("ALLOW", "ptrace")), limits: raw(`{"deniedSyscalls":["ptrace"]}`), want: reason.ProfileForbidden},
		"denied, allowed with conditions": {profile: on("X86_64", rule("ALLOW", "ptrace", cond(0, "EQ", 0))), limits: raw(`{"deniedSyscalls":["ptrace"]}`), want: reason.ProfileForbidden},
		"null is the safe default":        {profile: mounts, limits: raw(`null`), want: reason.ProfileForbidden},
		"a baseline nobody knows":         {profile: mounts, limits: raw(`{"baseline":"None"}`), want: reason.TrustPolicyInvalid},
		"a baseline in another case":      {profile: mounts, limits: raw(`{"baseline":"unbounded"}`), want: reason.TrustPolicyInvalid},
		"a field in another case":         {profile: mounts, limits: raw(`{"Baseline":"Unbounded"}`), want: reason.TrustPolicyInvalid},
		"a denied name nobody knows":      {profile: on("X86_64"), limits: raw(`{"deniedSyscalls":["mout"]}`), want: reason.TrustPolicyInvalid, says: "did you mean mount?"},
		"a denied name in another case":   {profile: on("X86_64"), limits: raw(`{"deniedSyscalls":["Mount"]}`), want: reason.TrustPolicyInvalid},
		"one unreadable of two":           {profile: on("X86_64"), limits: raw("", `{"x":1}`), want: reason.TrustPolicyInvalid},
	})
}

// TestDeniedMeansItsAliasesToo names, for what a policy denies, what a profile
// must not allow either.
func TestDeniedMeansItsAliasesToo(t *testing.T) {
	for denied, reaches := range map[string]string{
		"open":          "openat openat2 creat open_by_handle_at io_uring_setup io_uring_enter",
		"socket":        "socketcall io_uring_setup",
		"connect":       "socketcall io_uring_enter",
		"shmat":         "ipc",
		"fork":          "vfork clone clone3",
		"unshare":       "clone3",
		"execve":        "execveat",
		"mount":         "move_mount fsmount open_tree",
		"setuid":        "setuid32 setresuid setresuid32 setreuid",
		"chown":         "chown32 lchown fchownat",
		"clock_settime": "clock_settime64 settimeofday adjtimex clock_adjtime64",
		"kill":          "tgkill pidfd_send_signal",
		"init_module":   "finit_module",
		"read":          "readv pread64 preadv2 io_uring_setup",
		"ptrace":        "process_vm_readv syscall",
		"umount2":       "umount",
		"semop":         "semtimedop semtimedop_time64 ipc",
	} {
		limits := raw(fmt.Sprintf(`{"baseline":"Unbounded","deniedSyscalls":[%q]}`, denied))
		cases := map[string]verdictCase{}
		for _, name := range strings.Fields(denied + " " + reaches) {
			p := on("X86_64 X86", rule("ALLOW", name, cond(3, "EQ", 7)))
			cases[denied+": "+name] = verdictCase{profile: p, limits: limits, want: reason.ProfileForbidden, says: name + " is denied by policy"}
		}
		cases[denied+": getpid is none of it"] = verdictCase{profile: on("X86_64", rule("ALLOW", "getpid")), limits: limits}
		judge(t, nil, cases)
	}
	judge(t, nil, map[string]verdictCase{
		"what is narrower stays allowed": {profile: on("X86_64", rule("ALLOW", "openat")), limits: raw(`{"deniedSyscalls":["openat2"]}`)},
		"clone stays without clone3":     {profile: on("X86_64", rule("ALLOW", "clone", cond(0, "MASKED_EQ", noNamespaces))), limits: raw(`{"deniedSyscalls":["unshare","clone3"]}`)},
		"clone makes namespaces": {profile: on("X86_64", rule("ALLOW", "clone")), want: reason.ProfileForbidden,
			limits: raw(`{"baseline":"Unbounded","allowedSyscalls":["clone"],"deniedSyscalls":["unshare"]}`)},
	})
}

func TestDefaultsThatAllow(t *testing.T) {
	allow := func(rules ...string) string {
		return `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[` + strings.Join(rules, ",") + `]}`
	}
	const unbounded = `{"baseline":"Unbounded"}`
	const noBpf = `{"baseline":"Unbounded","deniedSyscalls":["bpf"]}`
	const noPtrace = `{"baseline":"Unbounded","deniedSyscalls":["ptrace"]}`
	const noSocket = `{"baseline":"Unbounded","deniedSyscalls":["socket"]}`
	const noUnshare = `{"baseline":"Unbounded","deniedSyscalls":["unshare"]}`
	ring := []string{rule("ERRNO", "io_uring_setup"), rule("ERRNO", "io_uring_enter"), rule("ERRNO", "io_uring_register")}
	judge(t, allBut{"raed": true, "fchmodat2": true}, map[string]verdictCase{
		"unbounded":                    {profile: allow(), limits: raw(unbounded)},
		"unbounded, LOG":               {profile: `{"defaultAction":"SCMP_ACT_LOG"}`, limits: raw(unbounded)},
		"a deny rule that is skipped":  {profile: allow(rule("ERRNO", "raed")), limits: raw(unbounded), want: reason.ProfileForbidden, says: "did you mean read?"},
		"a newer name than libseccomp": {profile: allow(rule("KILL", "fchmodat2")), limits: raw(unbounded), want: reason.ProfileForbidden, says: "fchmodat2 would be skipped"},
		"an allow rule that is":        {profile: allow(rule("LOG", "raed")), limits: raw(unbounded)},
		"denied and not mentioned":     {profile: allow(), limits: raw(noBpf), want: reason.ProfileForbidden, says: "no unconditional rule denies it"},
		"denied":                       {profile: allow(rule("ERRNO", "bpf")), limits: raw(noBpf)},
		"denied by TRAP":               {profile: allow(rule("TRAP", "bpf")), limits: raw(noBpf)},
		"denied with conditions":       {profile: allow(rule("ERRNO", "bpf", cond(0, "GE", 0))), limits: raw(noBpf), want: reason.ProfileForbidden},
		"denied and allowed":           {profile: allow(rule("ERRNO", "bpf"), rule("ALLOW", "bpf")), limits: raw(noBpf), want: reason.ProfileForbidden},
		"denied and logged":            {profile: allow(rule("ERRNO", "bpf"), rule("LOG", "bpf", cond(0, "EQ", 1))), limits: raw(noBpf), want: reason.ProfileForbidden},
		"an alias left out":            {profile: allow(rule("ERRNO", "ptrace"), rule("ERRNO", "process_vm_readv")), limits: raw(noPtrace), want: reason.ProfileForbidden, says: "process_vm_writev"},
		"all aliases":                  {profile: allow(rule("ERRNO", "ptrace"), rule("ERRNO", "process_vm_readv"), rule("KILL", "process_vm_writev")), limits: raw(noPtrace)},
		"the multiplexer left out":     {profile: allow(append(ring, rule("ERRNO", "socket"))...), limits: raw(noSocket), want: reason.ProfileForbidden, says: "socketcall"},
		"the multiplexer too":          {profile: allow(append(ring, rule("ERRNO", "socket"), rule("ERRNO", "socketcall"))...), limits: raw(noSocket)},
		"clone makes namespaces":       {profile: allow(rule("ERRNO", "unshare"), rule("ERRNO", "clone3")), limits: raw(noUnshare), want: reason.ProfileForbidden, says: "clone can do its work"},
		"clone is denied":              {profile: allow(rule("ERRNO", "unshare"), rule("ERRNO", "clone3"), rule("ERRNO", "clone")), limits: raw(noUnshare)},
		"not in every policy":          {profile: allow(), limits: raw(unbounded, ""), want: reason.ProfileForbidden},
	})
	judge(t, nil, map[string]verdictCase{
		"nobody can resolve names":       {profile: allow(), limits: raw(unbounded), want: reason.ProfileForbidden, says: "without libseccomp"},
		"not needed where denying":       {profile: on("X86_64", rule("ERRNO", "raed")), limits: raw(unbounded)},
		"not needed for an allowed name": {profile: on("X86_64", rule("ALLOW", "raed")), limits: raw(unbounded)},
	})
}

// TestHandMadeProfilesAreJudgedToo covers what Parse would never return.
func TestHandMadeProfilesAreJudgedToo(t *testing.T) {
	k := seccomp.New(seccomp.Options{Resolver: allBut{}})
	one := func(s seccomp.Syscall) *seccomp.Profile {
		return &seccomp.Profile{DefaultAction: seccomp.ActErrno, Syscalls: []seccomp.Syscall{s}}
	}
	for name, p := range map[string]*seccomp.Profile{
		"no default action": {},
		"unknown default":   {DefaultAction: "SCMP_ACT_MAYBE"},
		"unknown arch":      {DefaultAction: seccomp.ActErrno, Architectures: []seccomp.Arch{"SCMP_ARCH_VAX"}},
		"unknown flag":      {DefaultAction: seccomp.ActErrno, Flags: []seccomp.Flag{"SECCOMP_FILTER_FLAG_NEW_LISTENER"}},
		"unknown action":    one(seccomp.Syscall{Names: []string{"read"}, Action: "scmp_act_allow"}),
		"odd name":          one(seccomp.Syscall{Names: []string{"Read"}, Action: seccomp.ActErrno}),
		"unknown operator":  one(seccomp.Syscall{Names: []string{"read"}, Action: seccomp.ActAllow, Args: []seccomp.Arg{{Op: "SCMP_CMP_EQ "}}}),
		"index 6":           one(seccomp.Syscall{Names: []string{"read"}, Action: seccomp.ActAllow, Args: []seccomp.Arg{{Index: 6, Op: seccomp.OpEqualTo}}}),
		"metadata":          {DefaultAction: seccomp.ActErrno, ListenerMetadata: "x"},
	} {
		for _, limits := range [][]profile.Limits{nil, raw(`{"baseline":"Unbounded"}`)} {
			if err := k.Constrain(p, profile.ForAnyone(), limits); !errors.Is(err, reason.ProfileForbidden) {
				t.Errorf("%s: got %v", name, err)
			}
		}
	}
	if err := k.Constrain((*seccomp.Profile)(nil), profile.ForAnyone(), nil); !errors.Is(err, reason.ProfileForbidden) {
		t.Errorf("a nil profile: got %v", err)
	}
}

func TestRefusalsPointAtTheRule(t *testing.T) {
	k := seccomp.New(seccomp.Options{})
	p, err := k.Parse("web.json", []byte("{\"defaultAction\":\"SCMP_ACT_ERRNO\",\n \"syscalls\":[\n  {\"names\":[\"read\",\n   \"bpf\"],\"action\":\"SCMP_ACT_ALLOW\"}]}"))
	if err != nil {
		t.Fatal(err)
	}
	refusal, ok := reason.Of(k.Constrain(p, profile.ForAnyone(), nil))
	if !ok || refusal.Object != "web.json:4:4" {
		t.Errorf("got %v", refusal)
	}
}

func judge(t *testing.T, resolver seccomp.Resolver, cases map[string]verdictCase) {
	t.Helper()
	k := seccomp.New(seccomp.Options{Resolver: resolver})
	if _, none := resolver.(allBut); !none {
		k = seccomp.New(seccomp.Options{})
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			p, err := k.Parse("p.json", []byte(tc.profile))
			if err != nil {
				t.Fatal(err)
			}
			err = k.Constrain(p, profile.ForAnyone(), tc.limits)
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if tc.want != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%q does not say %q", err, tc.says)
			}
		})
	}
}
