// Package apparmor is the kind of AppArmor profiles: it reads policy text
// (package policy), judges it, names what it would load and compares two texts.
//
// The safe default, which a TrustPolicy relaxes by allowedNames, allowedFlags,
// allowedCapabilities and allowedRules, admits profiles of a container that stay
// what they are: called confine.NAMESPACE.NAME for the namespace of who wants
// them, attached to nothing, enforcing,
// executing in themselves or in profiles of the same text, with no more
// capabilities than runtimes give, without mounts, user namespaces and the like,
// and without writing to the kernel's own interfaces. For the last, all rules
// of a profile are compared as globs with its deny rules taken off, so that
// "file," passes with enough of them beside it, and alone does not.
//
// Includes are never read: <abstractions/...> and <tunables/...> are the host's
// own and trusted, but for those known to allow what is forbidden here. Some
// abstractions bring children and hats of their own, which Names does not know.
package apparmor

import (
	"regexp"

	"github.com/confine-dev/confine/pkg/profile"
)

// Name is the kind's word in resources, status and commands.
const Name = "apparmor"

func format() profile.Format {
	return profile.Format{
		MediaType:   "application/vnd.confine.apparmor.v1",
		Extensions:  []string{".aa", ".apparmor"},
		DefaultFile: "profile.aa",
	}
}

// header matches the line that opens a profile, as apparmor.d(5) writes it: an
// optional keyword, a name or path, optional attachment and flags, and a brace.
func header() *regexp.Regexp {
	return regexp.MustCompile(`(?m)^[ \t]*(?:profile[ \t]+[^\s{]+|/[^\s{]*|"/[^"\n]+")[^\n{;]*\{[ \t]*(?:#.*)?\r?$`)
}
