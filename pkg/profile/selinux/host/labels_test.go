//go:build !lsm_selinux

package host

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/reason"
)

// without is a kernel with another answer to whether it enforces.
type without struct {
	*memory
	why error
}

func (w without) supported() error { return w.why }

// TestLabelsThatCannotBeReadCountAsUse: where SELinux may be enforcing, a label
// of an unknown form may hide any type.
func TestLabelsThatCannotBeReadCountAsUse(t *testing.T) {
	off := &fs.PathError{Op: "open", Path: "enforce", Err: fs.ErrNotExist}
	for name, c := range map[string]struct {
		label string
		mode  error // of the kernel
		ok    bool
	}{
		"with a level":                    {"system_u:system_r:container_t:s0:c1,c2\x00", nil, true},
		"with levels from and to":         {"system_u:system_r:initrc_t:s0-s0:c0.c1023\n", nil, true},
		"without a level":                 {"system_u:system_r:container_t", nil, true},
		"a kernel thread":                 {"system_u:system_r:kernel_t:s0\x00", nil, true},
		"unlabelled":                      {"system_u:object_r:unlabeled_t:s0\x00", nil, true},
		"a kernel thread, and no policy":  {"kernel\x00", nil, true},
		"the first process, and none":     {"init", nil, true},
		"unlabelled, and no policy":       {"unlabeled", nil, true},
		"of two parts":                    {"system_u:system_r", nil, false},
		"empty":                           {"", nil, false},
		"without a type":                  {"system_u:system_r::s0", nil, false},
		"without a user":                  {":system_r:container_t:s0", nil, false},
		"AppArmor's":                      {"confine-web (enforce)\n", nil, false},
		"AppArmor's without a profile":    {"unconfined\n", nil, false},
		"AppArmor's of a namespace":       {":confine://web (enforce)", nil, false},
		"AppArmor's of many":              {"a//&:b:c:d", nil, false},
		"another's, and permissive":       {"unconfined", errors.New("permissive"), false},
		"another's, and nobody can tell":  {"unconfined", fs.ErrPermission, false},
		"AppArmor's on a kernel with it":  {"unconfined\n", off, true},
		"a label, and no SELinux is seen": {"system_u:system_r:container_t:s0", off, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			b := newBench(t, m)
			web := unit(owner("shop", "web"), profiletest.First)
			b.install(true, web)
			b.h.kernel = without{m, c.mode}
			b.h.proc = processes(t, map[string][]string{"1": {"system_u:system_r:init_t:s0"}, "9": {c.label}})
			got := b.h.Remove(t.Context(), []profile.Owner{web.Owner})
			if c.ok {
				b.want(true, got)
				return
			}
			b.refused(got[0], reason.InstallFailed, "cannot be told: process 9 has a label that is none of SELinux")
			b.inForce(web)
		})
	}
}

// TestTypesAreReadWithAndWithoutLevels, whatever the rest of the label is.
func TestTypesAreReadWithAndWithoutLevels(t *testing.T) {
	proc := processes(t, map[string][]string{"1": {"u:r:a.process:s0-s0:c0.c1023\x00", "u:r:b\n"}, "2": {"kernel", "u:object_r:unlabeled_t:s0"}})
	found, err := runningTypes(proc, true)
	must(t, err)
	if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, []string{"a.process", "b", "unlabeled_t"}) {
		t.Errorf("types %q", got)
	}
	must(t, os.Remove(filepath.Join(proc, "2/task/0/attr/current"))) // it ended
	if found, err = runningTypes(proc, true); err != nil || found["unlabeled_t"] != "2" {
		t.Errorf("%v, %v", found, err)
	}
}
