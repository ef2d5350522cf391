package tools

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const toolModule = `module example.test/pins

go 1.26.0

tool example.test/prog/cmd/hello

require example.test/prog v1.2.3

replace example.test/prog v1.2.3 => ./prog
`

const twoTools = toolModule + "tool example.test/prog/cmd/other\n"

func TestPathIn(t *testing.T) {
	root, cache := writeTool(t, toolModule, "one"), t.TempDir()

	bin := mustPath(t, root, cache)
	if want := filepath.Join(cache, "example.test", "prog@v1.2.3", "bin", "hello"); bin != want {
		t.Errorf("built %s, want %s", bin, want)
	}
	wantOutput(t, bin, "one")

	// The sources alone do not decide: a pinned version never changes.
	write(t, filepath.Join(root, "pins", "prog", "cmd", "hello", "main.go"), program("two"))
	wantOutput(t, mustPath(t, root, cache), "one")

	write(t, filepath.Join(root, "pins", "go.sum"), "\n")
	wantOutput(t, mustPath(t, root, cache), "two")

	if err := os.Remove(bin); err != nil {
		t.Fatal(err)
	}
	wantOutput(t, mustPath(t, root, cache), "two")
}

func TestPathInOfSeveral(t *testing.T) {
	gomod := strings.Replace(toolModule, "tool example.test/prog/cmd/hello", `tool (
	example.test/prog/cmd/hello
	example.test/prog/cmd/other
	example.test/prog/server/v3
)`, 1)
	root, cache := writeTool(t, gomod, "one"), t.TempDir()
	write(t, filepath.Join(root, "pins", "prog", "cmd", "other", "main.go"), program("other"))
	write(t, filepath.Join(root, "pins", "prog", "server", "v3", "main.go"), program("third"))
	for name, want := range map[string]string{"pins/hello": "one", "pins/other": "other", "pins/pins": "third"} {
		bin, err := pathIn(t.Context(), root, name, settings{}, cache)
		if err != nil {
			t.Fatal(err)
		}
		wantOutput(t, bin, want)
	}
}

func TestSettingsDecide(t *testing.T) {
	root, cache := writeTool(t, toolModule, "unset"), t.TempDir()
	write(t, filepath.Join(root, "pins", "prog", "cmd", "hello", "main.go"), `package main

var word, tagged = "unset", ""

func main() { print(word + tagged) }
`)
	write(t, filepath.Join(root, "pins", "prog", "cmd", "hello", "tagged.go"), "//go:build extra\n\npackage main\n\nfunc init() { tagged = \"+extra\" }\n")
	steps := []struct {
		settings settings
		want     string
	}{
		{settings{}, "unset"},
		{settings{ldflags: []string{"-X main.word=${version}/${release}/${major}/${minor}"}}, "v1.2.3/1.2.3/1/2"},
		{settings{tags: []string{"other", "extra"}}, "unset+extra"},
		{settings{}, "unset"},
	}
	for _, step := range steps {
		bin, err := pathIn(t.Context(), root, "pins", step.settings, cache)
		if err != nil {
			t.Fatal(err)
		}
		wantOutput(t, bin, step.want)
	}
}

func TestPathInFromManyAtOnce(t *testing.T) {
	root, cache := writeTool(t, toolModule, "one"), t.TempDir()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, err := pathIn(t.Context(), root, "pins", settings{}, cache); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	wantOutput(t, mustPath(t, root, cache), "one")
}

