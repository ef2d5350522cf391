package arch

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// importRule says what some packages must not reach. It is about direct
// imports and about those of every package of this module reached from there.
type importRule struct {
	// of selects packages by their folder.
	of func(pkg string) bool
	// forbidden says why an import path must not be reached; empty if it may.
	forbidden func(importPath string) string
	// direct limits the rule to the package's own imports.
	direct bool
}

// importRules is the table "Packages" of the design.
func importRules() []importRule {
	return []importRule{
		{of: in("api"), forbidden: func(p string) string {
			// The generated apply configurations build on client-go: they are
			// for clients, and nothing that reads manifests may reach them.
			if within(p, Module+"/api/applyconfiguration") {
				return "the API does not depend on its clients"
			}
			if isStandard(p) || within(p, "k8s.io/apimachinery") || within(p, "k8s.io/api") || within(p, Module+"/api") {
				return ""
			}
			return "the API depends on apimachinery and k8s.io/api alone"
		}},
		{of: in("pkg/profile"), forbidden: never("a profile knows no Kubernetes", kubernetes)},
		{of: in("pkg/profile"), forbidden: never("a profile knows no registry", under("oras.land"))},
		{of: isKind, direct: true, forbidden: never("a kind reads bytes; only its host and compile packages start programs", under("os/exec"))},
		{of: in("pkg/artifact"), forbidden: never("an artifact knows no Kubernetes", kubernetes)},
		{of: in("pkg/artifact/trust"), forbidden: never("trust judges bytes and fetches none", own("pkg/artifact/registry"))},
		{of: in("pkg/node"), forbidden: never("node and controller share only the API", own("pkg/controller"))},
		{of: in("pkg/controller"), forbidden: never("node and controller share only the API", own("pkg/node"))},
		{of: in("pkg/reason"), forbidden: func(p string) string {
			if isStandard(p) {
				return ""
			}
			return "reasons are a leaf that everything may import"
		}},
		{of: in("pkg/sandbox"), forbidden: func(p string) string {
			if isStandard(p) || within(p, "golang.org/x/sys") || within(p, "golang.org/x/net/bpf") || within(p, Module+"/pkg/reason") {
				return ""
			}
			return "what starts first and drops privileges has few to trust"
		}},
		{of: in("pkg"), forbidden: never("imports point downwards", own("cmd"))},
		{of: in("api", "cmd", "pkg"), forbidden: never("what ships does not import tests", ownTests)},
		{of: in("pkg/artifact"), forbidden: never("imports point downwards", own("pkg/node"))},
		{of: in("pkg/profile"), forbidden: never("imports point downwards", own("pkg/artifact"))},
		{of: in("pkg/profile"), forbidden: never("imports point downwards", own("pkg/node"))},
		{of: in("pkg/node", "pkg/controller"), direct: true, forbidden: func(p string) string {
			pkg := strings.TrimPrefix(p, Module+"/")
			if isKind(pkg) || isKind(strings.TrimSuffix(pkg, "/host")) {
				return "kinds are treated alike here: take a profile.Set or profile.Host"
			}
			return ""
		}},
	}
}

// CheckImports holds the table "Packages" of the design.
func CheckImports(t *Tree) []Violation {
	graph := importGraph(t)
	var found []Violation
	for _, rule := range importRules() {
		for _, pkg := range slices.Sorted(maps.Keys(graph)) {
			if !rule.of(pkg) {
				continue
			}
			for _, path := range reached(graph, pkg, rule) {
				last := path[len(path)-1]
				if why := rule.forbidden(last); why != "" {
					found = append(found, Violation{Place: pkg, Message: fmt.Sprintf("%s: %s", why, strings.Join(path, " -> "))})
				}
			}
		}
	}
	return found
}

// importGraph maps each package that ships to its imports, sorted.
func importGraph(t *Tree) map[string][]string {
	graph := map[string][]string{}
	for _, f := range t.product() {
		graph[f.Package()] = append(graph[f.Package()], f.Imports()...)
	}
	for pkg, imports := range graph {
		slices.Sort(imports)
		graph[pkg] = slices.Compact(imports)
	}
	return graph
}

// reached returns one shortest path to each import that pkg reaches through
// packages of this module.
func reached(graph map[string][]string, pkg string, rule importRule) [][]string {
	var paths [][]string
	seen := map[string]bool{}
	for next := [][]string{{Module + "/" + pkg}}; len(next) > 0; next = next[1:] {
		path := next[0]
		own, ok := strings.CutPrefix(path[len(path)-1], Module+"/")
		if !ok || rule.direct && len(path) > 1 {
			continue
		}
		for _, imported := range graph[own] {
			if seen[imported] {
				continue
			}
			seen[imported] = true
			longer := append(slices.Clone(path), imported)
			paths = append(paths, longer)
			next = append(next, longer)
		}
	}
	return paths
}

func in(folders ...string) func(string) bool {
	return func(pkg string) bool {
		return slices.ContainsFunc(folders, func(folder string) bool { return within(pkg, folder) })
	}
}

// isKind reports whether pkg is one kind's own package, pkg/profile/<kind>,
// without what is below it.
func isKind(pkg string) bool {
	name, ok := strings.CutPrefix(pkg, "pkg/profile/")
	return ok && !strings.Contains(name, "/") && name != "kinds" && !isTestPackage(pkg)
}

func never(why string, bad func(string) bool) func(string) string {
	return func(importPath string) string {
		if bad(importPath) {
			return why
		}
		return ""
	}
}

func under(prefix string) func(string) bool {
	return func(importPath string) bool { return within(importPath, prefix) }
}

func own(folder string) func(string) bool { return under(Module + "/" + folder) }

func ownTests(importPath string) bool {
	pkg, ok := strings.CutPrefix(importPath, Module+"/")
	return ok && isTestPackage(pkg)
}

// kubernetes matches what talks Kubernetes. sigs.k8s.io/yaml and json are plain
// decoders that live under the same roof.
func kubernetes(importPath string) bool {
	if within(importPath, "sigs.k8s.io/yaml") || within(importPath, "sigs.k8s.io/json") {
		return false
	}
	return within(importPath, "k8s.io") || within(importPath, "sigs.k8s.io")
}

// isStandard reports whether the path is of the standard library: no dot in
// its first element.
func isStandard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}
