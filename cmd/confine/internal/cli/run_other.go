//go:build !linux

package cli

import (
	"runtime"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

func execUnder(parsed profile.Profile, _ []string) error {
	return reason.New(reason.KindUnsupported, parsed.Kind(), "profiles are enforced by Linux, not by %s", runtime.GOOS).
		WithAdvice("run the command on a Linux machine")
}
