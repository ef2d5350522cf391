// Package jsontree reads small JSON documents into trees whose every value
// knows where it stands, so that a reader can refuse with line and column.
//
// It is stricter than encoding/json: keys that occur twice, also in another
// case, bytes after the document, invalid UTF-8 and NUL are refused, and depth
// and number of values are bounded before anything is built.
package jsontree

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Kind is the type of a JSON value.
type Kind string

// The JSON types.
const (
	Object Kind = "object"
	Array  Kind = "array"
	String Kind = "string"
	Number Kind = "number"
	Bool   Kind = "boolean"
	Null   Kind = "null"
)

// Bounds limit a document. Every field must be positive.
type Bounds struct {
	Depth  int // nested objects and arrays
	Values int // values of all kinds, keys included
}

// Node is one value of a document.
type Node struct {
	Kind    Kind
	Offset  int      // of the value's first byte
	Text    string   // of a String, decoded; of a Number, as written
	Members []Member // of an Object, in the document's order
	Items   []*Node  // of an Array
}

// Member is one key of an object and its value.
type Member struct {
	Key    string
	Offset int // of the key's first byte
	Value  *Node
}

// Error is a refusal at a place in the document.
type Error struct {
	Offset int
	Detail string
}

// Error returns the detail; Position renders the place.
func (e *Error) Error() string { return e.Detail }

// Errorf returns an Error for a place.
func Errorf(offset int, format string, args ...any) *Error {
	return &Error{Offset: offset, Detail: fmt.Sprintf(format, args...)}
}

// Position renders a byte offset as "line:column", both from 1, in bytes.
func Position(data []byte, offset int) string {
	offset = min(max(offset, 0), len(data))
	before := data[:offset]
	line := 1 + bytes.Count(before, []byte{'\n'})
	column := offset - bytes.LastIndexByte(before, '\n')
	return strconv.Itoa(line) + ":" + strconv.Itoa(column)
}

// Locate renders object with the position of err, where err has one:
// "object:line:column".
func Locate(object string, data []byte, err error) string {
	at, ok := err.(*Error) //nolint:errorlint // this package returns it bare
	if !ok {
		return object
	}
	return object + ":" + Position(data, at.Offset)
}

// Parse reads the one document in data. The error is an *Error.
func Parse(data []byte, bounds Bounds) (*Node, error) {
	if at := firstForeignByte(data); at >= 0 {
		return nil, Errorf(at, "neither NUL, a byte order mark nor invalid UTF-8 may stand here")
	}
	r := &reader{data: data, dec: json.NewDecoder(bytes.NewReader(data)), left: bounds.Values}
	r.dec.UseNumber()
	root, err := r.value(bounds.Depth)
	if err != nil {
		return nil, err
	}
	rest := r.next()
	if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, Errorf(rest, "only one JSON document may stand here")
	}
	return root, nil
}

func firstForeignByte(data []byte) int {
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		return 0
	}
	if utf8.Valid(data) {
		return bytes.IndexByte(data, 0)
	}
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if data[i] == 0 || (r == utf8.RuneError && size == 1) {
			return i
		}
		i += size
	}
	return -1
}

type reader struct {
	data []byte
	dec  *json.Decoder
	left int
}

// next is the offset of the token that Token returns next.
func (r *reader) next() int {
	at := r.skipSpace(int(r.dec.InputOffset()))
	if at < len(r.data) && (r.data[at] == ',' || r.data[at] == ':') {
		at = r.skipSpace(at + 1)
	}
	return at
}

func (r *reader) skipSpace(at int) int {
	for at < len(r.data) && strings.IndexByte(" \t\r\n", r.data[at]) >= 0 {
		at++
	}
	return at
}

func (r *reader) token() (json.Token, int, error) {
	at := r.next()
	if r.left--; r.left < 0 {
		return nil, at, Errorf(at, "the document has too many values")
	}
	token, err := r.dec.Token()
	if err != nil {
		return nil, at, r.syntaxError(at)
	}
	return token, at, nil
}

// syntaxError finds the exact place: the decoder's own offsets leave out what
// it skips between tokens.
func (r *reader) syntaxError(at int) *Error {
	var whole json.RawMessage
	syntax, ok := errors.AsType[*json.SyntaxError](json.Unmarshal(r.data, &whole))
	switch {
	case !ok:
		return Errorf(at, "this is not JSON")
	case int(syntax.Offset) >= len(r.data) && strings.Contains(syntax.Error(), "unexpected end"):
		return Errorf(len(r.data), "the document ends too early")
	default:
		return Errorf(max(int(syntax.Offset)-1, 0), "this is not JSON: %s", syntax.Error())
	}
}

func (r *reader) value(depth int) (*Node, error) {
	token, at, err := r.token()
	if err != nil {
		return nil, err
	}
	switch token := token.(type) {
	case json.Delim:
		if depth <= 0 {
			return nil, Errorf(at, "objects and lists are nested too deeply")
		}
		if token == '{' {
			return r.object(at, depth)
		}
		return r.array(at, depth)
	case string:
		if strings.ContainsRune(token, utf8.RuneError) || strings.ContainsRune(token, 0) {
			return nil, Errorf(at, "the string holds NUL or half a surrogate pair")
		}
		return &Node{Kind: String, Offset: at, Text: token}, nil
	case json.Number:
		return &Node{Kind: Number, Offset: at, Text: token.String()}, nil
	case bool:
		return &Node{Kind: Bool, Offset: at, Text: strconv.FormatBool(token)}, nil
	default:
		return &Node{Kind: Null, Offset: at, Text: "null"}, nil
	}
}

func (r *reader) object(at, depth int) (*Node, error) {
	node := &Node{Kind: Object, Offset: at}
	seen := map[string]string{}
	for r.dec.More() {
		token, keyAt, err := r.token()
		if err != nil {
			return nil, err
		}
		key, ok := token.(string)
		if !ok {
			return nil, Errorf(keyAt, "a key must be a string")
		}
		folded := strings.ToLower(key)
		if first, twice := seen[folded]; twice {
			return nil, Errorf(keyAt, "the key %q stands here twice, first as %q", key, first)
		}
		seen[folded] = key
		value, err := r.value(depth - 1)
		if err != nil {
			return nil, err
		}
		node.Members = append(node.Members, Member{Key: key, Offset: keyAt, Value: value})
	}
	return node, r.close()
}

func (r *reader) array(at, depth int) (*Node, error) {
	node := &Node{Kind: Array, Offset: at}
	for r.dec.More() {
		item, err := r.value(depth - 1)
		if err != nil {
			return nil, err
		}
		node.Items = append(node.Items, item)
	}
	return node, r.close()
}

func (r *reader) close() error {
	_, _, err := r.token()
	return err
}
