package arch

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/confine-dev/confine/pkg/profile/kinds"
)

// TestRules runs every rule on the module itself.
func TestRules(t *testing.T) {
	root := moduleRoot(t)
	tree := load(t, os.DirFS(root))
	if len(tree.Files) == 0 {
		t.Fatal("no Go file found: the rules would hold for nothing")
	}
	for name, check := range treeRules() {
		t.Run(name, func(t *testing.T) { report(t, check(tree)) })
	}
	for name, check := range textRules() {
		t.Run(name, func(t *testing.T) {
			found, err := check(tree, os.DirFS(root))
			if err != nil {
				t.Fatal(err)
			}
			report(t, found)
		})
	}
}

// TestKindNamesAreKnown holds that the rule about kinds has names to look for:
// without any it would object to nothing.
func TestKindNamesAreKnown(t *testing.T) {
	for _, want := range []string{"seccomp", "apparmor", "selinux"} {
		if !slices.Contains(kindNames(), want) {
			t.Errorf("kind %q is not among %q", want, kindNames())
		}
	}
}

// TestDependencies holds that each direct dependency has its reason.
func TestDependencies(t *testing.T) {
	root := moduleRoot(t)
	mods, err := filepath.Glob(filepath.Join(root, "test", "tools", "*", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	var required []string
	for _, file := range append(mods, filepath.Join(root, "go.mod")) {
		direct := DirectRequires(read(t, file))
		if len(direct) == 0 {
			t.Errorf("%s requires nothing: it was not understood", file)
		}
		required = append(required, direct...)
	}
	report(t, CheckDependencies(read(t, filepath.Join(root, "docs", "dependencies.md")), required))
}

func treeRules() map[string]func(*Tree) []Violation {
	return map[string]func(*Tree) []Violation{
		"imports": CheckImports,
		"lengths": CheckLengths,
		"no init": CheckNoInit,
		"kinds alike": func(t *Tree) []Violation {
			return CheckKindsAlike(t, kindNames())
		},
		"no insecure default": CheckNoInsecureDefault,
	}
}

func textRules() map[string]func(*Tree, fs.FS) ([]Violation, error) {
	plain := func(check func(fs.FS) ([]Violation, error)) func(*Tree, fs.FS) ([]Violation, error) {
		return func(_ *Tree, fsys fs.FS) ([]Violation, error) { return check(fsys) }
	}
	return map[string]func(*Tree, fs.FS) ([]Violation, error){
		"no machine names": plain(CheckNoMachineNames),
		"links":            plain(CheckLinks),
		"make targets":     plain(CheckMakeTargets),
		"named tests":      CheckNamedTests,
	}
}

func report(t *testing.T, found []Violation) {
	t.Helper()
	for _, v := range found {
		t.Error(v)
	}
}

func load(t *testing.T, fsys fs.FS) *Tree {
	t.Helper()
	tree, err := Load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// moduleRoot returns the folder with the go.mod around the working directory.
func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod around the working directory")
		}
		dir = parent
	}
}

// kindNames returns the names of all kinds; none of them reads a profile here.
func kindNames() []string { return kinds.All(nil).Names() }
