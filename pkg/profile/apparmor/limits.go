package apparmor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor/policy"
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
	var l limits
	if raw == nil {
		return l, nil
	}
	fields, err := stringLists(raw)
	if err != nil {
		return l, reason.New(reason.TrustPolicyInvalid, "constraints.apparmor", "%w", err)
	}
	for name, values := range fields {
		if err := l.set(name, values); err != nil {
			return limits{}, reason.New(reason.TrustPolicyInvalid, "constraints.apparmor."+name, "%w", err)
		}
	}
	return l, nil
}

func (l *limits) set(field string, values []string) error {
	for _, value := range values {
		switch field {
		case "allowedNames":
			pattern, err := namePattern(value)
			if err != nil {
				return err
			}
			l.names = append(l.names, pattern)
		case "allowedFlags":
			if !policy.IsFlag(value) {
				return fmt.Errorf("%q is no flag of a profile", value)
			}
			l.flags = append(l.flags, value)
		case "allowedCapabilities":
			if !policy.IsCapability(value) {
				return fmt.Errorf("%q is no capability: those are lower case without CAP_", value)
			}
			l.capabilities = append(l.capabilities, value)
		case "allowedRules":
			if !slices.Contains(RuleClasses(), RuleClass(value)) {
				return fmt.Errorf("%q is no class of rules: those are %v", value, RuleClasses())
			}
			l.rules = append(l.rules, RuleClass(value))
		}
	}
	return nil
}

// namePattern compiles a pattern of names: what a name may hold, and "*" for
// any run of that. The first three characters are literal, so that no pattern
// means every name.
func namePattern(text string) (*regexp.Regexp, error) {
	if !regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._-]{2}[A-Za-z0-9._*-]{0,250}\z`).MatchString(text) {
		return nil, fmt.Errorf("%q is no pattern of names: letters, digits, dots, hyphens and underscores, "+
			"and * after the first three characters", text)
	}
	return regexp.Compile(`\A` + strings.ReplaceAll(regexp.QuoteMeta(text), `\*`, `[A-Za-z0-9._-]*`) + `\z`)
}

// stringLists reads an object whose values are lists of strings; null is an
// empty object. Everything else is refused, and keys that stand there twice.
func stringLists(raw []byte) (map[string][]string, error) {
	if len(raw) > maxLimitBytes || !utf8.Valid(raw) {
		return nil, fmt.Errorf("these %d bytes are not JSON of at most %d bytes", len(raw), maxLimitBytes)
	}
	if string(bytes.TrimSpace(raw)) == "null" {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		return nil, errors.New("expected a JSON object")
	}
	fields := map[string][]string{}
	for dec.More() {
		token, err := dec.Token()
		key, ok := token.(string)
		if err != nil || !ok {
			return nil, errors.New("this is not JSON")
		}
		if !slices.Contains([]string{"allowedNames", "allowedFlags", "allowedCapabilities", "allowedRules"}, key) {
			return nil, fmt.Errorf("the field %q is unknown", key)
		}
		if _, twice := fields[key]; twice {
			return nil, fmt.Errorf("the field %q stands here twice", key)
		}
		var values []*string
		if err := dec.Decode(&values); err != nil {
			return nil, fmt.Errorf("the field %q is no list of strings", key)
		}
		if len(values) > maxLimitItems {
			return nil, fmt.Errorf("the field %q has more than the %d items allowed", key, maxLimitItems)
		}
		fields[key] = []string{}
		for _, value := range values {
			if value == nil {
				return nil, fmt.Errorf("the field %q is no list of strings", key)
			}
			fields[key] = append(fields[key], *value)
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, errors.New("the JSON object does not end")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("only one JSON document may stand here")
	}
	return fields, nil
}
