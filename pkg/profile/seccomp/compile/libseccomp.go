//go:build linux && cgo && libseccomp

package compile

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/reason"
)

const (
	// maxInstructions is the kernel's BPF_MAXINSNS.
	maxInstructions = 4096
	// instructionBytes is the size of a struct sock_filter.
	instructionBytes = 8
	// treeFrom is the number of rules from which runc asks for a binary tree.
	treeFrom = 33
)

// Available reports whether libseccomp is linked in.
func Available() bool { return true }

// Resolver returns the names that the linked libseccomp knows, asked for as
// runc asks. Its answers are those of this library, not of the node's runtime.
func Resolver() seccomp.Resolver { return library{} }

type library struct{}

// Resolves reports whether libseccomp knows the name at all. Syscalls that
// only other architectures have are known too and have no effect here.
func (library) Resolves(name string) bool {
	if name == "" || strings.IndexByte(name, 0) >= 0 {
		return false
	}
	_, err := libseccomp.GetSyscallFromName(name)
	return err == nil
}

// Check compiles p for the architectures it names, without loading anything.
// The findings are names and architectures that this libseccomp does not know,
// so that a runtime with the same one skips them. The error is ProfileInvalid
// for a profile that no runtime could load.
func Check(p *seccomp.Profile) ([]profile.Finding, error) {
	b, err := build(p, false)
	if err != nil {
		return nil, err
	}
	defer b.filter.Release()
	if _, err := b.program(); err != nil {
		return nil, err
	}
	return b.findings, nil
}

type builder struct {
	filter   *libseccomp.ScmpFilter
	p        *seccomp.Profile
	findings []profile.Finding
}

