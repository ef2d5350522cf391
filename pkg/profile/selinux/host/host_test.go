//go:build !lsm_selinux

package host

import (
	"testing"

	"github.com/confine-dev/confine/pkg/profile/profiletest"
)

// TestHost runs the suite against a policy in memory; runPolicy and runCases
// hold that to what the real one does, in a virtual machine.
func TestHost(t *testing.T) {
	profiletest.RunHost(t, profiletest.HostCase{
		Machine: func(t *testing.T) profiletest.Machine {
			m := newMemory()
			return machine(t, m, func() map[string]string { return m.types })
		},
		FilesFor: files,
	})
}

func inMemory(*testing.T) policy { return newMemory() }

func TestPolicyInMemory(t *testing.T) { runPolicy(t, inMemory) }

func TestCasesInMemory(t *testing.T) { runCases(t, inMemory) }
