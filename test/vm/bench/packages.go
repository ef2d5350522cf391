package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// programsFile lists, in a test package's folder, the programs of ./cmd that
// the package's machine has in its PATH, one a line.
const programsFile = "testdata/programs"

// testPackage is what `go list` says of one package.
type testPackage struct {
	ImportPath, Dir           string
	TestGoFiles, XTestGoFiles []string
}

func (p testPackage) testFiles() []string { return slices.Concat(p.TestGoFiles, p.XTestGoFiles) }

// optedIn lists the packages that have a test file with the tag that they do not
// have without.
func optedIn(ctx context.Context, tag string) ([]testPackage, error) {
	with, err := testFiles(ctx, tag, "./...")
	if err != nil {
		return nil, err
	}
	plain, err := testFiles(ctx, "", "./...")
	if err != nil {
		return nil, err
	}
	without := map[string][]string{}
	for _, p := range plain {
		without[p.ImportPath] = p.testFiles()
	}
	found := slices.DeleteFunc(with, func(p testPackage) bool {
		return !slices.ContainsFunc(p.testFiles(), func(file string) bool { return !slices.Contains(without[p.ImportPath], file) })
	})
	if len(found) == 0 {
		return nil, fmt.Errorf("no package has a test behind the build tag %s", tag)
	}
	return found, nil
}

// testFiles lists packages with their test files, sorted.
func testFiles(ctx context.Context, tag string, patterns ...string) ([]testPackage, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-e", "-tags", tag, "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles"}, patterns...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var found []testPackage
	for packages := json.NewDecoder(bytes.NewReader(out)); ; {
		var p testPackage
		err := packages.Decode(&p)
		if errors.Is(err, io.EOF) {
			slices.SortFunc(found, func(a, b testPackage) int { return strings.Compare(a.ImportPath, b.ImportPath) })
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		found = append(found, p)
	}
}

// programsOf returns what the packages of all suites want of ./cmd.
func programsOf(suites []suite) []string {
	var all []string
	for _, s := range suites {
		for _, p := range s.packages {
			wanted, err := wantedPrograms(p.Dir)
			if err == nil {
				all = append(all, wanted...)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func wantedPrograms(dir string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(dir, programsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return strings.Fields(string(text)), err
}
