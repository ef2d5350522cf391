package apparmor

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor/policy"
	"github.com/confine-dev/confine/pkg/reason"
)

// Violation is one thing in a profile that limits forbid.
type Violation struct {
	Pos policy.Pos
	// Class is what allowedRules may name to allow it, or one of the classes
	// below, which other fields relax or nothing does.
	Class  RuleClass
	Detail string
}

// Classes of violations that allowedRules cannot name.
const (
	NameClass    RuleClass = "name"             // relaxed by allowedNames, runtime defaults never
	OwnerClass   RuleClass = "owner"            // names of other namespaces, and names like Confine's own: never
	FlagClass    RuleClass = "flag"             // relaxed by allowedFlags
	Capabilities RuleClass = "named-capability" // relaxed by allowedCapabilities
	ForeignFile  RuleClass = "foreign-file"     // quoted, absolute and climbing includes: never
	Features     RuleClass = "abi"              // feature sets other than a version's: never
	Stacking     RuleClass = "stacking"         // &, :namespaces: and variables in targets: never
	Tangled      RuleClass = "too-complicated"  // what cannot be judged within bounds: never
	UnsafeNested RuleClass = "child-name"       // names of children that are no plain words: never
	TooLongName  RuleClass = "long-name"        // names longer than MaxNameBytes: never
)

// Constrain judges p against the limits of all matching policies. Deny rules
// are always allowed. What each class of violation is about is said at
// RuleClass; kernel.go says which interfaces of the kernel may not be written.
//
// A name that begins with "confine", in whatever case, is confine.NAMESPACE.NAME
// with the namespace of by: no policy gives it to anybody else.
func (*Kind) Constrain(p profile.Profile, by profile.Scope, all []profile.Limits) error {
	a, ok := p.(*Profile)
	if !ok || a == nil {
		return reason.New(reason.ProfileForbidden, "", "only an AppArmor profile can be judged as one").
			WithAdvice("hand over what the AppArmor kind parsed")
	}
	if len(all) == 0 {
		all = []profile.Limits{nil}
	}
	read := make([]limits, 0, len(all))
	for _, raw := range all {
		l, err := readLimits(raw)
		if err != nil {
			return err
		}
		read = append(read, l)
	}
	for _, l := range read {
		if found := violations(a.Policy, by, l); len(found) > 0 {
			return refusal(a.label, by, found)
		}
	}
	return nil
}

func refusal(label string, by profile.Scope, found []Violation) error {
	first := found[0]
	detail := first.Detail
	if len(found) > 1 {
		detail += fmt.Sprintf(" (and %d more)", len(found)-1)
	}
	err := reason.New(reason.ProfileForbidden, label+":"+first.Pos.String(), "%s", detail)
	switch first.Class {
	case NameClass:
		return err.WithAdvice("name the profile confine.%s.NAME, or let allowedNames of every matching TrustPolicy name it", by.Namespace())
	case OwnerClass:
		return err.WithAdvice("name the profile confine.%s.NAME, or create the SecurityProfile in the namespace that the name says", by.Namespace())
	case FlagClass:
		return err.WithAdvice("leave out the flag, or let allowedFlags of every matching TrustPolicy name it")
	case Capabilities:
		return err.WithAdvice("leave out the capability, or let allowedCapabilities of every matching TrustPolicy name it")
	}
	if slices.Contains(RuleClasses(), first.Class) {
		return err.WithAdvice("leave it out, or let allowedRules of every matching TrustPolicy name %q", first.Class)
	}
	return err.WithAdvice("leave it out: no TrustPolicy can allow it")
}

// judge collects what one policy's limits forbid.
type judge struct {
	limits
	by        profile.Scope
	file      *policy.File
	names     map[string]bool // of all profiles of the text, in full
	found     []Violation
	variables *variables
	budget    int // of comparing globs, for the whole text
}

// MaxNameBytes bounds the name of a profile. The kernel's folder for it is
// called by its name and a number, within NAME_MAX (255).
const MaxNameBytes = 200

// maxNames bounds the names that one text gives to pods. A node offers all names
// of an artifact for removal at once, and has to be able to say them.
const maxNames = 16

// violations returns what l forbids in f, in the order of the text.
func violations(f *policy.File, by profile.Scope, l limits) []Violation {
	j := &judge{limits: l, by: by, file: f, names: map[string]bool{}, variables: variablesOf(f), budget: searchBudget}
	walk(f, func(name string, _ *policy.Profile) { j.names[name] = true })
	j.preamble()
	for i, p := range f.Profiles {
		if i == maxNames {
			j.object(p.Pos, NameClass, "more than %d profiles in one text, children not counted: split it", maxNames)
		}
		j.topName(p)
	}
	walk(f, j.profile)
	slices.SortStableFunc(j.found, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Column, b.Pos.Column))
	})
	return j.found
}

// object notes a violation unless allowedRules names its class.
func (j *judge) object(at policy.Pos, class RuleClass, format string, args ...any) {
	if !slices.Contains(j.rules, class) {
		j.found = append(j.found, Violation{Pos: at, Class: class, Detail: fmt.Sprintf(format, args...)})
	}
}

func (j *judge) preamble() {
	for _, in := range j.file.Includes {
		j.include(in)
	}
	for _, abi := range j.file.ABIs {
		j.abi(abi)
	}
	for _, alias := range j.file.Aliases {
		j.object(alias.Pos, Alias, "an alias changes the meaning of every rule about %s", shown(alias.From))
	}
}

