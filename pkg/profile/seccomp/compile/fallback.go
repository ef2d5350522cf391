//go:build !(linux && cgo && libseccomp)

package compile

import (
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/reason"
)

// Available reports whether libseccomp is linked in.
func Available() bool { return false }

// Resolver returns nil: without libseccomp names cannot be resolved.
func Resolver() seccomp.Resolver { return nil }

// Check refuses with KindUnsupported: there is no libseccomp to ask.
func Check(*seccomp.Profile) ([]profile.Finding, error) { return nil, unsupported() }

// Load refuses with KindUnsupported: there is no libseccomp to compile with.
func Load(*seccomp.Profile) error { return unsupported() }

func unsupported() error {
	return reason.New(reason.KindUnsupported, "libseccomp", "this program was built without libseccomp").
		WithAdvice("use a Linux build made with -tags libseccomp")
}
