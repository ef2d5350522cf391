// Package apparmor is the kind of AppArmor profiles, which this version
// carries and verifies without reading them.
package apparmor

import (
	"regexp"

	"github.com/confine-dev/confine/pkg/profile"
)

// Name is the kind's word in resources, status and commands.
const Name = "apparmor"

// New returns the AppArmor kind.
func New() profile.Opaque {
	return profile.Opaque{
		KindName:  Name,
		Labels:    format(),
		LooksLike: header().Match,
	}
}

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
