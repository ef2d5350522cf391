package jsontree

import (
	"strconv"
	"strings"
)

// Fields maps the keys an object may have to what reads each value.
type Fields map[string]func(*Node) error

// Read hands every member of the object n to its field. unknown words the
// refusal of a key that is no field; case variants are unknown too.
func (n *Node) Read(fields Fields, unknown func(key string) string) error {
	if n.Kind != Object {
		return n.wrong(Object)
	}
	for _, m := range n.Members {
		read, ok := fields[m.Key]
		if !ok {
			return &Error{Offset: m.Offset, Detail: refusal(m.Key, fields, unknown)}
		}
		if err := read(m.Value); err != nil {
			return err
		}
	}
	return nil
}

func refusal(key string, fields Fields, unknown func(string) string) string {
	for known := range fields {
		if strings.EqualFold(known, key) {
			return "the field " + strconv.Quote(key) + " must be written " + strconv.Quote(known)
		}
	}
	return unknown(key)
}

// At returns where the value of a key of an object stands; the object's own
// place where it has no such key.
func (n *Node) At(key string) int {
	for _, m := range n.Members {
		if m.Key == key {
			return m.Value.Offset
		}
	}
	return n.Offset
}

// Str reads a string of at most limit bytes.
func (n *Node) Str(limit int) (string, error) {
	if n.Kind != String {
		return "", n.wrong(String)
	}
	if len(n.Text) > limit {
		return "", Errorf(n.Offset, "a string of %d bytes is longer than the %d allowed here", len(n.Text), limit)
	}
	return n.Text, nil
}

// Uint reads a whole number from 0 of at most the given bits, written in
// digits alone: other readers would refuse 1.0 and 1e2, or round them.
func (n *Node) Uint(bits int) (uint64, error) {
	if n.Kind != Number {
		return 0, n.wrong(Number)
	}
	v, err := strconv.ParseUint(n.Text, 10, bits)
	if err != nil {
		return 0, Errorf(n.Offset, "%s is not a whole number from 0 to 2^%d-1, written in digits alone", clip(n.Text), bits)
	}
	return v, nil
}

// List reads an array of at most limit items, each with read.
func (n *Node) List(limit int, read func(*Node) error) error {
	if n.Kind != Array {
		return n.wrong(Array)
	}
	if len(n.Items) > limit {
		return Errorf(n.Offset, "a list of %d items is longer than the %d allowed here", len(n.Items), limit)
	}
	for _, item := range n.Items {
		if err := read(item); err != nil {
			return err
		}
	}
	return nil
}

// IsNull reports whether n is null.
func (n *Node) IsNull() bool { return n.Kind == Null }

func (n *Node) wrong(want Kind) *Error {
	return Errorf(n.Offset, "expected %s, found %s", article(want), article(n.Kind))
}

func article(k Kind) string {
	switch k {
	case Object, Array:
		return "an " + string(k)
	case Null:
		return "null"
	default:
		return "a " + string(k)
	}
}

func clip(text string) string {
	const shown = 40
	if len(text) <= shown {
		return text
	}
	return text[:shown] + "..."
}
