package arch

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
)

// TestTreeRulesObject runs each rule on a small tree that breaks it and on one
// that is as near as it gets without breaking it.
func TestTreeRulesObject(t *testing.T) {
	tests := map[string]struct {
		rule string
		tree map[string]string
		want []string // a part of each violation, in order
	}{
		"api reaches beyond apimachinery": {
			rule: "imports",
			tree: map[string]string{"api/v1/a.go": `package a; import ("fmt"; "k8s.io/apimachinery/pkg/runtime"; "sigs.k8s.io/yaml")`},
			want: []string{"api/v1: the API depends on"},
		},
		"API types reach the apply configurations": {
			rule: "imports",
			tree: map[string]string{"api/v1/a.go": `package a; import "` + Module + `/api/applyconfiguration/api/v1"`},
			want: []string{"api/v1: the API does not depend on its clients"},
		},
		"profile reaches Kubernetes over another package": {
			rule: "imports",
			tree: map[string]string{
				"pkg/profile/seccomp/a.go": `package a; import "` + Module + `/pkg/helper"`,
				"pkg/helper/a.go":          `package helper; import "k8s.io/client-go/rest"`,
			},
			want: []string{"/pkg/helper -> k8s.io/client-go/rest"},
		},
		"profile reaches a registry": {
			rule: "imports",
			tree: map[string]string{"pkg/profile/a.go": `package a; import "oras.land/oras-go/v2"`},
			want: []string{"a profile knows no registry"},
		},
		"kind starts programs": {
			rule: "imports",
			tree: map[string]string{"pkg/profile/seccomp/a.go": `package a; import "os/exec"`},
			want: []string{"only its host and compile packages start programs"},
		},
		"host and compile start programs": {
			rule: "imports",
			tree: map[string]string{
				"pkg/profile/seccomp/host/a.go":    `package host; import "os/exec"`,
				"pkg/profile/seccomp/compile/a.go": `package compile; import "os/exec"`,
				"pkg/profile/seccomp/a_test.go":    `package a; import "os/exec"`,
			},
		},
		"artifact reaches Kubernetes": {
			rule: "imports",
			tree: map[string]string{"pkg/artifact/pack/a.go": `package a; import ("k8s.io/api/core/v1"; "sigs.k8s.io/yaml")`},
			want: []string{"an artifact knows no Kubernetes"},
		},
		"trust reaches the registry": {
			rule: "imports",
			tree: map[string]string{
				"pkg/artifact/trust/a.go":    `package trust; import "` + Module + `/pkg/artifact/registry"`,
				"pkg/artifact/registry/a.go": `package registry`,
			},
			want: []string{"trust judges bytes and fetches none"},
		},
		"node and controller reach each other": {
			rule: "imports",
			tree: map[string]string{
				"pkg/node/store/a.go":      `package a; import "` + Module + `/pkg/controller"`,
				"pkg/controller/a.go":      `package a`,
				"pkg/controller/roll/a.go": `package a; import "` + Module + `/pkg/node/plan"`,
				"pkg/node/plan/a.go":       `package a`,
			},
			want: []string{"pkg/node/store: node and controller", "pkg/controller/roll: node and controller"},
		},
		"node picks a kind": {
			rule: "imports",
			tree: map[string]string{"pkg/node/a.go": `package a; import "` + Module + `/pkg/profile/seccomp/host"`},
			want: []string{"kinds are treated alike here"},
		},
		"upwards": {
			rule: "imports",
			tree: map[string]string{
				"pkg/profile/a.go":          `package a; import "` + Module + `/pkg/artifact/pack"`,
				"pkg/artifact/a.go":         `package a; import "` + Module + `/pkg/artifact/fetchtest"`,
				"pkg/reason/a.go":           `package a; import "github.com/opencontainers/go-digest"`,
				"pkg/sandbox/a.go":          `package a; import ("golang.org/x/net/http2"; "golang.org/x/sys/unix"; "` + Module + `/pkg/durable")`,
				"pkg/artifact/pack/a.go":    `package a`,
				"pkg/artifact/pack/main.go": `package a; import "` + Module + `/cmd/confine/internal/x"`,
			},
			want: []string{
				"reasons are a leaf", "has few to trust", "has few to trust", "imports point downwards", "imports point downwards",
				"what ships does not import tests", "imports point downwards",
			},
		},
		"long file": {
			rule: "lengths",
			tree: map[string]string{"pkg/a.go": "package a\n" + strings.Repeat("//\n", maxFileLines)},
			want: []string{"pkg/a.go: 501 lines, at most 500"},
		},
		"long functions": {
			rule: "lengths",
			tree: map[string]string{"pkg/a.go": "package a\ntype T[P any] struct{}\nfunc (t *T[P]) Long() {" +
				strings.Repeat("\n", maxFunctionLines) + "}\nfunc f() {" + strings.Repeat("\n", maxFunctionLines-1) + "}\n"},
			want: []string{"pkg/a.go:3: T.Long has 61 lines"},
		},
		"long table": {
			rule: "lengths",
			tree: map[string]string{"pkg/a.go": "package a\nfunc data() []int { return []int{" + strings.Repeat("\n1,", maxFunctionLines) +
				"\n} }\nfunc code() []func() { return []func(){" + strings.Repeat("\nfunc() {},", maxFunctionLines) + "\n} }\n",
				"pkg/a_test.go": "package a\nfunc cases() []func() { return []func(){" + strings.Repeat("\nfunc() {},", maxFunctionLines) + "\n} }\n"},
			want: []string{"pkg/a.go:64: code has 62 lines"},
		},
		"long main": {
			rule: "lengths",
			tree: map[string]string{"cmd/x/main.go": "package main\nfunc main() {}\n" + strings.Repeat("//\n", maxMainLines)},
			want: []string{"the file of main has 42 lines"},
		},
		"init": {
			rule: "no init",
			tree: map[string]string{"pkg/a.go": "package a\nimport _ \"embed\"\nimport _ \"net/http/pprof\"\nfunc init() {}\nfunc (T) init() {}\ntype T int\n"},
			want: []string{"pkg/a.go:4: init runs unasked", "pkg/a.go:3: import of \"net/http/pprof\""},
		},
		"node names kinds": {
			rule: "kinds alike",
			tree: map[string]string{
				"pkg/node/a.go": "package node\nfunc f(k string, c C) bool {\n" +
					"switch k {\ncase `AppArmor`: return true\n}\nreturn c.Seccomp != nil || k == `seccompish` }\n",
				"pkg/node/a_test.go": "package node\nconst k = `seccomp`\n",
			},
			want: []string{"pkg/node/a.go:4: names the kind \"AppArmor\"", "pkg/node/a.go:6: selects the kind Seccomp"},
		},
		"insecure": {
			rule: "no insecure default",
			tree: map[string]string{"pkg/a.go": insecureSource()},
			want: []string{
				"InsecureSkipVerify", "net/http.DefaultClient", "net/http.Get", "IgnoreTlog",
				"SkipVerify: nothing", "Options.InsecureRegistry", "http.Client without a Transport",
			},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			files := fstest.MapFS{}
			for file, source := range tc.tree {
				files[file] = &fstest.MapFile{Data: []byte(source)}
			}
			compare(t, treeRules()[tc.rule](load(t, files)), tc.want)
		})
	}
}

