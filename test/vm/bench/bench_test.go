package bench

import (
	"fmt"
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
	for _, module := range image.All() {
		packages, err := optedIn(t.Context(), module.Tag())
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]bool{"github.com/confine-dev/confine/test/vm/selftest": true}
		for _, p := range packages {
			delete(want, p)
			if p == "github.com/confine-dev/confine/test/vm/bench" {
				t.Errorf("%s has no file behind %s", p, module.Tag())
			}
		}
		if len(want) > 0 {
			t.Errorf("%s: %v is missing in %v", module, want, packages)
		}
	}
	if _, err := optedIn(t.Context(), "lsm_none"); err == nil {
		t.Error("no package at all is no error")
	}
}

func TestQuote(t *testing.T) {
	if got, want := quote("/a b/vmrun", "exec", "--"), "'/a b/vmrun' exec --"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