// include: the host's own abstractions and tunables are the only other text a
// profile may bring in, and nothing but their name decides which.
func (j *judge) include(in policy.Include) {
	clean := regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._+-]*(/[A-Za-z0-9][A-Za-z0-9._+-]*)+\z`)
	first, rest, _ := strings.Cut(in.Path, "/")
	switch {
	case in.Form != policy.Searched:
		j.object(in.Pos, ForeignFile, "%s names a file of the host by its path", in)
	case !clean.MatchString(in.Path):
		j.object(in.Pos, ForeignFile, "%s is no plain path below the policy folder", in)
	case first != "abstractions" && first != "tunables":
		j.object(in.Pos, Include, "%s is neither an abstraction nor a tunable", in)
	case first == "abstractions" && isPowerful(rest):
		j.object(in.Pos, Include, "%s allows more than a profile may by default", in)
	}
}

// abi: features that a set does not name are not enforced at all, and any file
// of the host can be read as a set, so only whole versions are taken.
func (j *judge) abi(abi policy.ABI) {
	if !abi.Searched || !regexp.MustCompile(`\A(abi/[0-9]{1,2}\.[0-9]{1,2}|kernel)\z`).MatchString(abi.Path) {
		j.object(abi.Pos, Features, "%s: rules of features that a file does not name are not enforced; only <abi/VERSION> and <kernel> may stand here", abi)
	}
}

// topName judges what a profile is called in the kernel.
func (j *judge) topName(p *policy.Profile) {
	plain := regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._-]*\z`)
	namespace, own := namespaceOf(p.Name)
	switch {
	case p.Hat:
		j.object(p.Pos, NameClass, "a hat may only stand inside of its profile")
	case len(p.Name) > MaxNameBytes:
		j.object(p.Pos, TooLongName, "the profile's name has %d bytes, at most %d", len(p.Name), MaxNameBytes)
	case !plain.MatchString(p.Name):
		j.object(p.Pos, NameClass, "the profile's name %s is no plain word", shown(p.Name))
	case isReserved(p.Name):
		j.object(p.Pos, NameClass, "the name %s belongs to the host or a runtime", shown(p.Name))
	case own && !j.by.Holds(namespace):
		j.object(p.Pos, OwnerClass, "the name %s belongs to the namespace %s", shown(p.Name), namespace)
	case own:
	case claimsPrefix(p.Name):
		j.object(p.Pos, OwnerClass, "the profile's name %s is not confine.%s.NAME of DNS labels", shown(p.Name), j.by.Namespace())
	case !slices.ContainsFunc(j.limits.names, func(r *regexp.Regexp) bool { return r.MatchString(p.Name) }):
		j.object(p.Pos, NameClass, "the profile's name %s is not confine.%s.NAME of DNS labels", shown(p.Name), j.by.Namespace())
	}
}

// namespaceOf returns the namespace that a name belongs to: the first of the
// DNS labels after "confine.", of which there are two or more. A namespace has
// no dot, so no two have a name in common.
func namespaceOf(name string) (string, bool) {
	own := regexp.MustCompile(`\Aconfine\.([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)+\z`)
	m := own.FindStringSubmatch(name)
	if m == nil {
		return "", false
	}
	return m[1], true
}

// claimsPrefix reports names that read as if they were Confine's own. Only
// namespaceOf says whose they are; policies do not list them.
func claimsPrefix(name string) bool { return strings.HasPrefix(strings.ToLower(name), prefix) }

// prefix begins the names of all profiles that need no relaxation.
const prefix = "confine"

// isReserved reports names that are never given away: "unconfined", and what
// runtimes load as their default.
func isReserved(name string) bool {
	lower := strings.ToLower(name)
	reserved := []string{
		"unconfined", "docker-default", "cri-containerd.apparmor.d", "crio-default", "containerd-default", "nerdctl-default",
		"podman-default", "buildah-default", "lxc-container-default", "lxc-start", "runc", "crun", "rootlesskit", "default", "complain",
	}
	prefixes := []string{"containers-default-", "lxc-container-", "crio-default-", "docker-", "snap.", "libvirt-", "libvirt"}
	return slices.Contains(reserved, lower) || slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(lower, p) })
}

// profile judges one profile, child or hat, without its children.
func (j *judge) profile(name string, p *policy.Profile) {
	child := strings.Contains(name, "//")
	if child && !regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\z`).MatchString(p.Name) {
		j.object(p.Pos, UnsafeNested, "the name %s of a child or hat is no plain word", shown(p.Name))
	}
	if p.Attachment != "" || len(p.Xattrs) > 0 {
		j.object(p.Pos, Attachment, "the profile %s attaches to executables by itself", shown(p.Name))
	}
	for _, f := range p.Flags {
		if f.Name != "attach_disconnected" && f.Name != "mediate_deleted" && !slices.Contains(j.flags, f.Name) {
			j.object(f.Pos, FlagClass, "the flag %s weakens or redirects the profile", shown(f.String()))
		}
	}
	for _, in := range p.Includes {
		j.include(in)
	}
	for _, abi := range p.ABIs {
		j.abi(abi)
	}
	for _, r := range p.Rules {
		if !r.Denies() {
			j.rule(name, p, r)
		}
	}
	j.kernelWrites(p)
}

func shown(text string) string {
	const most = 80
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return fmt.Sprintf("%q", text)
}
