package seccomp_test

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/reason"
)

const dialect = `{
  "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "defaultErrno": "ENOSYS",
  "archMap": [
    {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
    {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}],
  "syscalls": [
    {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "all", "includes": {}, "excludes": {}},
    {"name": "write", "action": "SCMP_ACT_ALLOW"},
    {"names": ["modify_ldt"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x86"]}},
    {"names": ["set_tls"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
    {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}},
    {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errno": "EPERM", "errnoRet": 38, "excludes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}},
    {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
    {"names": ["setns"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.1"}},
    {"names": ["acct"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "6.1", "arches": ["s390x"]}}]}`

func TestFlatten(t *testing.T) {
	tests := map[string]struct {
		opts   seccomp.FlattenOptions
		arches []seccomp.Arch
		names  string
	}{
		"zero options":              {seccomp.FlattenOptions{}, []seccomp.Arch{"SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"}, "acct clone3 modify_ldt ptrace read write"},
		"arm64":                     {seccomp.FlattenOptions{Arch: "arm64"}, []seccomp.Arch{"SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"}, "acct clone3 ptrace read set_tls write"},
		"not in archMap":            {seccomp.FlattenOptions{Arch: "s390x"}, []seccomp.Arch{"SCMP_ARCH_S390X"}, "clone3 ptrace read write"},
		"one of two caps":           {seccomp.FlattenOptions{Arch: "s390x", Caps: []string{"CAP_BPF"}}, []seccomp.Arch{"SCMP_ARCH_S390X"}, "ptrace read write"},
		"both caps":                 {seccomp.FlattenOptions{Arch: "s390x", Caps: []string{"CAP_BPF", "CAP_SYS_ADMIN"}}, []seccomp.Arch{"SCMP_ARCH_S390X"}, "bpf ptrace read write"},
		"an old kernel":             {seccomp.FlattenOptions{Arch: "s390x", MinKernel: "4.7"}, []seccomp.Arch{"SCMP_ARCH_S390X"}, "clone3 read write"},
		"a new kernel, in full":     {seccomp.FlattenOptions{Arch: "riscv64", MinKernel: "6.1.0-13"}, []seccomp.Arch{"SCMP_ARCH_RISCV64"}, "clone3 ptrace read setns write"},
		"a kernel with more digits": {seccomp.FlattenOptions{Arch: "riscv64", MinKernel: "5.100"}, []seccomp.Arch{"SCMP_ARCH_RISCV64"}, "acct clone3 ptrace read write"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			p := flattened(t, []byte(dialect), tc.opts)
			names := map[string]bool{}
			for _, s := range p.Syscalls {
				for _, n := range s.Names {
					names[n] = true
				}
				if s.Names[0] == "clone3" && (s.ErrnoRet == nil || *s.ErrnoRet != 1) {
					t.Errorf("errno does not go before errnoRet: %v", s.ErrnoRet)
				}
			}
			if diff := cmp.Diff(tc.names, strings.Join(slices.Sorted(maps.Keys(names)), " ")); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.arches, p.Architectures); diff != "" {
				t.Errorf("architectures (-want +got):\n%s", diff)
			}
			if p.DefaultErrnoRet == nil || *p.DefaultErrnoRet != 38 {
				t.Errorf("default errno %v, want 38", p.DefaultErrnoRet)
			}
		})
	}
}

func TestFlattenKeepsPlainProfiles(t *testing.T) {
	flat, err := seccomp.Flatten([]byte(tight), seccomp.FlattenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var want, got any
	if err := errors.Join(json.Unmarshal([]byte(tight), &want), json.Unmarshal(flat, &got)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFlattenRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		data string
		opts seccomp.FlattenOptions
	}{
		"an unknown architecture":   {tight, seccomp.FlattenOptions{Arch: "vax"}},
		"a malformed kernel":        {tight, seccomp.FlattenOptions{MinKernel: "six"}},
		"kernel 0.0":                {tight, seccomp.FlattenOptions{MinKernel: "0.0"}},
		"a capability without CAP_": {tight, seccomp.FlattenOptions{Caps: []string{"SYS_ADMIN"}}},
		"a field of nobody":         {entry(`"names":["read"],"action":"SCMP_ACT_ALLOW","when":1`), seccomp.FlattenOptions{}},
		"includes of nobody":        {entry(`"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"uid":1}`), seccomp.FlattenOptions{}},
		"includes in another case":  {entry(`"names":["read"],"action":"SCMP_ACT_ALLOW","Includes":{"caps":["CAP_BPF"]}`), seccomp.FlattenOptions{}},
		"name and names":            {entry(`"name":"read","names":["write"],"action":"SCMP_ACT_ALLOW"`), seccomp.FlattenOptions{}},
		"names and name":            {entry(`"names":["write"],"name":"read","action":"SCMP_ACT_ALLOW"`), seccomp.FlattenOptions{}},
		"both kinds of lists":       {`{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86"}]}`, seccomp.FlattenOptions{}},
		"an unknown errno":          {entry(`"names":["read"],"action":"SCMP_ACT_ERRNO","errno":"EWHAT"`), seccomp.FlattenOptions{}},
		"an errno on ALLOW":         {entry(`"names":["read"],"action":"SCMP_ACT_ALLOW","errno":"EPERM"`), seccomp.FlattenOptions{}},
		"a named errno on MIPS":     {entry(`"names":["read"],"action":"SCMP_ACT_ERRNO","errno":"ENOSYS"`), seccomp.FlattenOptions{Arch: "mips64le"}},
		"a malformed minKernel":     {entry(`"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"new"}`), seccomp.FlattenOptions{}},
		"too many entries to keep":  {entries(129), seccomp.FlattenOptions{}},
	} {
		if flat, err := seccomp.Flatten([]byte(tc.data), tc.opts); !errors.Is(err, reason.ProfileInvalid) {
			t.Errorf("%s: got %s, %v", name, flat, err)
		}
	}
}

func TestFlattenIsDeterministic(t *testing.T) {
	first, err := seccomp.Flatten([]byte(dialect), seccomp.FlattenOptions{Caps: []string{"CAP_BPF"}})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		again, err := seccomp.Flatten([]byte(dialect), seccomp.FlattenOptions{Caps: []string{"CAP_BPF"}})
		if err != nil || string(again) != string(first) {
			t.Fatalf("%v\n%s", err, again)
		}
	}
}
