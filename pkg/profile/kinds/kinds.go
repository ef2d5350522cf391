// Package kinds is the one explicit list of the kinds of profile Confine knows.
package kinds

import (
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/profile/selinux"
)

// All returns every kind as nodes judge it: a kind that no node installs yet
// is carried without being read. resolver may be nil: see seccomp.Options.
func All(resolver seccomp.Resolver) profile.Set {
	return profile.NewSet(
		seccomp.New(seccomp.Options{Resolver: resolver}),
		apparmor.New(),
		selinux.New(),
	)
}

// Readable returns every kind as far as this version can read it, for showing
// profiles to people before nodes install them.
func Readable(resolver seccomp.Resolver) profile.Set {
	return profile.NewSet(
		seccomp.New(seccomp.Options{Resolver: resolver}),
		apparmor.NewKind(),
		selinux.NewKind(),
	)
}
