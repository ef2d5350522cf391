package arch

import (
	"fmt"
	"go/ast"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

// CheckNamedTests refuses documents that name a test which does not exist. The
// threat model rests on it: an attack whose test is gone is an open attack.
func CheckNamedTests(t *Tree, fsys fs.FS) ([]Violation, error) {
	exists := map[string]bool{}
	for _, f := range t.Files {
		if !strings.HasSuffix(f.Name, "_test.go") {
			continue
		}
		for _, decl := range f.Syntax.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil {
				exists[fn.Name.Name] = true
			}
		}
	}
	return checkWords(fsys, regexp.MustCompile(`\b((?:Test|Fuzz|Benchmark)[A-Z]\w*)`), func(word string) string {
		if exists[word] {
			return ""
		}
		return "names " + word + ", which is not in the tree"
	})
}

// CheckMakeTargets refuses documents that name a target the Makefile lacks.
func CheckMakeTargets(fsys fs.FS) ([]Violation, error) {
	makefile, err := fs.ReadFile(fsys, "Makefile")
	if err != nil {
		return nil, err
	}
	exists := map[string]bool{}
	for _, match := range regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):`).FindAllStringSubmatch(string(makefile), -1) {
		exists[match[1]] = true
	}
	return checkWords(fsys, regexp.MustCompile("(?:`|\\$ )make ([a-z][a-z0-9-]*)"), func(word string) string {
		if exists[word] {
			return ""
		}
		return "names make " + word + ", which the Makefile lacks"
	})
}

// checkWords hands each word that the pattern's first group matches in a
// Markdown file to check, which returns what is wrong with it.
func checkWords(fsys fs.FS, pattern *regexp.Regexp, check func(string) string) ([]Violation, error) {
	files, err := textFiles(fsys)
	if err != nil {
		return nil, err
	}
	var found []Violation
	for name, data := range files {
		if path.Ext(name) != ".md" {
			continue
		}
		for i, line := range strings.Split(string(data), "\n") {
			for _, match := range pattern.FindAllStringSubmatch(line, -1) {
				if wrong := check(match[1]); wrong != "" {
					found = append(found, Violation{Place: fmt.Sprintf("%s:%d", name, i+1), Message: wrong})
				}
			}
		}
	}
	return sorted(found), nil
}
