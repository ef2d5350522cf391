package api_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// place is one schema within a CRD's schema.
type place struct {
	// path is how the API server calls it in messages, such as spec.signers[0].name.
	path string
	// keys lead there within an object: names, and numbers in lists.
	keys   []any
	schema map[string]any
}

func (p place) is(kind string) bool { return p.schema["type"] == kind }

// rules returns the messages of the CEL rules at the place.
func (p place) rules() []string {
	var messages []string
	rules, _ := p.schema["x-kubernetes-validations"].([]any)
	for _, rule := range rules {
		text, _ := rule.(map[string]any)["message"].(string)
		messages = append(messages, text)
	}
	return messages
}

// definitions reads the CRDs by kind.
func definitions(t *testing.T) map[string]map[string]any {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "deploy", "crds", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no CRDs:", err)
	}
	found := map[string]map[string]any{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var crd struct {
			Spec struct {
				Names    struct{ Kind string }
				Versions []map[string]any
			}
		}
		if err := yaml.Unmarshal(data, &crd); err != nil {
			t.Fatal(err)
		}
		if len(crd.Spec.Versions) != 1 {
			t.Fatalf("%s has %d versions", file, len(crd.Spec.Versions))
		}
		found[crd.Spec.Names.Kind] = crd.Spec.Versions[0]
	}
	return found
}

// schemas returns every schema of a kind, that of the whole object first.
func schemas(t *testing.T, kind string) []place {
	t.Helper()
	version, found := definitions(t)[kind]
	if !found {
		t.Fatalf("no CRD for %s", kind)
	}
	root := version["schema"].(map[string]any)["openAPIV3Schema"].(map[string]any)
	return below(place{schema: root})
}

func below(p place) []place {
	found := []place{p}
	properties, _ := p.schema["properties"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		if len(p.keys) == 0 && (name == "metadata" || name == "kind" || name == "apiVersion") {
			continue // the API server's own
		}
		path := strings.TrimPrefix(p.path+"."+name, ".")
		found = append(found, below(place{path: path, keys: add(p.keys, name), schema: properties[name].(map[string]any)})...)
	}
	if items, ok := p.schema["items"].(map[string]any); ok {
		found = append(found, below(place{path: p.path + "[0]", keys: add(p.keys, 0), schema: items})...)
	}
	if values, ok := p.schema["additionalProperties"].(map[string]any); ok {
		// The only maps are matchLabels; the whole objects have this one.
		const label = "kubernetes.io/os"
		found = append(found, below(place{path: p.path + "." + label, keys: add(p.keys, label), schema: values})...)
	}
	return found
}

func add(keys []any, key any) []any { return append(slices.Clone(keys), key) }

// get returns the value at keys.
func get(value any, keys []any) (any, bool) {
	for _, key := range keys {
		switch key := key.(type) {
		case string:
			object, _ := value.(map[string]any)
			next, found := object[key]
			if !found {
				return nil, false
			}
			value = next
		case int:
			list, _ := value.([]any)
			if key >= len(list) {
				return nil, false
			}
			value = list[key]
		}
	}
	return value, true
}

// set puts the value at keys, and takes away what is there where it is nil.
func set(t *testing.T, root map[string]any, keys []any, value any) {
	t.Helper()
	parent, found := get(root, keys[:len(keys)-1])
	if !found {
		t.Fatalf("nothing at %v", keys[:len(keys)-1])
	}
	switch key := keys[len(keys)-1].(type) {
	case string:
		object := parent.(map[string]any)
		if delete(object, key); value != nil {
			object[key] = value
		}
	case int:
		parent.([]any)[key] = value
	}
}

// keysOf reads a path such as spec.signers[0].name.
func keysOf(t *testing.T, path string) []any {
	t.Helper()
	var keys []any
	for name := range strings.SplitSeq(path, ".") {
		name, index, isItem := strings.Cut(name, "[")
		keys = append(keys, name)
		if isItem {
			var i int
			if _, err := fmt.Sscanf(index, "%d]", &i); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			keys = append(keys, i)
		}
	}
	return keys
}

// Every string, list and map has an upper bound, and so does every number that
// clients read into 32 bits: one object that they cannot read would hide all.
func TestEverythingIsBounded(t *testing.T) {
	for kind := range definitions(t) {
		for _, p := range schemas(t, kind) {
			_, hasEnum := p.schema["enum"]
			_, isMap := p.schema["additionalProperties"]
			var needs []string
			switch {
			case p.is("string") && !hasEnum:
				needs = []string{"maxLength"}
			case p.is("array"):
				needs = []string{"maxItems", "x-kubernetes-list-type"}
			case p.is("integer") && p.schema["format"] == "int64":
				needs = []string{"minimum"}
			case p.is("integer"):
				needs = []string{"minimum", "maximum"}
			case isMap:
				needs = []string{"maxProperties"}
			case p.schema["x-kubernetes-int-or-string"] == true:
				needs = []string{"maxLength", "x-kubernetes-validations"}
			case p.is("object"), p.is("boolean"), hasEnum:
			default:
				t.Errorf("%s %s: no test knows what bounds this", kind, p.path)
			}
			for _, need := range needs {
				if _, found := p.schema[need]; !found {
					t.Errorf("%s %s has no %s", kind, p.path, need)
				}
			}
			if p.schema["x-kubernetes-preserve-unknown-fields"] == true {
				t.Errorf("%s %s keeps fields that nobody knows", kind, p.path)
			}
		}
	}
}

// kubectl explain shows these.
func TestEverythingIsDescribed(t *testing.T) {
	for kind := range definitions(t) {
		for _, p := range schemas(t, kind) {
			if _, isItem := p.schema["description"]; !isItem && (strings.HasSuffix(p.path, "[0]") || strings.HasSuffix(p.path, "/os")) {
				continue // its list or map is described
			}
			text, _ := p.schema["description"].(string)
			if !strings.HasSuffix(text, ".") {
				t.Errorf("%s %s: the description %q is no sentence", kind, p.path, text)
			}
			if strings.Contains(text, "v1alpha1.") || strings.Contains(text, "metav1.") {
				t.Errorf("%s %s: the description %q names Go types", kind, p.path, text)
			}
		}
	}
}
