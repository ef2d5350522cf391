package apparmor

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor/policy"
	"github.com/confine-dev/confine/pkg/profile/internal/jsontree"
	"github.com/confine-dev/confine/pkg/reason"
)

const (
	maxLimitBytes = 256 << 10
	maxLimitItems = 512
)

// limits are the constraints of one policy. The zero value is the safe default.
// Every field relaxes it.
type limits struct {
	names        []*regexp.Regexp
	flags        []string
	capabilities []string
	rules        []RuleClass
}

// RuleClass is one thing that the safe default forbids and that a policy may
// allow by its name in "allowedRules".
type RuleClass string

// The classes of allowedRules.
const (
	Alias           RuleClass = "alias"            // alias statements
	AllRules        RuleClass = "all"              // all, and allow all,
	Attachment      RuleClass = "attachment"       // profiles that attach to executables by path or xattrs
	AnyCapability   RuleClass = "capability"       // capability without a name
	ChangeProfile   RuleClass = "change_profile"   // change_profile
	ExecOther       RuleClass = "exec-other"       // transitions to profiles that are not in the same text
	ExecUnconfined  RuleClass = "exec-unconfined"  // ux, Ux, and pux, cux in every case
	Include         RuleClass = "include"          // <files> beyond abstractions/ and tunables/
	IOUring         RuleClass = "io_uring"         // io_uring
	KernelInterface RuleClass = "kernel-interface" // writes to interfaces of the kernel
	MountRules      RuleClass = "mount"            // mount
	PivotRoot       RuleClass = "pivot_root"       // pivot_root
	Priority        RuleClass = "priority"         // priority= on rules that allow
	Prompt          RuleClass = "prompt"           // prompt
	Ptrace          RuleClass = "ptrace"           // ptrace of processes of other profiles
	Remount         RuleClass = "remount"          // remount
	Umount          RuleClass = "umount"           // umount
	Userns          RuleClass = "userns"           // userns
)

// RuleClasses returns all classes that allowedRules may name, sorted.
func RuleClasses() []RuleClass {
	return []RuleClass{Alias, AllRules, Attachment, AnyCapability, ChangeProfile, ExecOther, ExecUnconfined, Include,
		IOUring, KernelInterface, MountRules, PivotRoot, Priority, Prompt, Ptrace, Remount, Umount, Userns}
}

// readLimits decodes one policy's constraints strictly.
func readLimits(raw profile.Limits) (limits, error) {
	if raw == nil {
		return limits{}, nil
	}
	var l limits
	if err := l.read(raw); err != nil {
		return limits{}, reason.New(reason.TrustPolicyInvalid, jsontree.Locate("constraints.apparmor", raw, err), "%w", err)
	}
	return l, nil
}

// read decodes an object whose values are lists of strings; null is an empty
// object or list. Everything else is refused.
func (l *limits) read(raw []byte) error {
	if len(raw) > maxLimitBytes {
		return jsontree.Errorf(0, "%d bytes are more than the %d allowed", len(raw), maxLimitBytes)
	}
	root, err := jsontree.Parse(raw, jsontree.Bounds{Depth: 2, Values: 8 * maxLimitItems})
	if err != nil || root.IsNull() {
		return err
	}
	return root.Read(jsontree.Fields{
		"allowedNames": each(func(value string) error {
			pattern, err := namePattern(value)
			l.names = append(l.names, pattern)
			return err
		}),
		"allowedFlags": each(func(value string) error {
			l.flags = append(l.flags, value)
			return objection(policy.IsFlag(value), "%q is no flag of a profile", value)
		}),
		"allowedCapabilities": each(func(value string) error {
			l.capabilities = append(l.capabilities, value)
			return objection(policy.IsCapability(value), "%q is no capability: those are lower case without CAP_", value)
		}),
		"allowedRules": each(func(value string) error {
			l.rules = append(l.rules, RuleClass(value))
			return objection(slices.Contains(RuleClasses(), RuleClass(value)), "%q is no class of rules: those are %v", value, RuleClasses())
		}),
	}, func(key string) string { return "the field " + strconv.Quote(key) + " is unknown" })
}

func objection(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

// each reads a list of strings, or null, and places what take objects to.
func each(take func(string) error) func(*jsontree.Node) error {
	return func(n *jsontree.Node) error {
		if n.IsNull() {
			return nil
		}
		return n.List(maxLimitItems, func(n *jsontree.Node) error {
			value, err := n.Str(maxLimitBytes)
			if err != nil {
				return err
			}
			if err := take(value); err != nil {
				return jsontree.Errorf(n.Offset, "%s", err)
			}
			return nil
		})
	}
}

// namePattern compiles a pattern of names: what a name may hold, and "*" for
// any run of that. The first three characters are literal, so that no pattern
// means every name.
func namePattern(text string) (*regexp.Regexp, error) {
	if !regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._-]{2}[A-Za-z0-9._*-]{0,250}\z`).MatchString(text) {
		return nil, fmt.Errorf("%q is no pattern of names: letters, digits, dots, hyphens and underscores, "+
			"and * after the first three characters", text)
	}
	if claimsPrefix(text) {
		return nil, fmt.Errorf("%q: a name that begins with %s belongs to the namespace that it says, and no policy gives it to another", text, prefix)
	}
	return regexp.Compile(`\A` + strings.ReplaceAll(regexp.QuoteMeta(text), `\*`, `[A-Za-z0-9._-]*`) + `\z`)
}
