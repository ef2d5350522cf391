package seccomp

import "slices"

// Arch is an architecture's system call interface.
type Arch string

// The architectures of runtime-spec 1.3.
const (
	ArchX86         Arch = "SCMP_ARCH_X86"
	ArchX86_64      Arch = "SCMP_ARCH_X86_64"
	ArchX32         Arch = "SCMP_ARCH_X32"
	ArchARM         Arch = "SCMP_ARCH_ARM"
	ArchAARCH64     Arch = "SCMP_ARCH_AARCH64"
	ArchMIPS        Arch = "SCMP_ARCH_MIPS"
	ArchMIPS64      Arch = "SCMP_ARCH_MIPS64"
	ArchMIPS64N32   Arch = "SCMP_ARCH_MIPS64N32"
	ArchMIPSEL      Arch = "SCMP_ARCH_MIPSEL"
	ArchMIPSEL64    Arch = "SCMP_ARCH_MIPSEL64"
	ArchMIPSEL64N32 Arch = "SCMP_ARCH_MIPSEL64N32"
	ArchPPC         Arch = "SCMP_ARCH_PPC"
	ArchPPC64       Arch = "SCMP_ARCH_PPC64"
	ArchPPC64LE     Arch = "SCMP_ARCH_PPC64LE"
	ArchS390        Arch = "SCMP_ARCH_S390"
	ArchS390X       Arch = "SCMP_ARCH_S390X"
	ArchPARISC      Arch = "SCMP_ARCH_PARISC"
	ArchPARISC64    Arch = "SCMP_ARCH_PARISC64"
	ArchRISCV64     Arch = "SCMP_ARCH_RISCV64"
	ArchLOONGARCH64 Arch = "SCMP_ARCH_LOONGARCH64"
	ArchM68K        Arch = "SCMP_ARCH_M68K"
	ArchSH          Arch = "SCMP_ARCH_SH"
	ArchSHEB        Arch = "SCMP_ARCH_SHEB"
)

// archFacts are what judging a rule on an architecture needs to know.
type archFacts struct {
	arch Arch
	// goarch whose containerd default profile covers the architecture
	// (containerd v2.4, contrib/seccomp, func arches); "" for none.
	goarch string
	// names is the GOARCH whose syscall table in golang.org/x/sys/unix is
	// this architecture's or, for a second ABI of a machine, the machine's;
	// "" where there is none.
	names string
	// narrow is set where libseccomp compares 32 bits of an argument alone
	// (libseccomp src/arch.c, ARCH_SIZE_32).
	narrow bool
	// big is set for big-endian ones: libseccomp never mixes byte orders.
	big bool
	// native is set where Kubernetes nodes run it as their own architecture.
	native bool
	// runc is set where runc v1.5 knows it; it refuses a profile with others.
	runc bool
}

func archTable() []archFacts {
	return []archFacts{
		{arch: ArchX86, goarch: "amd64", names: "386", narrow: true, native: true, runc: true},
		{arch: ArchX86_64, goarch: "amd64", names: "amd64", native: true, runc: true},
		{arch: ArchX32, goarch: "amd64", names: "amd64", narrow: true, runc: true},
		{arch: ArchARM, goarch: "arm64", names: "arm", narrow: true, native: true, runc: true},
		{arch: ArchAARCH64, goarch: "arm64", names: "arm64", native: true, runc: true},
		{arch: ArchMIPS, goarch: "mips64", names: "mips", narrow: true, big: true, runc: true},
		{arch: ArchMIPS64, goarch: "mips64", names: "mips64", big: true, runc: true},
		{arch: ArchMIPS64N32, goarch: "mips64", names: "mips64", narrow: true, big: true, runc: true},
		{arch: ArchMIPSEL, goarch: "mips64le", names: "mipsle", narrow: true, runc: true},
		{arch: ArchMIPSEL64, goarch: "mips64le", names: "mips64le", runc: true},
		{arch: ArchMIPSEL64N32, goarch: "mips64le", names: "mips64le", narrow: true, runc: true},
		{arch: ArchPPC, goarch: "ppc64", names: "ppc", narrow: true, big: true, runc: true},
		{arch: ArchPPC64, goarch: "ppc64", names: "ppc64", big: true, runc: true},
		{arch: ArchPPC64LE, goarch: "ppc64le", names: "ppc64le", native: true, runc: true},
		{arch: ArchS390, goarch: "s390x", names: "s390x", narrow: true, big: true, runc: true},
		{arch: ArchS390X, goarch: "s390x", names: "s390x", big: true, native: true, runc: true},
		{arch: ArchPARISC, narrow: true, big: true},
		{arch: ArchPARISC64, big: true},
		{arch: ArchRISCV64, goarch: "riscv64", names: "riscv64", native: true, runc: true},
		{arch: ArchLOONGARCH64, goarch: "loong64", names: "loong64", native: true, runc: true},
		{arch: ArchM68K, narrow: true, big: true},
		{arch: ArchSH, narrow: true},
		{arch: ArchSHEB, narrow: true, big: true},
	}
}

// Arches returns all architectures in the specification's order.
func Arches() []Arch {
	table := archTable()
	all := make([]Arch, 0, len(table))
	for _, f := range table {
		all = append(all, f.arch)
	}
	return all
}

// reached returns the architectures on which rules of a profile that names
// these ones can take effect: the named ones, and every native one of the same
// byte order, because runtimes filter the node's own architecture whether the
// profile names it or not. Naming none stands for all native ones.
// ok is false when a name is not of the specification.
func reached(named []Arch) (facts []archFacts, ok bool) {
	table := archTable()
	var little, big bool
	for _, a := range named {
		i := slices.IndexFunc(table, func(f archFacts) bool { return f.arch == a })
		if i < 0 {
			return nil, false
		}
		little, big = little || !table[i].big, big || table[i].big
	}
	for _, f := range table {
		sameOrder := len(named) == 0 || (f.big && big) || (!f.big && little)
		if slices.Contains(named, f.arch) || (f.native && sameOrder) {
			facts = append(facts, f)
		}
	}
	return facts, true
}
