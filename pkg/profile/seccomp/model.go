package seccomp

import (
	"encoding/json"
	"slices"

	"github.com/confine-dev/confine/pkg/profile"
)

// Name is the kind's word in resources, status and commands.
const Name = "seccomp"

// Profile is one seccomp profile of the runtime-spec, version 1.3
// (https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md#seccomp).
// Parse makes one; treat it as read-only. Its JSON is runtime-spec JSON again.
type Profile struct {
	// DefaultAction is taken for every syscall that no rule names.
	DefaultAction Action `json:"defaultAction"`
	// DefaultErrnoRet is the errno of DefaultAction; nil means EPERM.
	DefaultErrnoRet *uint32 `json:"defaultErrnoRet,omitempty"`
	// Architectures are filtered beside the node's own one, which runc always adds.
	Architectures []Arch `json:"architectures,omitempty"`
	// Flags of seccomp(2). nil and empty differ: for nil runc sets SPEC_ALLOW.
	Flags []Flag `json:"flags,omitzero"`
	// ListenerPath is the socket of a seccomp agent.
	ListenerPath string `json:"listenerPath,omitempty"`
	// ListenerMetadata is handed to the agent.
	ListenerMetadata string `json:"listenerMetadata,omitempty"`
	// Syscalls are the rules; their order and grouping mean nothing, except
	// where two rules contradict each other (a finding).
	Syscalls []Syscall `json:"syscalls,omitempty"`

	file     string
	findings []profile.Finding
}

// Syscall is one entry of rules: the action for all of its names.
type Syscall struct {
	// Names are syscall names as libseccomp writes them.
	Names []string `json:"names"`
	// Action is taken when the arguments match.
	Action Action `json:"action"`
	// ErrnoRet is the errno of Action; nil means EPERM.
	ErrnoRet *uint32 `json:"errnoRet,omitempty"`
	// Args must all match; without any the action is unconditional. Where one
	// index occurs twice, runc takes every condition as a rule of its own, so
	// that one match is enough.
	Args []Arg `json:"args,omitempty"`

	position  string
	positions []string // of Names
}

// PositionOf is the "line:column" of the i-th name, or of the entry; empty for
// entries that Parse did not read.
func (s *Syscall) PositionOf(i int) string {
	if i >= 0 && i < len(s.positions) {
		return s.positions[i]
	}
	return s.position
}

// Arg is one condition on a syscall argument.
type Arg struct {
	Index uint32 `json:"index"`
	// Value is compared with; the mask for MASKED_EQ.
	Value uint64 `json:"value"`
	// ValueTwo is what the masked argument must equal; used by MASKED_EQ alone.
	ValueTwo uint64   `json:"valueTwo,omitempty"`
	Op       Operator `json:"op"`
}

// Kind returns "seccomp".
func (p *Profile) Kind() string { return Name }

// Findings are what a reviewer should see though the profile is valid.
func (p *Profile) Findings() []profile.Finding { return slices.Clone(p.findings) }

// MayAllow reports whether the default action or some rule lets the syscall
// through, be it under conditions.
func (p *Profile) MayAllow(name string) bool {
	return !p.DefaultAction.Denies() || slices.ContainsFunc(p.Syscalls, func(s Syscall) bool {
		return !s.Action.Denies() && slices.Contains(s.Names, name)
	})
}

// Marshal returns p as plain runtime-spec JSON, the same bytes each time.
func (p *Profile) Marshal() ([]byte, error) {
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}

// Action is what happens to a syscall.
type Action string

// The actions of runtime-spec 1.3.
const (
	ActKill        Action = "SCMP_ACT_KILL"
	ActKillProcess Action = "SCMP_ACT_KILL_PROCESS"
	ActKillThread  Action = "SCMP_ACT_KILL_THREAD"
	ActTrap        Action = "SCMP_ACT_TRAP"
	ActErrno       Action = "SCMP_ACT_ERRNO"
	ActTrace       Action = "SCMP_ACT_TRACE"
	ActAllow       Action = "SCMP_ACT_ALLOW"
	ActLog         Action = "SCMP_ACT_LOG"
	ActNotify      Action = "SCMP_ACT_NOTIFY"
)

// Actions returns all actions in the specification's order.
func Actions() []Action {
	return []Action{ActKill, ActKillProcess, ActKillThread, ActTrap, ActErrno, ActTrace, ActAllow, ActLog, ActNotify}
}

// Denies reports whether the kernel itself refuses the syscall. All other
// actions may let it run: a tracer or an agent decides, or nobody does.
func (a Action) Denies() bool {
	return slices.Contains([]Action{ActKill, ActKillProcess, ActKillThread, ActTrap, ActErrno}, a)
}

// takesErrno reports whether an errno may stand beside the action.
func (a Action) takesErrno() bool { return a == ActErrno || a == ActTrace }

// Operator compares an argument with a value, both unsigned.
type Operator string

// The operators of runtime-spec 1.3.
const (
	OpNotEqual     Operator = "SCMP_CMP_NE"
	OpLessThan     Operator = "SCMP_CMP_LT"
	OpLessEqual    Operator = "SCMP_CMP_LE"
	OpEqualTo      Operator = "SCMP_CMP_EQ"
	OpGreaterEqual Operator = "SCMP_CMP_GE"
	OpGreaterThan  Operator = "SCMP_CMP_GT"
	OpMaskedEqual  Operator = "SCMP_CMP_MASKED_EQ"
)

// Operators returns all operators in the specification's order.
func Operators() []Operator {
	return []Operator{OpNotEqual, OpLessThan, OpLessEqual, OpEqualTo, OpGreaterEqual, OpGreaterThan, OpMaskedEqual}
}

// Flag is a flag of seccomp(2).
type Flag string

// The flags of runtime-spec 1.3 (its text lists TSYNC, its Go types do not;
// runc knows and ignores it).
const (
	FlagTsync            Flag = "SECCOMP_FILTER_FLAG_TSYNC"
	FlagLog              Flag = "SECCOMP_FILTER_FLAG_LOG"
	FlagSpecAllow        Flag = "SECCOMP_FILTER_FLAG_SPEC_ALLOW"
	FlagWaitKillableRecv Flag = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
)

// Flags returns all flags in the specification's order.
func Flags() []Flag { return []Flag{FlagTsync, FlagLog, FlagSpecAllow, FlagWaitKillableRecv} }