// build makes the filter. native says that it is for this very machine, as a
// runtime's is; otherwise only the named architectures are compiled for, so
// that profiles for other byte orders can be checked here.
func build(p *seccomp.Profile, native bool) (*builder, error) {
	defaultAction, err := action(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	filter, err := libseccomp.NewFilter(defaultAction)
	if err != nil {
		return nil, invalid("libseccomp refuses the default action: %w", err)
	}
	b := &builder{filter: filter, p: p}
	if err := b.fill(defaultAction, native); err != nil {
		filter.Release()
		return nil, err
	}
	return b, nil
}

func (b *builder) fill(defaultAction libseccomp.ScmpAction, native bool) error {
	if err := b.architectures(native); err != nil {
		return err
	}
	rules := 0
	for i := range b.p.Syscalls {
		rules += len(b.p.Syscalls[i].Names)
	}
	if rules >= treeFrom {
		// Only speed hangs on it, and libseccomp before 2.5 cannot.
		_ = b.filter.SetOptimize(2)
	}
	for i := range b.p.Syscalls {
		if err := b.entry(&b.p.Syscalls[i], defaultAction); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) architectures(native bool) error {
	var known []libseccomp.ScmpArch
	for _, a := range b.p.Architectures {
		arch, err := libseccomp.GetArchFromString(archName(a))
		if err != nil {
			if native {
				return invalid("runtimes do not know the architecture %s", a)
			}
			b.find("", "runtimes do not know the architecture %s and refuse to start containers", a)
			continue
		}
		known = append(known, arch)
	}
	own, err := libseccomp.GetNativeArch()
	if err != nil {
		return invalid("libseccomp does not know this machine's architecture: %w", err)
	}
	if !native && len(known) > 0 {
		if err := b.filter.RemoveArch(own); err != nil {
			return invalid("libseccomp cannot compile for other architectures alone: %w", err)
		}
	}
	return b.addArchitectures(known, own, native)
}

func (b *builder) addArchitectures(known []libseccomp.ScmpArch, own libseccomp.ScmpArch, native bool) error {
	added := 0
	for _, arch := range known {
		switch err := b.filter.AddArch(arch); {
		case err == nil:
			added++
		case errors.Is(err, unix.EDOM):
			return invalid("no filter can hold big-endian and little-endian architectures at once, as %s is beside the others", arch)
		case native:
			return invalid("libseccomp refuses the architecture %s: %w", arch, err)
		default:
			b.find("", "the linked libseccomp %s does not support the architecture %s", version(), arch)
		}
	}
	if !native && len(known) > 0 && added == 0 {
		// A filter needs an architecture to be compiled for.
		if err := b.filter.AddArch(own); err != nil {
			return invalid("libseccomp refuses the architecture %s: %w", own, err)
		}
	}
	return nil
}

// archName turns SCMP_ARCH_X86_64 into the name libseccomp-golang reads; empty
// for architectures that runc does not know.
func archName(a seccomp.Arch) string {
	switch a {
	case seccomp.ArchPARISC, seccomp.ArchPARISC64, seccomp.ArchM68K, seccomp.ArchSH, seccomp.ArchSHEB:
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(string(a), "SCMP_ARCH_"))
}

// entry adds the rules of one entry, as runc's matchCall does for each name.
func (b *builder) entry(s *seccomp.Syscall, defaultAction libseccomp.ScmpAction) error {
	act, err := action(s.Action, s.ErrnoRet)
	if err != nil {
		return err
	}
	if act == defaultAction {
		return nil // libseccomp refuses such rules; they change nothing
	}
	conjunctions, err := conditions(s)
	if err != nil {
		return err
	}
	for i, name := range s.Names {
		call, err := libseccomp.GetSyscallFromName(name)
		if err != nil {
			b.find(s.PositionOf(i), "the linked libseccomp %s does not know the syscall %s: runtimes with the same skip the rule", version(), name)
			continue
		}
		if err := b.rules(call, act, conjunctions); err != nil {
			return reason.New(reason.ProfileInvalid, s.PositionOf(i), "libseccomp refuses the rule for %s with %s: %w", name, s.Action, err)
		}
	}
	return nil
}

func (b *builder) rules(call libseccomp.ScmpSyscall, act libseccomp.ScmpAction, all [][]libseccomp.ScmpCondition) error {
	if len(all) == 0 {
		return b.filter.AddRule(call, act)
	}
	for _, conditions := range all {
		if err := b.filter.AddRuleConditional(call, act, conditions); err != nil {
			return err
		}
	}
	return nil
}

// conditions groups the arguments as runc does: all in one rule, or each in a
// rule of its own where an index occurs twice.
func conditions(s *seccomp.Syscall) ([][]libseccomp.ScmpCondition, error) {
	var together []libseccomp.ScmpCondition
	var apart [][]libseccomp.ScmpCondition
	seen := map[uint32]bool{}
	repeated := false
	for _, a := range s.Args {
		i := slices.Index(seccomp.Operators(), a.Op)
		if i < 0 {
			return nil, invalid("the operator %q is unknown", a.Op)
		}
		c, err := libseccomp.MakeCondition(uint(a.Index), operators()[i], a.Value, a.ValueTwo)
		if err != nil {
			return nil, invalid("libseccomp refuses a condition: %w", err)
		}
		repeated = repeated || seen[a.Index]
		seen[a.Index] = true
		together = append(together, c)
		apart = append(apart, []libseccomp.ScmpCondition{c})
	}
	if repeated || len(together) == 0 {
		return apart, nil
	}
	return [][]libseccomp.ScmpCondition{together}, nil
}

// operators are libseccomp's, in the order of seccomp.Operators.
func operators() []libseccomp.ScmpCompareOp {
	return []libseccomp.ScmpCompareOp{
		libseccomp.CompareNotEqual, libseccomp.CompareLess, libseccomp.CompareLessOrEqual, libseccomp.CompareEqual,
		libseccomp.CompareGreaterEqual, libseccomp.CompareGreater, libseccomp.CompareMaskedEqual,
	}
}

// action maps actions as runc's getAction does: EPERM where no errno is given.
func action(a seccomp.Action, errno *uint32) (libseccomp.ScmpAction, error) {
	code := int16(unix.EPERM)
	if errno != nil {
		code = int16(*errno) //nolint:gosec // as runc: the upper bits are lost
	}
	switch a {
	case seccomp.ActKill, seccomp.ActKillThread:
		return libseccomp.ActKillThread, nil
	case seccomp.ActKillProcess:
		return libseccomp.ActKillProcess, nil
	case seccomp.ActTrap:
		return libseccomp.ActTrap, nil
	case seccomp.ActErrno:
		return libseccomp.ActErrno.SetReturnCode(code), nil
	case seccomp.ActTrace:
		return libseccomp.ActTrace.SetReturnCode(code), nil
	case seccomp.ActAllow:
		return libseccomp.ActAllow, nil
	case seccomp.ActLog:
		return libseccomp.ActLog, nil
	case seccomp.ActNotify:
		return libseccomp.ActNotify, nil
	default:
		return libseccomp.ActInvalid, invalid("the action %q is unknown", a)
	}
}

func (b *builder) find(position, format string, args ...any) {
	b.findings = append(b.findings, profile.Finding{Position: position, Message: fmt.Sprintf(format, args...)})
}

func version() string {
	major, minor, micro := libseccomp.GetLibraryVersion()
	return fmt.Sprintf("%d.%d.%d", major, minor, micro)
}

func invalid(format string, args ...any) error {
	return reason.New(reason.ProfileInvalid, "", format, args...)
}