func TestPathInRefuses(t *testing.T) {
	tests := map[string]struct {
		gomod, source, name, want string
	}{
		"no tool line":          {gomod: "module m\n", want: "no tool line"},
		"which of two":          {gomod: twoTools, want: `program "" is not pinned: the module has hello, other`},
		"not one of two":        {gomod: twoTools, name: "pins/third", want: `program "third" is not pinned`},
		"not the one":           {gomod: toolModule, name: "pins/third", want: `program "third" is not pinned: the module has hello`},
		"two of one name":       {gomod: toolModule + "tool example.test/prog/x/hello\n", want: "two tool lines for a program called hello"},
		"tool not required":     {gomod: "module m\ntool example.test/progress/x\nrequire example.test/prog v1.2.3\n", want: "requires no module for tool"},
		"does not compile":      {gomod: toolModule, source: "package main\n", want: "function main is undeclared"},
		"no module at all":      {want: "go mod edit -json"},
		"unreadable go.mod":     {gomod: "what is this\n", want: "go mod edit -json"},
		"unknown to the go.mod": {gomod: "module m\ntool example.test/prog/cmd/hello\nrequire example.test/prog v1.2.3\nreplace example.test/prog => ./gone\n", want: "gone"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			root, cache := writeTool(t, tc.gomod, "one"), t.TempDir()
			if tc.source != "" {
				write(t, filepath.Join(root, "pins", "prog", "cmd", "hello", "main.go"), tc.source)
			}
			bin, err := pathIn(t.Context(), root, cmp.Or(tc.name, "pins"), settings{}, cache)
			if err == nil {
				t.Fatalf("built %s, want an error about %q", bin, tc.want)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q does not tell about %q", err, tc.want)
			}
		})
	}
}

// TestEveryToolIsPinned holds that each module here pins released versions.
func TestEveryToolIsPinned(t *testing.T) {
	mods, err := filepath.Glob("*/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if len(mods) == 0 {
		t.Fatal("no tool found")
	}
	for _, mod := range mods {
		pins, err := readPins(t.Context(), filepath.Dir(mod))
		if err != nil {
			t.Errorf("%s: %v", mod, err)
		}
		for _, p := range pins {
			// A pseudo-version, v0.0.0-DATE-COMMIT, is no release. This one's
			// project makes none.
			if strings.Contains(p.version, "-") && p.module != "sigs.k8s.io/kube-api-linter" {
				t.Errorf("%s pins %s@%s, which is no release", mod, p.module, p.version)
			}
		}
	}
}

// TestNames holds that a program of a module with one is called after it, and
// that every setting is for a program that there is.
func TestNames(t *testing.T) {
	names, err := Names(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"oras", "etcd", "kube/kubectl", "node/runc"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not among %q", want, names)
		}
	}
	for name := range table() {
		if !slices.Contains(names, name) {
			t.Errorf("settings for %s, which is not among %q", name, names)
		}
	}
}

func TestLink(t *testing.T) {
	// A program that is in the cache already is not built here.
	root, cache := writeTool(t, toolModule, "one"), t.TempDir()
	bin := mustPath(t, root, cache)
	dir := filepath.Join(t.TempDir(), "links")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("gone", filepath.Join(dir, "hello")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := link(bin, filepath.Join(dir, "hello")); err != nil {
			t.Fatal(err)
		}
		wantOutput(t, filepath.Join(dir, "hello"), "one")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("%d entries are left in the folder, want the link alone", len(entries))
	}
}

func program(word string) string {
	return "package main\n\nfunc main() { print(\"" + word + "\") }\n"
}

// writeTool writes a tool module called pins below the folder that it returns.
func writeTool(t *testing.T, gomod, word string) string {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "pins")
	if gomod != "" {
		write(t, filepath.Join(dir, "go.mod"), gomod)
		write(t, filepath.Join(dir, "go.sum"), "")
	}
	write(t, filepath.Join(dir, "prog", "go.mod"), "module example.test/prog\n\ngo 1.26.0\n")
	write(t, filepath.Join(dir, "prog", "cmd", "hello", "main.go"), program(word))
	return root
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func mustPath(t *testing.T, root, cache string) string {
	t.Helper()
	bin, err := pathIn(t.Context(), root, "pins", settings{}, cache)
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

func wantOutput(t *testing.T, bin, want string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), bin).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	if got := string(out); got != want {
		t.Errorf("%s printed %q, want %q", bin, got, want)
	}
}
