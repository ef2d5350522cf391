package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSummarize runs the real go command over small packages, so that the
// events are those of the toolchain in use.
func TestSummarize(t *testing.T) {
	module := writeModule(t)
	tests := map[string]struct {
		pkg    string
		strict bool
		none   bool
		good   bool     // the run counts as good
		prints []string // in this order
		hides  string
	}{
		"passed": {
			pkg: "passes", strict: true, good: true,
			prints: []string{"ok  \texample.test/m/passes", "2 passed, 0 failed, 0 skipped"},
			hides:  "chatter of a passed test",
		},
		"failed": {
			pkg:    "fails",
			prints: []string{"this went wrong", "FAIL example.test/m/fails TestBad", "1 passed, 1 failed, 0 skipped"},
			hides:  "chatter of a passed test",
		},
		"died": {
			pkg:    "dies",
			prints: []string{"before the end", "panic: dead", "0 passed"},
		},
		"does not build": {
			pkg:    "nobuild",
			prints: []string{"undefined: missing", "0 passed, 0 failed, 0 skipped"},
		},
		"has no tests": {
			pkg:    "empty",
			prints: []string{"0 passed, 0 failed, 0 skipped"},
		},
		"may have no tests": {
			pkg: "empty", none: true, good: true,
			prints: []string{"0 passed, 0 failed, 0 skipped"},
		},
		"may have no tests, strict": {
			pkg: "empty", none: true, strict: true,
			prints: []string{"0 passed, 0 failed, 0 skipped"},
		},
		"skipped for the kernel": {
			pkg: "skipskernel", strict: true, good: true,
			prints: []string{"SKIP example.test/m/skipskernel TestSkip: the kernel lacks it", "1 passed, 0 failed, 1 skipped"},
		},
		"skipped for no good reason, strict": {
			pkg: "skips", strict: true,
			prints: []string{"SKIP example.test/m/skips TestSkip: not today", "1 passed, 0 failed, 1 skipped"},
		},
		"skipped for no good reason, at a desk": {
			pkg: "skips", good: true,
			prints: []string{"SKIP example.test/m/skips TestSkip: not today"},
		},
		"every package": {
			pkg:    "...",
			prints: []string{"ok  \texample.test/m/passes", "passed, "},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := summarize(bytes.NewReader(goTestEvents(t, module, "./"+tc.pkg)), &out, options{strict: tc.strict, none: tc.none})
			if good := err == nil; good != tc.good {
				t.Errorf("error %v, want none: %t", err, tc.good)
			}
			rest := out.String()
			for _, want := range tc.prints {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Fatalf("%q is missing, or not in order, in:\n%s", want, out.String())
				}
				rest = after
			}
			if tc.hides != "" && strings.Contains(out.String(), tc.hides) {
				t.Errorf("%q should not be printed:\n%s", tc.hides, out.String())
			}
		})
	}
}

// TestSummarizeTimes holds that slow tests show, passed or not, and others do not.
func TestSummarizeTimes(t *testing.T) {
	events := `{"Action":"pass","Package":"p","Test":"TestFast","Elapsed":0.9}
{"Action":"pass","Package":"p","Test":"TestSlow/part","Elapsed":2.04}
{"Action":"fail","Package":"p","Test":"TestSlow","Elapsed":12}
`
	for name, tc := range map[string]struct {
		slow time.Duration
		want string
	}{
		"asked for":     {time.Second, "pass    2.0 s TestSlow/part\nfail   12.0 s TestSlow\nFAIL p TestSlow\n2 passed, 1 failed, 0 skipped\n"},
		"not asked for": {0, "FAIL p TestSlow\n2 passed, 1 failed, 0 skipped\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			_ = summarize(strings.NewReader(events), &out, options{slow: tc.slow}) // whose result the other test holds
			if out.String() != tc.want {
				t.Errorf("printed\n%s\nwant\n%s", out.String(), tc.want)
			}
		})
	}
}

func writeModule(t *testing.T) string {
	t.Helper()
	files := map[string]string{
		"go.mod":                "module example.test/m\n\ngo 1.26.0\n",
		"passes/x_test.go":      test("func TestA(t *testing.T) { t.Log(`chatter of a passed test`); t.Run(`sub`, func(*testing.T) {}) }"),
		"fails/x_test.go":       test("func TestBad(t *testing.T) { t.Error(`this went wrong`) }\nfunc TestGood(t *testing.T) { t.Log(`chatter of a passed test`) }"),
		"dies/x_test.go":        test("func TestDie(t *testing.T) { println(`before the end`); panic(`dead`) }"),
		"nobuild/x_test.go":     test("func TestX(t *testing.T) { missing() }"),
		"empty/x.go":            "package x\n",
		"skips/x_test.go":       test("func TestSkip(t *testing.T) { t.Skip(`not today`) }\nfunc TestA(*testing.T) {}"),
		"skipskernel/x_test.go": test("func TestSkip(t *testing.T) { t.Skip(`the kernel lacks it`) }\nfunc TestA(*testing.T) {}"),
	}
	root := t.TempDir()
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func test(body string) string {
	return "package x\n\nimport \"testing\"\n\n" + body + "\n"
}

// goTestEvents returns the event stream; that tests in it fail is no error here.
func goTestEvents(t *testing.T, module, pkg string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "test", "-json", pkg)
	cmd.Dir = module
	cmd.Env = append(cmd.Environ(), "GOFLAGS=", "GOWORK=off")
	out, err := cmd.Output()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return out
}
