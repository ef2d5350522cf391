//go:build !lsm_selinux

package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/profile"
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

func newMemory() *memory {
	return &memory{modules: map[string]module{}, types: map[string]string{}}
}

func inMemory(*testing.T) policy { return newMemory() }

func TestPolicyInMemory(t *testing.T) { runPolicy(t, inMemory) }

func TestCasesInMemory(t *testing.T) { runCases(t, inMemory) }

// machine is one for the suite.
func machine(t *testing.T, p policy, kernelState func() map[string]string) profiletest.Machine {
	t.Helper()
	root := filepath.Join(t.TempDir(), "selinux")
	return profiletest.Machine{
		Open: func(before func() error) (profile.Host, error) {
			o := Options{Root: root}
			if before != nil {
				o.Before = func(durable.Step) error { return before() }
			}
			if m, ok := p.(*memory); ok {
				m.before = before
			}
			return open(o, p)
		},
		Unsupported: func() (profile.Host, error) {
			return New(Options{Root: root, HostRoot: root})
		},
		State: func() (map[string]string, error) { return state(root, p, kernelState) },
		Drift: drifts(p),
	}
}

// state renders the mark, the store and the kernel.
func state(root string, p policy, kernelState func() map[string]string) (map[string]string, error) {
	found := map[string]string{}
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		found["file "+e.Name()] = e.Type().String()
	}
	listed, err := p.List(context.Background())
	for _, l := range listed {
		found["module "+l.Name] = fmt.Sprintf("%s %v", l.Checksum, l.Disabled)
	}
	for name, what := range kernelState() {
		found["kernel "+name] = what
	}
	return found, err
}
