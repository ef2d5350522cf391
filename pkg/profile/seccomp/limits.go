package seccomp

import (
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/internal/jsontree"
	"github.com/confine-dev/confine/pkg/reason"
)

// The baselines of a policy's constraints (api/v1alpha1 SeccompConstraints).
const (
	BaselineRuntimeDefault = "RuntimeDefault"
	BaselineUnbounded      = "Unbounded"
)

const (
	maxLimitBytes    = 256 << 10
	maxLimitSyscalls = 512
)

// limits are the constraints of one policy. The zero value is the safe default.
type limits struct {
	unbounded bool
	allowed   map[string]bool
	denied    []string
}

// readLimits decodes one policy's constraints strictly.
func (k *Kind) readLimits(raw profile.Limits) (limits, error) {
	var l limits
	if raw == nil {
		return l, nil
	}
	if len(raw) > maxLimitBytes {
		return l, unreadable(raw, jsontree.Errorf(0, "%d bytes are more than the %d allowed", len(raw), maxLimitBytes))
	}
	root, err := jsontree.Parse(raw, jsontree.Bounds{Depth: 4, Values: 4 * maxLimitSyscalls})
	if err != nil {
		return l, unreadable(raw, err)
	}
	if root.IsNull() {
		return l, nil
	}
	baselineWord := BaselineRuntimeDefault
	var allowed []string
	err = root.Read(jsontree.Fields{
		"baseline":        word(&baselineWord, []string{BaselineRuntimeDefault, BaselineUnbounded, ""}),
		"allowedSyscalls": syscallList(&allowed, func(string) string { return "" }),
		"deniedSyscalls":  syscallList(&l.denied, k.misspelt),
	}, func(key string) string { return "the field \"" + key + "\" is unknown" })
	if err != nil {
		return limits{}, unreadable(raw, err)
	}
	l.unbounded = baselineWord == BaselineUnbounded
	l.allowed = make(map[string]bool, len(allowed))
	for _, name := range allowed {
		l.allowed[name] = true
	}
	return l, nil
}

// misspelt objects to a denied name that nobody knows: denying it would deny
// nothing, and whoever wrote it meant another.
func (k *Kind) misspelt(name string) string {
	if k.knows(name) {
		return ""
	}
	return "the syscall \"" + name + "\" is unknown" + k.meant(name)
}

func syscallList(to *[]string, objection func(name string) string) func(*jsontree.Node) error {
	return func(n *jsontree.Node) error {
		return n.List(maxLimitSyscalls, func(n *jsontree.Node) error {
			name, err := n.Str(maxNameBytes)
			if err != nil {
				return err
			}
			if !plausibleName(name) {
				return jsontree.Errorf(n.Offset, "%q is no syscall name: those are lower-case letters, digits and underscores", name)
			}
			if text := objection(name); text != "" {
				return jsontree.Errorf(n.Offset, "%s", text)
			}
			*to = append(*to, name)
			return nil
		})
	}
}

func unreadable(raw []byte, err error) error {
	return reason.New(reason.TrustPolicyInvalid, jsontree.Locate("constraints.seccomp", raw, err), "%w", err)
}
