package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/confine-dev/confine/test/vm/image"
	"github.com/confine-dev/confine/test/vm/machine"
)

// runTests runs `go test` once for each security module, and first the tests of
// the machines themselves.
func runTests(ctx context.Context, args []string) (int, error) {
	modules, flags, named, err := split(args)
	if err != nil {
		return usage, err
	}
	if err := machine.Possible(); err != nil {
		return failed, err
	}
	source, remove, err := prepare(ctx, os.Stderr)
	if err != nil {
		return failed, err
	}
	defer remove()
	program, err := self()
	if err != nil {
		return failed, err
	}
	suites := make([]suite, 0, len(modules)+1)
	if len(named) == 0 && len(modules) == len(image.All()) {
		suites = append(suites, suite{name: "the machines", tag: outsideTag})
	}
	for _, module := range modules {
		// The kernel is no input that go test knows, so results are never reused.
		inside := quote(program, "exec", "-lsm", string(module), "-packages", source.Packages, "-init", source.Init, "--")
		suites = append(suites, suite{name: string(module), tag: module.Tag(), packages: named, flags: []string{"-exec", inside}})
	}
	status := ok
	for _, s := range suites {
		passed, err := s.run(ctx, flags)
		if err != nil {
			return failed, err
		}
		if !passed {
			status = failed
		}
	}
	return status, nil
}

// outsideTag is the build tag of tests that start machines themselves.
const outsideTag = "vm"

// suite is one run of go test.
type suite struct {
	name, tag string
	packages  []string // none means all that opted in
	flags     []string
}

func (s suite) run(ctx context.Context, flags []string) (passed bool, err error) {
	if len(s.packages) == 0 {
		if s.packages, err = optedIn(ctx, s.tag); err != nil {
			return false, err
		}
	}
	start := time.Now()
	all := slices.Concat([]string{"test", "-count=1", "-tags", s.tag}, s.flags, flags, s.packages)
	cmd := exec.CommandContext(ctx, "go", all...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // a machine has no C library of the host's
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	err = cmd.Run()
	fmt.Fprintf(os.Stderr, "vmrun: %s: %d packages, %.0f s\n", s.name, len(s.packages), time.Since(start).Seconds())
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		return false, err
	}
	return err == nil, nil
}

// split takes vmrun's own flag out of the arguments, and tells flags of go test
// from packages, which are paths.
func split(args []string) (modules []image.LSM, flags, packages []string, err error) {
	modules = image.All()
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == "-lsm" && i+1 < len(args):
			i++
			one, err := image.Parse(args[i])
			if err != nil {
				return nil, nil, nil, err
			}
			modules = []image.LSM{one}
		case strings.HasPrefix(args[i], "./"):
			packages = append(packages, args[i])
		default:
			flags = append(flags, args[i])
		}
	}
	return modules, flags, packages, nil
}

// optedIn lists the packages that have a test file with the tag that they do not
// have without.
func optedIn(ctx context.Context, tag string) ([]string, error) {
	with, err := testFiles(ctx, tag)
	if err != nil {
		return nil, err
	}
	without, err := testFiles(ctx, "")
	if err != nil {
		return nil, err
	}
	var found []string
	for pkg, files := range with {
		if slices.ContainsFunc(files, func(file string) bool { return !slices.Contains(without[pkg], file) }) {
			found = append(found, pkg)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no package has a test behind the build tag %s", tag)
	}
	slices.Sort(found)
	return found, nil
}

func testFiles(ctx context.Context, tag string) (map[string][]string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-e", "-tags", tag, "-json=ImportPath,TestGoFiles,XTestGoFiles", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	found := map[string][]string{}
	for packages := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath                string
			TestGoFiles, XTestGoFiles []string
		}
		err := packages.Decode(&p)
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		found[p.ImportPath] = append(p.TestGoFiles, p.XTestGoFiles...)
	}
}

// quote joins words for the flag -exec, which splits at spaces and knows quotes.
func quote(words ...string) string {
	for i, word := range words {
		if strings.ContainsAny(word, " \t") {
			words[i] = "'" + word + "'"
		}
	}
	return strings.Join(words, " ")
}
