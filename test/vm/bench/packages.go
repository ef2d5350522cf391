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

// wanted lists the named packages: of a pattern those that opted in, and what is
// named by itself always.
func wanted(ctx context.Context, tag string, named []string) ([]testPackage, error) {
	var all []testPackage
	for _, name := range named {
		find := testFiles
		if strings.Contains(name, "...") {
			find = optedIn
		}
		found, err := find(ctx, tag, name)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no package of %s has a test behind the build tag %s", strings.Join(named, " "), tag)
	}
	slices.SortFunc(all, comparePackages)
	return slices.CompactFunc(all, func(a, b testPackage) bool { return a.ImportPath == b.ImportPath }), nil
}

func comparePackages(a, b testPackage) int { return strings.Compare(a.ImportPath, b.ImportPath) }

// optedIn lists the packages of a pattern that have a test file with the tag
// that they do not have without.
func optedIn(ctx context.Context, tag, pattern string) ([]testPackage, error) {
	with, err := testFiles(ctx, tag, pattern)
	if err != nil {
		return nil, err
	}
	plain, err := testFiles(ctx, "", pattern)
	if err != nil {
		return nil, err
	}
	without := map[string][]string{}
	for _, p := range plain {
		without[p.ImportPath] = p.testFiles()
	}
	return slices.DeleteFunc(with, func(p testPackage) bool {
		return !slices.ContainsFunc(p.testFiles(), func(file string) bool { return !slices.Contains(without[p.ImportPath], file) })
	}), nil
}

// testFiles lists the packages of a pattern with their test files.
func testFiles(ctx context.Context, tag, pattern string) ([]testPackage, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-e", "-tags", tag, "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles", pattern)
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
