package bench

import (
	"fmt"
	"slices"
	"strings"
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

func TestWanted(t *testing.T) {
	t.Chdir("../../..")
	const module = "github.com/confine-dev/confine/"
	for name, c := range map[string]struct {
		tag   string
		named []string
		want  []string // among others where it is everything
	}{
		// The host has files that the tag takes away, too.
		"AppArmor, everything": {image.AppArmor.Tag(), []string{"./..."}, []string{"pkg/profile/apparmor/host", "test/vm/selftest"}},
		"SELinux, everything":  {image.SELinux.Tag(), []string{"./..."}, []string{"pkg/profile/selinux/host/semodule", "test/vm/selftest"}},
		"outside, everything":  {outsideTag, []string{"./..."}, []string{"test/vm/machine"}},
		"a pattern":            {image.AppArmor.Tag(), []string{"./test/vm/..."}, []string{"test/vm/e2e", "test/vm/selftest"}},
		"by name":              {image.AppArmor.Tag(), []string{"./test/vm/bench", "./test/vm/selftest/..."}, []string{"test/vm/bench", "test/vm/selftest"}},
		"twice":                {image.SELinux.Tag(), []string{"./test/vm/selftest", "./test/vm/self..."}, []string{"test/vm/selftest"}},
	} {
		t.Run(name, func(t *testing.T) {
			packages, err := wanted(t.Context(), c.tag, c.named)
			if err != nil {
				t.Fatal(err)
			}
			var found []string
			for _, p := range packages {
				found = append(found, strings.TrimPrefix(p.ImportPath, module))
			}
			if c.named[0] == "./..." {
				for _, w := range c.want {
					if !slices.Contains(found, w) {
						t.Errorf("%s is missing in %v", w, found)
					}
				}
				if slices.Contains(found, "test/vm/bench") {
					t.Error("this package has no file behind the tag")
				}
			} else if diff := cmp.Diff(c.want, found); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for _, named := range [][]string{{"./test/vm/bench/..."}, {"./none/..."}} {
		if _, err := wanted(t.Context(), image.AppArmor.Tag(), named); err == nil {
			t.Errorf("%v: no package at all is no error", named)
		}
	}
}

func TestProgramsOf(t *testing.T) {
	got := programsOf([]suite{{packages: []testPackage{{Dir: "../e2e"}, {Dir: "."}}}, {packages: []testPackage{{Dir: "../e2e"}}}})
	if diff := cmp.Diff([]string{"confine", "confine-agent"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestQuote(t *testing.T) {
	if got, want := quote("/a b/vmrun", "exec", "", "--"), "'/a b/vmrun' exec '' --"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
