package arch

import (
	"go/ast"
	"strconv"
	"strings"
)

// forbiddenSelectors are members that have no place in code that ships, each
// with what to do instead. The key is the import path and the member.
func forbiddenSelectors() map[string]string {
	const client = "it has no timeout and dials anywhere: use the client of pkg/artifact/registry"
	found := map[string]string{
		"crypto/md5.New":  "broken: use crypto/sha256",
		"crypto/sha1.New": "broken: use crypto/sha256",
		"crypto/sha1.Sum": "broken: use crypto/sha256",
		"math/rand.Read":  "guessable: use crypto/rand",
		"os/exec.Command": "it cannot be stopped: use exec.CommandContext",
	}
	for _, name := range []string{"DefaultClient", "DefaultTransport", "Get", "Head", "Post", "PostForm", "ListenAndServe", "Serve"} {
		found["net/http."+name] = client
	}
	return found
}

// forbiddenFields switch a check off by being set.
func forbiddenFields() map[string]string {
	return map[string]string{
		"InsecureSkipVerify":     "certificates are always checked; name a CA file instead",
		"IgnoreSCT":              "needs a reason in a comment beside it",
		"IgnoreTlog":             "needs a reason in a comment beside it",
		"SkipVerify":             "nothing skips verification",
		"InsecureIgnoreHostKey":  "host keys are always checked",
		"InsecureAllowHTTP":      "name the registry that is served without TLS",
		"PlainHTTP":              "needs a reason in a comment beside it",
		"SkipTLSVerify":          "certificates are always checked; name a CA file instead",
		"SkipTLS":                "certificates are always checked; name a CA file instead",
		"WithInsecureSkipVerify": "certificates are always checked; name a CA file instead",
	}
}

// CheckNoInsecureDefault refuses what is insecure unless somebody thinks of it.
// What a comment on the same line or the line above explains may set a field
// whose meaning depends on the case (legacy signatures without a log, a
// registry on loopback).
func CheckNoInsecureDefault(t *Tree) []Violation {
	var found []Violation
	for _, f := range t.product() {
		explained := commentLines(t, f)
		imports := importNames(f)
		ast.Inspect(f.Syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				found = append(found, checkSelector(t, n, imports)...)
			case *ast.KeyValueExpr:
				if id, ok := n.Key.(*ast.Ident); ok {
					found = append(found, checkField(t, id, n.Value, explained)...)
				}
			case *ast.CompositeLit:
				found = append(found, checkClient(t, n, imports)...)
			case *ast.AssignStmt:
				found = append(found, checkAssignment(t, n, explained)...)
			case *ast.TypeSpec:
				found = append(found, checkOptions(t, n)...)
			}
			return true
		})
	}
	return found
}

func checkSelector(t *Tree, n *ast.SelectorExpr, imports map[string]string) []Violation {
	id, ok := n.X.(*ast.Ident)
	if !ok {
		return nil
	}
	path := imports[id.Name]
	if path == "" {
		return nil
	}
	if why, bad := forbiddenSelectors()[path+"."+n.Sel.Name]; bad {
		return []Violation{t.at(n.Pos(), "%s.%s: %s", path, n.Sel.Name, why)}
	}
	return nil
}

// checkClient refuses an http.Client without a transport of its own: the zero
// value is http.DefaultTransport.
func checkClient(t *Tree, n *ast.CompositeLit, imports map[string]string) []Violation {
	sel, ok := n.Type.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != "Client" {
		return nil
	}
	if id, ok := sel.X.(*ast.Ident); !ok || imports[id.Name] != "net/http" {
		return nil
	}
	for _, element := range n.Elts {
		if pair, ok := element.(*ast.KeyValueExpr); ok {
			if key, ok := pair.Key.(*ast.Ident); ok && key.Name == "Transport" {
				return nil
			}
		}
	}
	return []Violation{t.at(n.Pos(), "http.Client without a Transport uses the default one")}
}

func checkAssignment(t *Tree, n *ast.AssignStmt, explained map[int]bool) []Violation {
	var found []Violation
	for i, left := range n.Lhs {
		sel, ok := left.(*ast.SelectorExpr)
		if !ok || i >= len(n.Rhs) {
			continue
		}
		found = append(found, checkField(t, sel.Sel, n.Rhs[i], explained)...)
	}
	return found
}

// checkField judges a field that is given a value other than false.
func checkField(t *Tree, name *ast.Ident, value ast.Expr, explained map[int]bool) []Violation {
	why, bad := forbiddenFields()[name.Name]
	if id, ok := value.(*ast.Ident); !bad || ok && id.Name == "false" {
		return nil
	}
	line := t.line(name.Pos())
	if strings.HasPrefix(why, "needs a reason") && (explained[line] || explained[line-1]) {
		return nil
	}
	return []Violation{t.at(name.Pos(), "%s: %s", name.Name, why)}
}

// checkOptions refuses exported fields that switch something off without
// saying Unsafe first, so that a reader of the caller sees it.
func checkOptions(t *Tree, spec *ast.TypeSpec) []Violation {
	structure, ok := spec.Type.(*ast.StructType)
	if !ok {
		return nil
	}
	var found []Violation
	for _, field := range structure.Fields.List {
		for _, name := range field.Names {
			if name.IsExported() && soundsUnsafe(name.Name) && !strings.HasPrefix(name.Name, "Unsafe") {
				found = append(found, t.at(name.Pos(), "%s.%s: an escape's name begins with Unsafe", spec.Name.Name, name.Name))
			}
		}
	}
	return found
}

func soundsUnsafe(name string) bool {
	for _, word := range []string{"Insecure", "Skip", "Unsafe", "NoVerify", "DisableVerif", "AllowHTTP", "PlainHTTP"} {
		if strings.Contains(name, word) && !strings.HasPrefix(name, "Skipped") {
			return true
		}
	}
	return false
}

// commentLines returns the lines on which a comment stands.
func commentLines(t *Tree, f File) map[int]bool {
	lines := map[int]bool{}
	for _, group := range f.Syntax.Comments {
		for line := t.line(group.Pos()); line <= t.line(group.End()); line++ {
			lines[line] = true
		}
	}
	return lines
}

// importNames maps the names by which a file calls its imports to their paths.
func importNames(f File) map[string]string {
	names := map[string]string{}
	for _, spec := range f.Syntax.Imports {
		path, ok := unquote(spec.Path.Value)
		if !ok {
			continue
		}
		if spec.Name != nil {
			names[spec.Name.Name] = path
			continue
		}
		names[path[strings.LastIndex(path, "/")+1:]] = path
	}
	return names
}

func unquote(literal string) (string, bool) {
	text, err := strconv.Unquote(literal)
	return text, err == nil
}
