package api_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/confine-dev/confine/api/v1alpha1"
)

var update = flag.Bool("update", false, "write the tables of docs/api.md anew")

// The tables of docs/api.md are what the CRDs say. After a change of the API:
//
//	go test ./test/api -run TestReference -update
func TestReference(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "api.md")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tables := regexp.MustCompile(`(?s)<!-- fields of (\w+) -->\n.*?<!-- end of fields -->\n`)
	seen := map[string]bool{}
	want := tables.ReplaceAllStringFunc(string(data), func(text string) string {
		kind := tables.FindStringSubmatch(text)[1]
		seen[kind] = true
		return fmt.Sprintf("<!-- fields of %s -->\n%s<!-- end of fields -->\n", kind, tableOf(t, kind))
	})
	for kind := range definitions(t) {
		if !seen[kind] {
			t.Errorf("docs/api.md has no table of %s", kind)
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(data)); diff != "" {
		t.Errorf("docs/api.md is stale: %s", diff)
	}
}

func tableOf(t *testing.T, kind string) string {
	t.Helper()
	text := "| field | type | meaning |\n|---|---|---|\n"
	inside := ""
	for _, p := range schemas(t, kind)[1:] {
		name := strings.ReplaceAll(p.path, "[0]", "[]")
		switch {
		case inside != "" && strings.HasPrefix(name, inside), strings.HasSuffix(name, "[]"):
			continue
		case isForeign(p):
			inside = name
		default:
			inside = ""
		}
		description, _ := p.schema["description"].(string)
		description = strings.Join(strings.Fields(description), " ")
		for _, mark := range []string{"|", "*", "<"} {
			description = strings.ReplaceAll(description, mark, `\`+mark)
		}
		text += fmt.Sprintf("| `%s` | %s | %s |\n", name, typeOf(t, kind, p), description)
	}
	return text
}

// isForeign tells types of apimachinery, which have documents of their own.
func isForeign(p place) bool { return isSelector(p) || strings.HasSuffix(p.path, ".conditions") }

func isSelector(p place) bool {
	properties, _ := p.schema["properties"].(map[string]any)
	return properties["matchLabels"] != nil
}

// typeOf says what to write, and within which bounds.
func typeOf(t *testing.T, kind string, p place) string {
	t.Helper()
	words := []string{plainType(p)}
	limit := func(unit, least, most string) {
		low, hasLow := p.schema[least].(float64)
		high, hasHigh := p.schema[most].(float64)
		switch {
		case hasLow && low > 1 && hasHigh, hasLow && hasHigh && unit == "":
			words = append(words, fmt.Sprintf("%d to %d%s", int(low), int(high), unit))
		case hasHigh && !p.is("string"):
			words = append(words, fmt.Sprintf("at most %d%s", int(high), unit))
		case hasHigh && p.schema["pattern"] == nil && p.schema["format"] == nil:
			words = append(words, fmt.Sprintf("at most %d%s", int(high), unit))
		}
	}
	limit("", "minimum", "maximum")
	limit(" entries", "minItems", "maxItems")
	if p.is("string") {
		limit(" characters", "minLength", "maxLength")
	}
	if value, found := p.schema["default"]; found {
		words = append(words, fmt.Sprintf("default `%v`", value))
	}
	if isRequired(t, kind, p) {
		words = append(words, "required")
	}
	return strings.Join(words, ", ")
}

func plainType(p place) string {
	if options, found := p.schema["enum"].([]any); found {
		var names []string
		for _, option := range options {
			names = append(names, fmt.Sprintf("`%v`", option))
		}
		return strings.Join(names, " or ")
	}
	switch {
	case isSelector(p):
		return "label selector"
	case p.schema["x-kubernetes-int-or-string"] == true:
		return "number or percentage"
	case p.schema["format"] == "date-time":
		return "time"
	case p.is("array"):
		items, _ := p.schema["items"].(map[string]any)
		return fmt.Sprintf("list of %ss", items["type"])
	}
	return p.schema["type"].(string)
}

func isRequired(t *testing.T, kind string, p place) bool {
	t.Helper()
	name := p.keys[len(p.keys)-1]
	for _, parent := range schemas(t, kind) {
		if slices.Equal(parent.keys, p.keys[:len(p.keys)-1]) {
			required, _ := parent.schema["required"].([]any)
			return slices.Contains(required, name)
		}
	}
	return false
}

// What examples and documents show is what the server accepts, once the
// elisions in documents are filled in.
func TestShownObjectsAreAccepted(t *testing.T) {
	for name, text := range shown(t) {
		t.Run(name, func(t *testing.T) {
			for part := range strings.SplitSeq(fillIn(t, text), "\n---\n") {
				var object unstructured.Unstructured
				if err := yaml.UnmarshalStrict([]byte(part), &object.Object); err != nil {
					t.Fatal(err)
				}
				if !strings.HasPrefix(object.GetAPIVersion(), v1alpha1.GroupName+"/") {
					continue
				}
				if object.GetKind() == v1alpha1.KindSecurityProfile {
					object.SetNamespace("default") // the one that is there
				}
				if err := try(t, &object); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// shown returns the manifests of examples/ and the YAML of documents that are
// about this API.
func shown(t *testing.T) map[string]string {
	t.Helper()
	root := filepath.Join("..", "..")
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```")
	found := map[string]string{}
	for _, pattern := range []string{"examples/*/*.yaml", "docs/*.md", "*.md", "deploy/*/*.md"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			texts := []string{string(data)}
			if filepath.Ext(file) == ".md" {
				texts = nil
				for _, block := range blocks.FindAllStringSubmatch(string(data), -1) {
					texts = append(texts, block[1])
				}
			}
			for i, text := range texts {
				if strings.Contains(text, "apiVersion: "+v1alpha1.GroupName+"/") {
					found[fmt.Sprintf("%s %d", filepath.Base(file), i)] = text
				}
			}
		}
	}
	for _, name := range []string{"nginx.yaml 0", "worker.yaml 0", "web.yaml 0", "trust.md 0", "api.md 0", "README.md 0"} {
		if found[name] == "" {
			t.Errorf("%s shows no object any more", name)
		}
	}
	return found
}

// fillIn writes out the digests and keys that documents cut short.
func fillIn(t *testing.T, text string) string {
	t.Helper()
	text = strings.ReplaceAll(text, "sha256:...", digest)
	text = regexp.MustCompile(`-----BEGIN PUBLIC KEY-----\.\.\.`).ReplaceAllStringFunc(text, func(string) string {
		return strings.ReplaceAll(newKey(t), "\n", `\n`)
	})
	return regexp.MustCompile(`( +)-----BEGIN PUBLIC KEY-----\n +\.\.\.`).ReplaceAllStringFunc(text, func(found string) string {
		indent := found[:strings.Index(found, "-")]
		return indent + strings.ReplaceAll(strings.TrimSpace(newKey(t)), "\n", "\n"+indent)
	})
}

func newKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return encode(t, &key.PublicKey)
}
