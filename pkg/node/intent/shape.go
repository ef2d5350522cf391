package intent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	yamlv3 "go.yaml.in/yaml/v3"
)

// checkShape makes sure that raw is at most one YAML document and no larger
// with its aliases written out. Readers of YAML take the first document of what
// they are given and leave the rest unread, and files are split at lines of
// "---" alone, while YAML also begins a document after "...", after a carriage
// return and after other ends of line (YAML 1.1, sections 4.2 and 9.1).
func checkShape(raw []byte) error {
	decoder := yamlv3.NewDecoder(bytes.NewReader(raw))
	var document, next yamlv3.Node
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := decoder.Decode(&next); !errors.Is(err, io.EOF) {
		return errors.New(`something follows the document: put a line of "---" alone between two documents`)
	}
	return (&expansion{sizes: map[*yamlv3.Node]int{}}).check(&document)
}

// expansion is the size of a document whose aliases are written out.
type expansion struct {
	sizes map[*yamlv3.Node]int // of what aliases mean; -1 while it is counted
}

func (e *expansion) check(document *yamlv3.Node) error {
	n, err := e.size(document)
	if err == nil && n > MaxFileBytes {
		err = fmt.Errorf("with its aliases written out it exceeds %d bytes", MaxFileBytes)
	}
	return err
}

// size stops growing beyond MaxFileBytes, so that it cannot overflow.
func (e *expansion) size(node *yamlv3.Node) (int, error) {
	if node.Kind == yamlv3.AliasNode {
		return e.aliased(node.Alias)
	}
	total := 1 + len(node.Value)
	for _, part := range node.Content {
		n, err := e.size(part)
		if err != nil {
			return 0, err
		}
		total = min(total+n, MaxFileBytes+1)
	}
	return total, nil
}

func (e *expansion) aliased(node *yamlv3.Node) (int, error) {
	known, met := e.sizes[node]
	switch {
	case met && known < 0:
		return 0, errors.New("an alias stands within what it means")
	case met:
		return known, nil
	}
	e.sizes[node] = -1
	n, err := e.size(node)
	e.sizes[node] = n
	return n, err
}

// checkNoEmptyField refuses a field or item of spec that has no value.
// Templates leave one where a variable is not set; taken for absent, it would
// drop a bound.
func (d document) checkNoEmptyField() error {
	var object struct {
		Spec any `json:"spec"`
	}
	if err := json.Unmarshal(d.json, &object); err != nil {
		return err
	}
	if path := emptyWithin("spec", object.Spec); path != "" {
		return fmt.Errorf("%.200s has no value: give it one, or leave the field out", path)
	}
	return nil
}

// emptyWithin is the least path of a null at or below path, or empty.
func emptyWithin(path string, value any) string {
	switch value := value.(type) {
	case nil:
		return path
	case map[string]any:
		var found []string
		for key, part := range value {
			found = append(found, emptyWithin(path+"."+key, part))
		}
		return first(found)
	case []any:
		var found []string
		for i, part := range value {
			found = append(found, emptyWithin(path+"["+strconv.Itoa(i)+"]", part))
		}
		return first(found)
	}
	return ""
}

// first is the least path, so that the message is the same each time.
func first(paths []string) string {
	paths = slices.DeleteFunc(paths, func(p string) bool { return p == "" })
	if len(paths) == 0 {
		return ""
	}
	return slices.Min(paths)
}
