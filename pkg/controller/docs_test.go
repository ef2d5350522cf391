package controller

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/controller/rollout"
	"github.com/confine-dev/confine/pkg/reason"
)

// rows returns the first cells of the table of docs/rollout.md whose header
// begins with a line.
func rows(t *testing.T, header string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "rollout.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(data), "\n"+header+"\n")
	if !found {
		t.Fatalf("no table %q", header)
	}
	table, _, _ = strings.Cut(table, "\n\n")
	var words []string
	for _, match := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(table, -1) {
		words = append(words, match[1])
	}
	return slices.Sorted(slices.Values(words))
}

// constants returns the values of the API's constants that begin with a prefix.
func constants(t *testing.T, prefix string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "..", "api", "v1alpha1", "securityprofile_types.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, prefix) {
			return true
		}
		if literal, ok := spec.Values[0].(*ast.BasicLit); ok {
			value, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			values[value] = true
		}
		return true
	})
	return slices.Sorted(maps.Keys(values))
}

func TestDocumentedConditions(t *testing.T) {
	if diff := cmp.Diff(constants(t, "Condition"), rows(t, "| condition | True | False |")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(constants(t, "Reason"), rows(t, "| reason | of | meaning |")); diff != "" {
		t.Error(diff)
	}
}

func TestDocumentedRefusals(t *testing.T) {
	var none []string
	for _, r := range reason.All() {
		if rollout.Judge(v1alpha1.StateFailed, metav1.ConditionFalse, string(r)) != rollout.Bad {
			none = append(none, string(r))
		}
	}
	slices.Sort(none)
	if diff := cmp.Diff(none, rows(t, "| reason |")); diff != "" {
		t.Error(diff)
	}
}

func TestDocumentedMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	m, err := newMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	w := newTestWorld(t, 1)
	w.addProfile(1, nil)
	m.observe(w.makePlan(planOptions{now: instant()}), 0)
	stopped := &v1alpha1.SecurityProfileStatus{Rollout: &v1alpha1.RolloutStatus{Stopped: v1alpha1.ReasonCanaryFailed}}
	m.changed(nil, stopped)
	m.changed(stopped, stopped)
	m.wrote(v1alpha1.KindProfileNode, "ok")
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, family := range families {
		names = append(names, family.GetName())
		if family.GetName() == "confine_rollout_stops_total" {
			if n := family.GetMetric()[0].GetCounter().GetValue(); n != 1 {
				t.Errorf("one stop counts as %v", n)
			}
		}
	}
	if diff := cmp.Diff(names, rows(t, "| metric | meaning |")); diff != "" {
		t.Error(diff)
	}
}
