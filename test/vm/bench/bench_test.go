package bench

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/test/vm/image"
	"github.com/confine-dev/confine/test/vm/machine"
)

func TestSplit(t *testing.T) {
	for name, c := range map[string]struct {
		args            []string
		modules         []image.LSM
		flags, packages []string
	}{
		"nothing":     {nil, image.All(), nil, nil},
		"one module":  {[]string{"-lsm", "selinux"}, []image.LSM{image.SELinux}, nil, nil},
		"flags":       {[]string{"-run", "A/b", "-v", "./pkg/..."}, image.All(), []string{"-run", "A/b", "-v"}, []string{"./pkg/..."}},
		"all of them": {[]string{"-json", "-lsm", "apparmor", "./a", "./b"}, []image.LSM{image.AppArmor}, []string{"-json"}, []string{"./a", "./b"}},
	} {
		t.Run(name, func(t *testing.T) {
			modules, flags, packages, err := split(c.args)
			if err != nil {
				t.Fatal(err)
			}
			for _, diff := range []string{cmp.Diff(c.modules, modules), cmp.Diff(c.flags, flags), cmp.Diff(c.packages, packages)} {
				if diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
		})
	}
	if _, _, _, err := split([]string{"-lsm", "smack"}); err == nil {
		t.Error("there is no machine with smack")
	}
}

func TestNoMachineIsSaidAndFailsInCI(t *testing.T) {
	err := fmt.Errorf("%w: there is no emulator", machine.ErrImpossible)
	t.Setenv("CI", "")
	if got := report(failed, err); got != ok {
		t.Errorf("without CI: status %d", got)
	}
	t.Setenv("CI", "true")
	if got := report(failed, err); got != failed {
		t.Errorf("with CI: status %d", got)
	}
	if got := report(ok, fmt.Errorf("something else")); got != failed {
		t.Errorf("another error: status %d", got)
	}
	if got := report(3, nil); got != 3 {
		t.Errorf("the program's status: %d", got)
	}
}

func TestOptedIn(t *testing.T) {
	t.Chdir("../../..")
	const module = "github.com/confine-dev/confine/"
	for tag, want := range map[string][]string{
		// The host has files that the tag takes away, too.
		image.AppArmor.Tag(): {"pkg/profile/apparmor/host", "test/vm/selftest"},
		image.SELinux.Tag():  {"pkg/profile/selinux/host/semodule", "test/vm/selftest"},
		outsideTag:           {"test/vm/machine"},
	} {
		found, err := optedIn(t.Context(), tag)
		if err != nil {
			t.Fatal(err)
		}
		var packages []string
		for _, p := range found {
			packages = append(packages, p.ImportPath)
		}
		for _, w := range want {
			if !slices.Contains(packages, module+w) {
				t.Errorf("%s: %s is missing in %v", tag, w, packages)
			}
		}
		if slices.Contains(packages, module+"test/vm/bench") {
			t.Errorf("%s: this package has no file behind it", tag)
		}
	}
	if _, err := optedIn(t.Context(), "lsm_none"); err == nil {
		t.Error("no package at all is no error")
	}
}

func TestQuote(t *testing.T) {
	if got, want := quote("/a b/vmrun", "exec", "", "--"), "'/a b/vmrun' exec '' --"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
