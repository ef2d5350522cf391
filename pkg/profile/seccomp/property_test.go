package seccomp_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
)

// TestRandomConditionsNeverEscape makes rules on the syscalls that containerd
// allows under conditions only. What the default admits is evaluated by the
// plain second reading, next to containerd's own rules.
func TestRandomConditionsNeverEscape(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	interesting := []uint64{0, 1, 2, 8, 36, 37, 38, 39, 40, 41, 45, 46, 0x11, 0x20000, 0x20008, 0xffffffff, 0x7E020000, 0x7E020011,
		0x10000000, 0x6E020000, 1 << 32, 1<<32 | 2, 1<<32 | 38, 1<<63 | 0x7E020000, ^uint64(0), ^uint64(0x7E020000)}
	pick := func() uint64 {
		v := interesting[rnd.IntN(len(interesting))]
		if rnd.IntN(4) == 0 {
			v ^= 1 << rnd.IntN(64)
		}
		return v
	}
	arches := [][]seccomp.Arch{
		{seccomp.ArchX86_64}, {seccomp.ArchX86_64, seccomp.ArchX86, seccomp.ArchX32}, {seccomp.ArchAARCH64, seccomp.ArchARM},
		{seccomp.ArchS390X, seccomp.ArchS390}, nil,
	}
	k := seccomp.New(seccomp.Options{})
	admitted, refused := 0, 0
	for range 20000 {
		s := seccomp.Syscall{Names: []string{[]string{"clone", "socket", "personality"}[rnd.IntN(3)]}, Action: seccomp.ActAllow}
		for range 1 + rnd.IntN(2) {
			s.Args = append(s.Args, seccomp.Arg{
				Index: uint32(rnd.IntN(3) / 2), Value: pick(), ValueTwo: pick(),
				Op: seccomp.Operators()[rnd.IntN(len(seccomp.Operators()))],
			})
		}
		p := &seccomp.Profile{DefaultAction: seccomp.ActErrno, Architectures: arches[rnd.IntN(len(arches))], Syscalls: []seccomp.Syscall{s}}
		if k.Constrain(p, profile.ForAnyone(), nil) != nil {
			refused++
			continue
		}
		admitted++
		for range 8 {
			staysWithin(t, p, pick(), pick())
		}
	}
	// Were nearly nothing admitted, the test would say nothing.
	if admitted < 300 || refused < 1000 {
		t.Errorf("%d admitted, %d refused", admitted, refused)
	}
}

// TestTheLargestProfilesAreQuick holds that no payload within the bounds makes
// work that grows with the square of its size: the largest ones take well
// under a second here, and minutes if it did.
func TestTheLargestProfilesAreQuick(t *testing.T) {
	conditions := strings.TrimSuffix(strings.Repeat(cond(0, "NE", 1)+",", seccomp.MaxArgs), ",")
	names := strings.TrimSuffix(strings.Repeat(`"zzzzzzzz",`, seccomp.MaxNames/seccomp.MaxEntries), ",")
	one := `{"names":[` + names + `],"action":"SCMP_ACT_ALLOW","args":[` + conditions + `]}`
	data := on("", strings.TrimSuffix(strings.Repeat(one+",", seccomp.MaxEntries), ","))
	k := seccomp.New(seccomp.Options{})
	p, err := k.Parse("p.json", []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Constrain(p, profile.ForAnyone(), nil); err == nil {
		t.Error("zzzzzzzz is within the default")
	}
	if changes, err := k.Diff(p, p); err != nil || len(changes) > 0 {
		t.Errorf("%v %v", changes, err)
	}
}
