package cli

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/profile/seccomp/compile"
	"github.com/confine-dev/confine/pkg/reason"
)

// execUnder replaces this process by the command, under the filter. The filter
// belongs to the thread that loads it, so that thread is the one that executes.
func execUnder(parsed profile.Profile, args []string) error {
	p, ok := parsed.(*seccomp.Profile)
	if !ok {
		return reason.New(reason.KindUnsupported, parsed.Kind(), "only seccomp profiles can be run under")
	}
	if !p.MayAllow("execve") {
		// Said before the filter is in force: under it, even a message may be denied.
		return reason.New(reason.ProfileForbidden, args[0], "the profile does not allow execve, so that no command can start under it").
			WithAdvice("allow execve, as container runtimes need it too")
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := compile.Load(p); err != nil {
		return err
	}
	if err := syscall.Exec(path, args, os.Environ()); err != nil {
		return fmt.Errorf("%s: execute under the profile: %w (the profile may deny execve)", path, err)
	}
	return nil
}
