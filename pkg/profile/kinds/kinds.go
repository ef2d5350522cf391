// Package kinds is the one explicit list of the kinds of profile Confine knows.
package kinds

import (
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/profile/selinux"
)

// All returns every kind. Nodes, registries' clients and commands judge by the
// same list. resolver may be nil: see seccomp.Options.
func All(resolver seccomp.Resolver) profile.Set {
	return profile.NewSet(
		seccomp.New(seccomp.Options{Resolver: resolver}),
		apparmor.NewKind(),
		selinux.NewKind(),
	)
}
