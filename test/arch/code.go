package arch

import (
	"fmt"
	"go/ast"
	"go/token"
	"strings"
)

// Bounds on what a reader has to hold in mind at once.
const (
	maxFileLines     = 500
	maxFunctionLines = 60
	maxMainLines     = 40
)

// CheckLengths holds the bounds on files, functions and main files. The lines of
// a table (a composite literal; in code that ships one without functions in it)
// are data and do not count for its function; they do for the file.
func CheckLengths(t *Tree) []Violation {
	var found []Violation
	for _, f := range t.Files {
		if f.Lines > maxFileLines {
			found = append(found, Violation{Place: f.Name, Message: fmt.Sprintf("%d lines, at most %d", f.Lines, maxFileLines)})
		}
		for _, decl := range f.Syntax.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			if lines := t.lines(fn) - t.tableLines(fn, f.IsTest()); lines > maxFunctionLines {
				found = append(found, t.at(fn.Pos(), "%s has %d lines, at most %d", functionName(fn), lines, maxFunctionLines))
			}
			if isMain(f, fn) && f.Lines > maxMainLines {
				found = append(found, Violation{Place: f.Name, Message: fmt.Sprintf("the file of main has %d lines, at most %d: it only wires", f.Lines, maxMainLines)})
			}
		}
	}
	return found
}

// lines returns the number of lines that a node spans.
func (t *Tree) lines(n ast.Node) int { return t.line(n.End()) - t.line(n.Pos()) + 1 }

// tableLines returns the lines inside of tables, without their first and last.
func (t *Tree) tableLines(fn *ast.FuncDecl, functionsToo bool) int {
	lines := 0
	ast.Inspect(fn, func(n ast.Node) bool {
		table, ok := n.(*ast.CompositeLit)
		if !ok || !functionsToo && holdsCode(table) {
			return true
		}
		lines += max(0, t.lines(table)-2)
		return false
	})
	return lines
}

func holdsCode(table *ast.CompositeLit) bool {
	found := false
	ast.Inspect(table, func(n ast.Node) bool {
		_, isCode := n.(*ast.FuncLit)
		found = found || isCode
		return !found
	})
	return found
}

func isMain(f File, fn *ast.FuncDecl) bool {
	return within(f.Name, "cmd") && f.Syntax.Name.Name == "main" && fn.Recv == nil && fn.Name.Name == "main"
}

// functionName renders "Name" or "Type.Name".
func functionName(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return fn.Name.Name
	}
	receiver := fn.Recv.List[0].Type
	for {
		switch typ := receiver.(type) {
		case *ast.StarExpr:
			receiver = typ.X
		case *ast.IndexExpr:
			receiver = typ.X
		case *ast.IndexListExpr:
			receiver = typ.X
		case *ast.Ident:
			return typ.Name + "." + fn.Name.Name
		default:
			return fn.Name.Name
		}
	}
}

// CheckNoInit refuses init functions and imports for their effect: what a
// program contains is one explicit list.
func CheckNoInit(t *Tree) []Violation {
	var found []Violation
	for _, f := range t.Files {
		for _, decl := range f.Syntax.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				found = append(found, t.at(fn.Pos(), "init runs unasked: call a function instead"))
			}
		}
		for _, spec := range f.Syntax.Imports {
			if spec.Name != nil && spec.Name.Name == "_" && spec.Path.Value != `"embed"` {
				found = append(found, t.at(spec.Pos(), "import of %s for its effect", spec.Path.Value))
			}
		}
	}
	return found
}

// CheckKindsAlike refuses the names of kinds in pkg/node and pkg/controller, as
// text or as a selected member: whoever names a kind branches on it.
func CheckKindsAlike(t *Tree, names []string) []Violation {
	kinds := map[string]bool{}
	for _, name := range names {
		kinds[strings.ToLower(name)] = true
	}
	var found []Violation
	for _, f := range t.product() {
		if !within(f.Package(), "pkg/node") && !within(f.Package(), "pkg/controller") {
			continue
		}
		ast.Inspect(f.Syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				if text, ok := stringLiteral(n); ok && kinds[strings.ToLower(text)] {
					found = append(found, t.at(n.Pos(), "names the kind %q: kinds are treated alike here", text))
				}
			case *ast.SelectorExpr:
				if kinds[strings.ToLower(n.Sel.Name)] {
					found = append(found, t.at(n.Pos(), "selects the kind %s: kinds are treated alike here", n.Sel.Name))
				}
			}
			return true
		})
	}
	return found
}

func stringLiteral(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	return unquote(lit.Value)
}
