package arch

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Module is the path of the module whose packages the rules are about.
const Module = "github.com/confine-dev/confine"

// Tree is the parsed source of a module, whatever the build tags: what builds
// only elsewhere keeps the rules too.
type Tree struct {
	fset *token.FileSet
	// Files are all Go files, sorted by name.
	Files []File
}

// File is one Go file.
type File struct {
	// Name is the file's path in the module, with slashes.
	Name string
	// Lines is the number of lines.
	Lines int
	// Syntax is the parsed file, with comments.
	Syntax *ast.File
}

// Violation is one place that breaks a rule.
type Violation struct {
	// Place is "file:line", or the file or package alone.
	Place string
	// Message says what is wrong there.
	Message string
}

// String renders the violation as compilers do, so that editors find the place.
func (v Violation) String() string { return v.Place + ": " + v.Message }

// Package returns the folder of the file in the module, such as "pkg/node".
func (f File) Package() string { return path.Dir(f.Name) }

// IsTest reports whether the file is compiled for tests only: a _test file, or
// a package that exists for tests (conformance suites, everything below test/).
func (f File) IsTest() bool {
	return strings.HasSuffix(f.Name, "_test.go") || isTestPackage(f.Package())
}

func isTestPackage(pkg string) bool {
	for i, part := range strings.Split(pkg, "/") {
		if i == 0 && part == "test" || i > 0 && strings.HasSuffix(part, "test") {
			return true
		}
	}
	return false
}

// Imports returns the import paths of the file.
func (f File) Imports() []string {
	paths := make([]string, 0, len(f.Syntax.Imports))
	for _, spec := range f.Syntax.Imports {
		// The parser accepts nothing that cannot be unquoted.
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

// Load parses all Go files below fsys, except in folders that the go command
// passes over, other modules and generated files.
func Load(fsys fs.FS) (*Tree, error) {
	t := &Tree{fset: token.NewFileSet()}
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			return skipFolder(fsys, name)
		case path.Ext(name) != ".go":
			return nil
		}
		return t.add(fsys, name)
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(t.Files, func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	return t, nil
}

func skipFolder(fsys fs.FS, name string) error {
	base := path.Base(name)
	if name == "." {
		return nil
	}
	if base == "testdata" || base == "vendor" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return fs.SkipDir
	}
	if _, err := fs.Stat(fsys, path.Join(name, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}

func (t *Tree) add(fsys fs.FS, name string) error {
	source, err := fs.ReadFile(fsys, name)
	if err != nil {
		return err
	}
	syntax, err := parser.ParseFile(t.fset, name, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("parsing: %w", err)
	}
	if ast.IsGenerated(syntax) {
		return nil
	}
	t.Files = append(t.Files, File{Name: name, Lines: strings.Count(string(source), "\n"), Syntax: syntax})
	return nil
}

// at makes a violation at a position.
func (t *Tree) at(pos token.Pos, format string, args ...any) Violation {
	p := t.fset.Position(pos)
	return Violation{Place: fmt.Sprintf("%s:%d", p.Filename, p.Line), Message: fmt.Sprintf(format, args...)}
}

// line returns the line number of a position.
func (t *Tree) line(pos token.Pos) int { return t.fset.Position(pos).Line }

// product returns the files that ship.
func (t *Tree) product() []File {
	return slices.DeleteFunc(slices.Clone(t.Files), File.IsTest)
}

// within reports whether pkg is the folder or below it.
func within(pkg, folder string) bool {
	return pkg == folder || strings.HasPrefix(pkg, folder+"/")
}
