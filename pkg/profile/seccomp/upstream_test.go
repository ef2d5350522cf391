package seccomp_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
)

type facts struct {
	Everywhere []seccomp.Syscall            `json:"everywhere"`
	Profiles   map[string][]seccomp.Syscall `json:"profiles"`
	Tables     []string                     `json:"tables"`
	Syscalls   map[string][]int             `json:"syscalls"`
}

var embedded = sync.OnceValue(func() facts {
	var f facts
	if err := json.Unmarshal(seccomp.BaselineJSON(), &f); err != nil {
		panic(err)
	}
	return f
})

// containerdAllows evaluates containerd's default profile by itself. Rules for
// syscalls the architecture does not have let nothing through.
func containerdAllows(arch seccomp.Arch, name string, args [6]uint64, narrow bool) bool {
	f := embedded()
	goarch, table := seccomp.GoarchOf(arch)
	rules := slices.Concat(f.Everywhere, f.Profiles[goarch])
	if naivelyAllowed(rules, name, args, narrow) {
		return true
	}
	elsewhere := false
	for other, own := range f.Profiles {
		elsewhere = elsewhere || (other != goarch && slices.ContainsFunc(own, func(s seccomp.Syscall) bool {
			return slices.Contains(s.Names, name)
		}))
	}
	has := slices.ContainsFunc(f.Syscalls[name], func(i int) bool { return f.Tables[i] == table })
	x86 := table == "386" || table == "amd64"
	return elsewhere && table != "" && (!has || (name == "modify_ldt" && !x86))
}

// gen runs a command in the module that pins the projects read here.
func gen(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = filepath.Join("internal", "gen")
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}

func fromModule(t *testing.T, module, file string) []byte {
	t.Helper()
	var m struct{ Dir string }
	if err := json.Unmarshal(gen(t, "mod", "download", "-json", module), &m); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(m.Dir, file))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestTheBaselineIsWhatTheModulesSay(t *testing.T) {
	if diff := cmp.Diff(string(gen(t, "run", ".")), string(seccomp.BaselineJSON())); diff != "" {
		t.Errorf("run go generate (-modules +embedded):\n%s", diff)
	}
}

// TestContainerdsOwnProfilePasses: the baseline is no more permissive than itself.
func TestContainerdsOwnProfilePasses(t *testing.T) {
	f := embedded()
	for goarch, arches := range map[string][]seccomp.Arch{
		"amd64":   {seccomp.ArchX86_64, seccomp.ArchX86, seccomp.ArchX32},
		"arm64":   {seccomp.ArchARM, seccomp.ArchAARCH64},
		"ppc64le": {seccomp.ArchPPC64LE},
		"riscv64": {seccomp.ArchRISCV64},
		"loong64": {seccomp.ArchLOONGARCH64},
		"s390x":   {seccomp.ArchS390, seccomp.ArchS390X},
	} {
		t.Run(goarch, func(t *testing.T) {
			p := &seccomp.Profile{DefaultAction: seccomp.ActErrno, Architectures: arches,
				Syscalls: slices.Concat(f.Everywhere, f.Profiles[goarch])}
			if err := seccomp.New(seccomp.Options{}).Constrain(p, profile.ForAnyone(), nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTheTableOfAliasesNamesRealSyscalls(t *testing.T) {
	f := embedded()
	// Kept by a kernel that no table here is from.
	extinct := []string{"oldstat", "oldlstat", "oldfstat", "epoll_wait_old", "epoll_ctl_old"}
	for _, names := range seccomp.Families() {
		for _, name := range strings.Fields(names) {
			if len(f.Syscalls[name]) == 0 && !slices.Contains(extinct, name) {
				t.Errorf("%s is in no syscall table", name)
			}
		}
	}
}

// TestMobysDefaultPasses: without capabilities, moby's default profile allows
// nothing beyond containerd's on any architecture.
func TestMobysDefaultPasses(t *testing.T) {
	data := fromModule(t, "github.com/moby/profiles/seccomp", "default.json")
	for _, arch := range []string{"amd64", "arm64", "ppc64le", "riscv64", "s390x"} {
		t.Run(arch, func(t *testing.T) {
			p := flattened(t, data, seccomp.FlattenOptions{Arch: arch})
			if err := seccomp.New(seccomp.Options{}).Constrain(p, profile.ForAnyone(), nil); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("with CAP_SYS_ADMIN it does not", func(t *testing.T) {
		p := flattened(t, data, seccomp.FlattenOptions{Caps: []string{"CAP_SYS_ADMIN"}})
		if err := seccomp.New(seccomp.Options{}).Constrain(p, profile.ForAnyone(), nil); err == nil {
			t.Error("mount and bpf are within the default")
		}
	})
}

// TestContainersCommonsDefault: podman's default profile allows mount, unshare
// and more to every container, so the default must refuse it, and a policy
// that says Unbounded must admit it.
func TestContainersCommonsDefault(t *testing.T) {
	data := fromModule(t, "go.podman.io/common", "pkg/seccomp/seccomp.json")
	p := flattened(t, data, seccomp.FlattenOptions{Arch: "amd64"})
	k := seccomp.New(seccomp.Options{})
	err := k.Constrain(p, profile.ForAnyone(), nil)
	if err == nil || !strings.Contains(err.Error(), "beyond RuntimeDefault") {
		t.Errorf("got %v", err)
	}
	if err := k.Constrain(p, profile.ForAnyone(), raw(`{"baseline":"Unbounded"}`)); err != nil {
		t.Error(err)
	}
	if p.DefaultErrnoRet == nil || *p.DefaultErrnoRet != 38 {
		t.Errorf("the default errno is %v, want 38", p.DefaultErrnoRet)
	}
}

// TestDialectsAreRefusedUnflattened holds the reason for Flatten.
func TestDialectsAreRefusedUnflattened(t *testing.T) {
	data := fromModule(t, "github.com/moby/profiles/seccomp", "default.json")
	if _, err := seccomp.Parse("default.json", data); err == nil || !strings.Contains(err.Error(), "--flatten") {
		t.Errorf("got %v", err)
	}
}

func flattened(t *testing.T, data []byte, opts seccomp.FlattenOptions) *seccomp.Profile {
	t.Helper()
	flat, err := seccomp.Flatten(data, opts)
	if err != nil {
		t.Fatal(err)
	}
	p, err := seccomp.Parse("flat.json", flat)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