func insecureSource() string {
	return `package a

import "net/http"

var a = tls.Config{InsecureSkipVerify: true}
var b = http.DefaultClient

func f() { http.Get("x") }

var c = CheckOpts{
	Other:      1,
	IgnoreTlog: true,
}
var d = CheckOpts{
	// A key's signatures stand in no log.
	IgnoreTlog: true,
}
var e = CheckOpts{IgnoreTlog: false}

func g(o *x) { o.SkipVerify = true }

type Options struct {
	InsecureRegistry bool
	UnsafeSkipLog    bool
}

var h = http.Client{}
var i = http.Client{Transport: own}
`
}

func TestTextRulesObject(t *testing.T) {
	// Put together here, so that this file keeps the rule itself.
	home := "/ho" + "me/someone"
	tests := map[string]struct {
		rule string
		tree map[string]string
		want []string
	}{
		"home folder": {
			rule: "no machine names",
			tree: map[string]string{"README.md": "see " + home + "/x\n", "a.txt": "a/work/b is relative, /homework too\n"},
			want: []string{"README.md:1"},
		},
		"a machine's package host": {
			rule: "no machine names",
			tree: map[string]string{"hack/x": "\n\ncurl https://proxy." + "golang.org\n", "go.sum": "sum." + "golang.org"},
			want: []string{"hack/x:3"},
		},
		"broken link": {
			rule: "links",
			tree: map[string]string{"docs/a.md": "[x](b.md) [y](../README.md#top) [z](https://example.com/no)\n\n[w](gone.md)", "docs/b.md": "", "README.md": ""},
			want: []string{"docs/a.md:3: link to docs/gone.md"},
		},
		"test that is gone": {
			rule: "named tests",
			tree: map[string]string{
				"docs/a.md":     "held by `TestThere`\nand by TestGone, on Tests in general",
				"pkg/a_test.go": "package a\nfunc TestThere() {}\n",
				"pkg/a.go":      "package a\nfunc TestGone() {}\n",
			},
			want: []string{"docs/a.md:2: names TestGone"},
		},
		"target that is gone": {
			rule: "make targets",
			tree: map[string]string{"Makefile": "build-it: deps\n\tmake x\n", "README.md": "`make build-it` and\n$ make gone # make sure\n"},
			want: []string{"README.md:2: names make gone"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			files := fstest.MapFS{}
			for file, text := range tc.tree {
				files[file] = &fstest.MapFile{Data: []byte(text)}
			}
			found, err := textRules()[tc.rule](load(t, files), files)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, found, tc.want)
		})
	}
}

func TestCheckDependenciesObjects(t *testing.T) {
	const gomod = "module m\n\nrequire example.test/one v1.0.0\n\nrequire (\n\texample.test/two v1.0.0\n" +
		"\texample.test/far v1.0.0 // indirect\n)\n\ntool example.test/two/cmd/x\n"
	const document = "| `example.test/one` | reads what nothing else does |\n" +
		"| `example.test/two` | useful |\n| `example.test/gone` | no longer needed by anybody here |\n"
	found := CheckDependencies(document, DirectRequires(gomod))
	compare(t, found, []string{
		"example.test/two has no reason", "example.test/gone is required by no go.mod", "example.test/two/cmd/x is required and has no reason",
	})
}

func compare(t *testing.T, found []Violation, want []string) {
	t.Helper()
	ok := len(found) == len(want)
	for i := 0; ok && i < len(want); i++ {
		ok = strings.Contains(found[i].String(), want[i])
	}
	if !ok {
		t.Errorf("found:\n%s\nwant parts:\n%s", lines(found), strings.Join(want, "\n"))
	}
}

func lines(found []Violation) string {
	var text strings.Builder
	for _, v := range found {
		fmt.Fprintln(&text, v)
	}
	return text.String()
}
