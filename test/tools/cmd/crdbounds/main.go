// Command crdbounds gives the CRDs in a folder the bounds and rules that
// markers in our source cannot: those inside of types of apimachinery, which
// are label selectors and times.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: crdbounds FOLDER")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "crdbounds:", err)
		os.Exit(1)
	}
}

func run(folder string) error {
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("%s holds no CRD", folder)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		bound, err := boundFile(data)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := os.WriteFile(file, bound, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// boundFile returns a CRD with its bounds, in the spelling of controller-gen.
func boundFile(data []byte) ([]byte, error) {
	var crd map[string]any
	if err := yaml.Unmarshal(data, &crd); err != nil {
		return nil, err
	}
	visit(crd)
	text, err := yaml.Marshal(crd)
	return append([]byte("---\n"), text...), err
}

// visit bounds every schema in a tree.
func visit(node any) {
	switch node := node.(type) {
	case []any:
		for _, item := range node {
			visit(item)
		}
	case map[string]any:
		boundSchema(node)
		for _, member := range node {
			visit(member)
		}
	}
}

func boundSchema(schema map[string]any) {
	if schema["type"] == "string" && schema["format"] == "date-time" {
		boundTime(schema)
	}
	properties, _ := schema["properties"].(map[string]any)
	labels, isSelector := properties["matchLabels"].(map[string]any)
	expressions, hasExpressions := properties["matchExpressions"].(map[string]any)
	if isSelector && hasExpressions {
		boundLabels(labels)
		boundExpressions(expressions)
	}
}

// boundTime admits RFC 3339 alone, as clients read times: the format
// "date-time" of API servers also means spellings without seconds or zone.
func boundTime(schema map[string]any) {
	schema["maxLength"] = 35
	schema["pattern"] = `^[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$`
}

// Bounds of one selector, and of labels: a key is PREFIX/NAME with at most 253
// and 63 characters, a value has at most 63
// (https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/).
const (
	maxEntries    = 16
	maxValues     = 64
	maxKeyBytes   = 317
	maxValueBytes = 63
)

func boundLabels(schema map[string]any) {
	schema["maxProperties"] = maxEntries
	values, _ := schema["additionalProperties"].(map[string]any)
	values["maxLength"] = maxValueBytes
	addRules(values, isLabelValue())
	addRules(schema, map[string]any{
		"rule":    "self.all(key, key.size() <= 317 && !format.qualifiedName().validate(key).hasValue())",
		"message": "a key of matchLabels is no label's key: write NAME or PREFIX/NAME, such as kubernetes.io/arch",
	})
}

func boundExpressions(schema map[string]any) {
	schema["maxItems"] = maxEntries
	item, _ := schema["items"].(map[string]any)
	properties, _ := item["properties"].(map[string]any)
	key, _ := properties["key"].(map[string]any)
	key["minLength"], key["maxLength"] = 1, maxKeyBytes
	addRules(key, map[string]any{
		"rule":    "!format.qualifiedName().validate(self).hasValue()",
		"message": "key is no label's key: write NAME or PREFIX/NAME, such as kubernetes.io/arch",
	})
	operator, _ := properties["operator"].(map[string]any)
	operator["enum"] = []any{"In", "NotIn", "Exists", "DoesNotExist"}
	values, _ := properties["values"].(map[string]any)
	values["maxItems"] = maxValues
	value, _ := values["items"].(map[string]any)
	value["maxLength"] = maxValueBytes
	addRules(value, isLabelValue())
	addRules(item, map[string]any{
		"rule":    "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
		"message": "In and NotIn need values, Exists and DoesNotExist have none",
	})
}

func isLabelValue() map[string]any {
	return map[string]any{
		"rule":    "!format.labelValue().validate(self).hasValue()",
		"message": "it is no label's value: use letters and digits, with '-', '_' and '.' between them",
	}
}

func addRules(schema map[string]any, rules ...any) {
	schema["x-kubernetes-validations"] = rules
}
