package tools

import (
	"os"
	"os/exec"
	"path/filepath"
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

func TestPathIn(t *testing.T) {
	dir, cache := writeTool(t, toolModule, "one"), t.TempDir()

	bin := mustPath(t, dir, cache)
	if want := filepath.Join(cache, "example.test", "prog@v1.2.3", "bin", "hello"); bin != want {
		t.Errorf("built %s, want %s", bin, want)
	}
	wantOutput(t, bin, "one")

	// The sources alone do not decide: a pinned version never changes.
	write(t, filepath.Join(dir, "prog", "cmd", "hello", "main.go"), program("two"))
	wantOutput(t, mustPath(t, dir, cache), "one")

	write(t, filepath.Join(dir, "go.sum"), "\n")
	wantOutput(t, mustPath(t, dir, cache), "two")

	if err := os.Remove(bin); err != nil {
		t.Fatal(err)
	}
	wantOutput(t, mustPath(t, dir, cache), "two")
}

func TestPathInFromManyAtOnce(t *testing.T) {
	dir, cache := writeTool(t, toolModule, "one"), t.TempDir()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, err := pathIn(t.Context(), dir, cache); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	wantOutput(t, mustPath(t, dir, cache), "one")
}

func TestPathInRefuses(t *testing.T) {
	tests := map[string]struct {
		gomod, source, want string
	}{
		"no tool line":          {gomod: "module m\n", want: "0 tool lines, want 1"},
		"two tool lines":        {gomod: "module m\ntool a.test/b\ntool a.test/c\n", want: "2 tool lines, want 1"},
		"tool not required":     {gomod: "module m\ntool example.test/progress/x\nrequire example.test/prog v1.2.3\n", want: "requires no module for tool"},
		"does not compile":      {gomod: toolModule, source: "package main\n", want: "function main is undeclared"},
		"no module at all":      {want: "go mod edit -json"},
		"unreadable go.mod":     {gomod: "what is this\n", want: "go mod edit -json"},
		"unknown to the go.mod": {gomod: "module m\ntool example.test/prog/cmd/hello\nrequire example.test/prog v1.2.3\nreplace example.test/prog => ./gone\n", want: "gone"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			dir, cache := writeTool(t, tc.gomod, "one"), t.TempDir()
			if tc.source != "" {
				write(t, filepath.Join(dir, "prog", "cmd", "hello", "main.go"), tc.source)
			}
			bin, err := pathIn(t.Context(), dir, cache)
			if err == nil {
				t.Fatalf("built %s, want an error about %q", bin, tc.want)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q does not tell about %q", err, tc.want)
			}
		})
	}
}

// TestEveryToolIsPinned holds that each module here pins one released version.
func TestEveryToolIsPinned(t *testing.T) {
	names, err := Names(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		t.Fatal("no tool found")
	}
	for _, name := range names {
		p, err := readPin(t.Context(), name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		// A pseudo-version, v0.0.0-DATE-COMMIT, is no release.
		if strings.Contains(p.version, "-") {
			t.Errorf("%s pins %s@%s, which is no release", name, p.module, p.version)
		}
	}
}

func program(word string) string {
	return "package main\n\nfunc main() { print(\"" + word + "\") }\n"
}

func writeTool(t *testing.T, gomod, word string) string {
	t.Helper()
	dir := t.TempDir()
	if gomod != "" {
		write(t, filepath.Join(dir, "go.mod"), gomod)
		write(t, filepath.Join(dir, "go.sum"), "")
	}
	write(t, filepath.Join(dir, "prog", "go.mod"), "module example.test/prog\n\ngo 1.26.0\n")
	write(t, filepath.Join(dir, "prog", "cmd", "hello", "main.go"), program(word))
	return dir
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

func mustPath(t *testing.T, dir, cache string) string {
	t.Helper()
	bin, err := pathIn(t.Context(), dir, cache)
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
