//go:build linux && cgo && libseccomp

package compile_test

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/profile/seccomp/compile"
)

// verdictOf runs a compiled filter on one syscall, as the kernel would, and
// reports whether it lets the syscall run.
func verdictOf(t *testing.T, program []unix.SockFilter, auditArch uint32, number int32, args [6]uint64) bool {
	t.Helper()
	raw := make([]bpf.RawInstruction, 0, len(program))
	for _, i := range program {
		raw = append(raw, bpf.RawInstruction{Op: i.Code, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	instructions, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("libseccomp wrote an instruction that this interpreter does not know")
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatal(err)
	}
	// struct seccomp_data, little-endian; the interpreter reads each word as a
	// big-endian one.
	words := []uint32{uint32(number), auditArch, 0, 0}
	for _, a := range args {
		words = append(words, uint32(a), uint32(a>>32))
	}
	var data []byte
	for _, w := range words {
		data = binary.BigEndian.AppendUint32(data, w)
	}
	verdict, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(verdict)&unix.SECCOMP_RET_ACTION_FULL == unix.SECCOMP_RET_ALLOW
}

// TestWhatTheDefaultAdmitsStaysWithinItCompiled is the constraint's promise
// held by libseccomp itself: whatever conditions pass RuntimeDefault, the
// compiled filter lets nothing through that containerd's rule would not.
func TestWhatTheDefaultAdmitsStaysWithinItCompiled(t *testing.T) {
	const mask = 0x7E020000 // containerd's namespace flags
	abis := []struct {
		arch  seccomp.Arch
		audit uint32
		scmp  libseccomp.ScmpArch
		low   bool // the kernel sees 32-bit arguments
	}{
		{seccomp.ArchX86_64, unix.AUDIT_ARCH_X86_64, libseccomp.ArchAMD64, false},
		{seccomp.ArchX86, unix.AUDIT_ARCH_I386, libseccomp.ArchX86, true},
		{seccomp.ArchAARCH64, unix.AUDIT_ARCH_AARCH64, libseccomp.ArchARM64, false},
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	values := []uint64{0, 1, 0x11, 0x20000, mask, mask | 0x11, 0x10000000, 1 << 32, 1<<32 | mask, ^uint64(0), ^uint64(mask), ^uint64(0) >> 32}
	pick := func() uint64 { return values[rnd.IntN(len(values))] }
	k := seccomp.New(seccomp.Options{Resolver: compile.Resolver()})
	admitted := 0
	for range 3000 {
		abi := abis[rnd.IntN(len(abis))]
		s := seccomp.Syscall{Names: []string{"clone"}, Action: seccomp.ActAllow}
		for range 1 + rnd.IntN(2) {
			s.Args = append(s.Args, seccomp.Arg{Index: uint32(rnd.IntN(4) / 3), Value: pick(), ValueTwo: pick(),
				Op: seccomp.Operators()[rnd.IntN(7)]})
		}
		p := &seccomp.Profile{DefaultAction: seccomp.ActErrno, Architectures: []seccomp.Arch{abi.arch}, Syscalls: []seccomp.Syscall{s}}
		if k.Constrain(p, profile.ForAnyone(), nil) != nil {
			continue
		}
		program, err := compile.Program(p)
		if err != nil {
			continue // no runtime could load it either
		}
		admitted++
		number, err := libseccomp.GetSyscallFromNameByArch("clone", abi.scmp)
		if err != nil {
			t.Fatal(err)
		}
		for range 16 {
			flags, other := pick()|pick()&0xff, pick()
			if abi.low {
				flags, other = flags&0xffffffff, other&0xffffffff
			}
			if verdictOf(t, program, abi.audit, int32(number), [6]uint64{flags, other}) && flags&mask != 0 {
				t.Fatalf("%+v on %s lets clone(%#x) through", s.Args, abi.arch, flags)
			}
		}
	}
	if admitted < 50 {
		t.Errorf("only %d profiles were admitted: the test says nothing", admitted)
	}
}

// TestConditionsCompileAsTheConstraintsReadThem holds the two surprises that
// judging conditions relies on.
func TestConditionsCompileAsTheConstraintsReadThem(t *testing.T) {
	for name, tc := range map[string]struct {
		arch    seccomp.Arch
		audit   uint32
		args    []seccomp.Arg
		call    [6]uint64
		allowed bool
	}{
		"bits outside the mask are dropped": {seccomp.ArchX86_64, unix.AUDIT_ARCH_X86_64,
			[]seccomp.Arg{{Value: 0xf, ValueTwo: 0xf0, Op: seccomp.OpMaskedEqual}}, [6]uint64{0x10}, true},
		"32-bit architectures ignore high bits of a value": {seccomp.ArchX86, unix.AUDIT_ARCH_I386,
			[]seccomp.Arg{{Value: 1<<32 | 7, Op: seccomp.OpEqualTo}}, [6]uint64{7}, true},
		"a high mask is always met on 32 bits": {seccomp.ArchX86, unix.AUDIT_ARCH_I386,
			[]seccomp.Arg{{Value: 0xff << 32, ValueTwo: 0, Op: seccomp.OpMaskedEqual}}, [6]uint64{7}, true},
		"64-bit ones do not ignore them": {seccomp.ArchX86_64, unix.AUDIT_ARCH_X86_64,
			[]seccomp.Arg{{Value: 1<<32 | 7, Op: seccomp.OpEqualTo}}, [6]uint64{7}, false},
		"one index twice is OR": {seccomp.ArchX86_64, unix.AUDIT_ARCH_X86_64,
			[]seccomp.Arg{{Value: 1, Op: seccomp.OpEqualTo}, {Value: 2, Op: seccomp.OpEqualTo}}, [6]uint64{2}, true},
		"two indexes are AND": {seccomp.ArchX86_64, unix.AUDIT_ARCH_X86_64,
			[]seccomp.Arg{{Value: 1, Op: seccomp.OpEqualTo}, {Index: 1, Value: 2, Op: seccomp.OpEqualTo}}, [6]uint64{2, 2}, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := &seccomp.Profile{DefaultAction: seccomp.ActErrno, Architectures: []seccomp.Arch{tc.arch},
				Syscalls: []seccomp.Syscall{{Names: []string{"personality"}, Action: seccomp.ActAllow, Args: tc.args}}}
			program, err := compile.Program(p)
			if err != nil {
				t.Fatal(err)
			}
			arch := libseccomp.ArchAMD64
			if tc.arch == seccomp.ArchX86 {
				arch = libseccomp.ArchX86
			}
			number, err := libseccomp.GetSyscallFromNameByArch("personality", arch)
			if err != nil {
				t.Fatal(err)
			}
			if got := verdictOf(t, program, tc.audit, int32(number), tc.call); got != tc.allowed {
				t.Errorf("let through: %v, want %v", got, tc.allowed)
			}
		})
	}
}

// TestMultiplexersAreLetThroughByTheirParts is why constraints that deny
// socketcall judge the calls that it multiplexes: on i386 libseccomp lets
// socketcall(2) through for each of them, and drops the condition on its first
// argument.
func TestMultiplexersAreLetThroughByTheirParts(t *testing.T) {
	p := &seccomp.Profile{DefaultAction: seccomp.ActErrno, Architectures: []seccomp.Arch{seccomp.ArchX86},
		Syscalls: []seccomp.Syscall{{Names: []string{"socket"}, Action: seccomp.ActAllow,
			Args: []seccomp.Arg{{Value: unix.AF_INET, Op: seccomp.OpEqualTo}}}}}
	program, err := compile.Program(p)
	if err != nil {
		t.Fatal(err)
	}
	socketcall, err := libseccomp.GetSyscallFromNameByArch("socketcall", libseccomp.ArchX86)
	if err != nil {
		t.Fatal(err)
	}
	for call, want := range map[uint64]bool{1: true, 3: false} { // SYS_SOCKET, SYS_CONNECT of linux/net.h
		if got := verdictOf(t, program, unix.AUDIT_ARCH_I386, int32(socketcall), [6]uint64{call}); got != want {
			t.Errorf("socketcall(%d): let through %v, want %v", call, got, want)
		}
	}
}

// TestContradictingRulesLetMoreThrough is why constraints refuse conditional
// rules beside contradicting ones: no rule here allows personality(0x2002d),
// and the filter that libseccomp 2.5.4 makes of them does. A library that
// fails this test has mended it, and the refusal can go.
func TestContradictingRulesLetMoreThrough(t *testing.T) {
	errno := uint32(2)
	p := &seccomp.Profile{DefaultAction: seccomp.ActErrno, Architectures: []seccomp.Arch{seccomp.ArchX86_64},
		Syscalls: []seccomp.Syscall{
			{Names: []string{"personality"}, Action: seccomp.ActErrno, ErrnoRet: &errno,
				Args: []seccomp.Arg{{Index: 1, Value: 45, Op: seccomp.OpGreaterEqual}, {Value: 45, Op: seccomp.OpNotEqual}}},
			{Names: []string{"personality"}, Action: seccomp.ActAllow, Args: []seccomp.Arg{{Op: seccomp.OpEqualTo}}},
		}}
	program, err := compile.Program(p)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc([]uint64{0, 1, 44, 45, 46, 1 << 32, ^uint64(0)}, func(other uint64) bool {
		return verdictOf(t, program, unix.AUDIT_ARCH_X86_64, unix.SYS_PERSONALITY, [6]uint64{0x2002d, other})
	}) {
		t.Error("the filter keeps to the rules")
	}
}
