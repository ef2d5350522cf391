package seccomp_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/reason"
)

func roundTrip(t *testing.T, data []byte) {
	t.Helper()
	k := seccomp.New(seccomp.Options{})
	p, err := k.Parse("p.json", data)
	if err != nil {
		t.Fatal(err)
	}
	first, err := p.(*seccomp.Profile).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := k.Parse("p.json", first)
	if err != nil {
		t.Fatalf("what it wrote it does not read: %v\n%s", err, first)
	}
	second, err := again.(*seccomp.Profile).Marshal()
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("%v, first\n%s, then\n%s", err, first, second)
	}
	if changes, err := k.Diff(p, again); err != nil || len(changes) > 0 {
		t.Errorf("rewriting changed its meaning: %v %v", changes, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{tight, mounting, everything, open, entries(3)} {
		f.Add([]byte(seed))
	}
	for _, bad := range badPayloads() {
		if len(bad.Data) < 512 {
			f.Add([]byte(bad.Data))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := seccomp.Parse("p.json", data)
		if err != nil {
			if !errors.Is(err, reason.ProfileInvalid) && !errors.Is(err, reason.TooLarge) {
				t.Errorf("the refusal is %v", err)
			}
			return
		}
		if p.DefaultAction == "" {
			t.Error("accepted without a default action")
		}
		roundTrip(t, data)
	})
}

func FuzzConstrain(f *testing.F) {
	for _, seed := range []string{tight, mounting, everything, open} {
		f.Add([]byte(seed), []byte(`{"baseline":"Unbounded","deniedSyscalls":["mount"]}`), uint64(0), uint64(38))
	}
	f.Add([]byte(on("X86_64 X86", rule("ALLOW", "clone", cond(0, "MASKED_EQ", noNamespaces)))), []byte(`{}`), uint64(0x7E020000), uint64(0))
	f.Add([]byte(on("S390X", rule("ALLOW", "socket", cond(0, "LT", 9), cond(1, "GT", 2)))), []byte(``), uint64(1), uint64(1))
	f.Fuzz(func(t *testing.T, data, limits []byte, x, y uint64) {
		k := seccomp.New(seccomp.Options{Resolver: allBut{"mount": true}})
		p, err := seccomp.Parse("p.json", data)
		if err != nil {
			return
		}
		safe := k.Constrain(p, profile.ForAnyone(), nil)
		both := k.Constrain(p, profile.ForAnyone(), []profile.Limits{nil, limits})
		if safe != nil && both == nil {
			t.Fatalf("a second policy admitted what the first forbids: %v", safe)
		}
		for _, err := range []error{safe, both} {
			if err != nil && !errors.Is(err, reason.ProfileForbidden) && !errors.Is(err, reason.TrustPolicyInvalid) {
				t.Errorf("the refusal is %v", err)
			}
		}
		if safe == nil {
			staysWithin(t, p, x, y)
		}
	})
}

// staysWithin evaluates an admitted profile and containerd's own one, both
// naively, with arguments made of x, y and every number in the profile.
func staysWithin(t *testing.T, p *seccomp.Profile, x, y uint64) {
	t.Helper()
	values := []uint64{x, y, x | y, x ^ y, 0, 1, 37, 38, 40, 1 << 28, 1<<32 | 38, ^uint64(0)}
	for _, s := range p.Syscalls {
		for _, a := range s.Args {
			values = append(values, a.Value, a.ValueTwo, a.Value+1, a.Value-1)
		}
	}
	values = values[:min(len(values), 64)]
	arches := p.Architectures
	if len(arches) == 0 {
		arches = []seccomp.Arch{seccomp.ArchX86_64, seccomp.ArchAARCH64, seccomp.ArchS390X}
	}
	for _, arch := range arches {
		narrow := slices.Contains([]seccomp.Arch{seccomp.ArchX86, seccomp.ArchX32, seccomp.ArchARM, seccomp.ArchS390}, arch)
		for _, s := range p.Syscalls {
			for _, name := range s.Names {
				for _, v := range values {
					args := [6]uint64{v, y, x, v, x, y}
					if naivelyAllowed(p.Syscalls, name, args, narrow) && !containerdAllows(arch, name, args, narrow) {
						t.Fatalf("%s%#x is let through on %s, beyond containerd's default", name, args, arch)
					}
				}
			}
		}
	}
}

// naivelyAllowed is a second, plain reading of how runc and libseccomp apply
// allowing rules.
func naivelyAllowed(rules []seccomp.Syscall, name string, args [6]uint64, narrow bool) bool {
	for _, s := range rules {
		if s.Action.Denies() || !slices.Contains(s.Names, name) {
			continue
		}
		count := [6]int{}
		matched, all := 0, true
		for _, a := range s.Args {
			count[a.Index]++
			if naivelyHolds(a, args[a.Index], narrow) {
				matched++
			} else {
				all = false
			}
		}
		if all || (slices.Max(count[:]) > 1 && matched > 0) {
			return true
		}
	}
	return false
}

func naivelyHolds(a seccomp.Arg, x uint64, narrow bool) bool {
	v, w := a.Value, a.ValueTwo
	if narrow {
		x, v, w = x&0xffffffff, v&0xffffffff, w&0xffffffff
	}
	switch a.Op {
	case seccomp.OpEqualTo:
		return x == v
	case seccomp.OpNotEqual:
		return x != v
	case seccomp.OpLessThan:
		return x < v
	case seccomp.OpLessEqual:
		return x <= v
	case seccomp.OpGreaterEqual:
		return x >= v
	case seccomp.OpGreaterThan:
		return x > v
	default:
		return x&v == w&v
	}
}

func FuzzLimits(f *testing.F) {
	for _, seed := range []string{``, `{}`, `null`, `{"baseline":"Unbounded"}`, `{"allowedSyscalls":["mount"]}`, `{"deniedSyscalls":["read"]}`,
		`{"baseline":"Unbounded","baseline":"RuntimeDefault"}`, `{"deniedSyscalls":null}`} {
		f.Add([]byte(seed))
	}
	k := seccomp.New(seccomp.Options{})
	p, err := k.Parse("p.json", []byte(on("X86_64", rule("ALLOW", "mount"))))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, limits []byte) {
		err := k.Constrain(p, profile.ForAnyone(), []profile.Limits{limits})
		relaxes := bytes.Contains(limits, []byte("mount")) || bytes.Contains(limits, []byte("Unbounded")) || bytes.Contains(limits, []byte(`\`))
		if err == nil && !relaxes {
			t.Errorf("mount is admitted by %q", limits)
		}
		if err != nil && !errors.Is(err, reason.ProfileForbidden) && !errors.Is(err, reason.TrustPolicyInvalid) {
			t.Errorf("the refusal is %v", err)
		}
	})
}

func FuzzFlatten(f *testing.F) {
	for _, seed := range []string{tight, everything, dialect} {
		f.Add([]byte(seed), "amd64", "CAP_SYS_ADMIN", "5.15")
	}
	f.Fuzz(func(t *testing.T, data []byte, arch, capability, kernel string) {
		opts := seccomp.FlattenOptions{Arch: arch, Caps: []string{capability}, MinKernel: kernel}
		flat, err := seccomp.Flatten(data, opts)
		if err != nil {
			if !errors.Is(err, reason.ProfileInvalid) && !errors.Is(err, reason.TooLarge) {
				t.Errorf("the refusal is %v", err)
			}
			return
		}
		again, err := seccomp.Flatten(flat, opts)
		if err != nil || !bytes.Equal(flat, again) {
			t.Errorf("flat JSON changes when flattened again: %v\n%s\n%s", err, flat, again)
		}
		if _, err := seccomp.Parse("flat", flat); err != nil {
			t.Errorf("the outcome is no runtime-spec: %v", err)
		}
	})
}
