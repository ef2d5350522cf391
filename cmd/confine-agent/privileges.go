package main

import (
	"os"
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/sandbox"
)

// confine leaves to this process the capabilities of keep that it has, and what
// an agent needs of the kernel; see sandbox.Enter, which executes the program
// anew where that is needed.
func confine(keep []sandbox.Capability) error {
	if _, err := sandbox.Enter(sandbox.Walls{Keep: keep}); err != nil {
		return err
	}
	if err := sandbox.Limit(sandbox.Limits{}); err != nil { // no core files
		return err
	}
	return sandbox.Restrict(sandbox.Agent)
}

// capabilities are those that the kinds of --kinds have a use for, where this
// process is root, and those with which it starts a fetch child of another user.
func (f flags) capabilities() []sandbox.Capability {
	if os.Geteuid() != 0 {
		return nil // what it has by accident goes
	}
	var keep []sandbox.Capability
	if f.fetchSocket == "" {
		keep = append(keep, sandbox.CapSetuid, sandbox.CapSetgid, sandbox.CapKill)
	}
	for _, row := range hostRows() {
		if !slices.Contains(f.kinds, row.kind) {
			continue
		}
		keep = append(keep, row.capabilities...)
		if len(row.capabilities) > 0 && strings.HasPrefix(f.hostRoot, "/proc/") {
			keep = append(keep, sandbox.CapSysPtrace) // to go through another process's root
		}
	}
	slices.Sort(keep)
	return slices.Compact(keep)
}
