// Package cil reads SELinux's Common Intermediate Language as the
// s-expressions it is written in, and gives none of them a meaning.
//
// It takes the same tokens as libsepol does
// (https://github.com/SELinuxProject/selinux/blob/main/libsepol/cil/src/cil_lexer.l),
// less what two readers could understand differently: control characters (a
// carriage return ends libsepol's comments), line marks of high-level
// languages (they open and close nodes without parentheses), and characters
// that hide text from a reviewer.
package cil

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds on one document. libsepol nests up to 4,096 lists and takes names of
// up to 2,047 bytes; no module for a container comes near these.
const (
	MaxDepth       = 64      // lists inside each other
	MaxElements    = 1 << 16 // lists, symbols and strings
	MaxSymbolBytes = 256
	MaxStringBytes = 4096
)

// Node is a list, a symbol or a string.
type Node struct {
	Offset int     // of the first byte
	List   bool    // in parentheses
	Quoted bool    // a string; libsepol treats it as a symbol nevertheless
	Text   string  // of a symbol as written, of a string without its quotes
	Items  []*Node // of a list
}

// Error is a refusal at a place in the document.
type Error struct {
	Offset int
	Detail string
}

// Error returns the detail; Position renders the place.
func (e *Error) Error() string { return e.Detail }

func errorf(offset int, format string, args ...any) error {
	return &Error{Offset: offset, Detail: fmt.Sprintf(format, args...)}
}

// Position renders a byte offset as "line:column", both from 1, in bytes.
func Position(data []byte, offset int) string {
	offset = min(max(offset, 0), len(data))
	before := data[:offset]
	line := 1 + bytes.Count(before, []byte{'\n'})
	return strconv.Itoa(line) + ":" + strconv.Itoa(offset-bytes.LastIndexByte(before, '\n'))
}

// IsSymbol reports whether n is the unquoted symbol text.
func (n *Node) IsSymbol(text string) bool {
	return !n.List && !n.Quoted && n.Text == text
}

// Head is the symbol or string that a list begins with, the statement's
// keyword; nil where there is none.
func (n *Node) Head() *Node {
	if !n.List || len(n.Items) == 0 || n.Items[0].List {
		return nil
	}
	return n.Items[0]
}

// String writes the node on one line, without comments and needless spaces.
func (n *Node) String() string {
	var b strings.Builder
	n.write(&b)
	return b.String()
}

// write recurses at most MaxDepth times on what Parse made.
func (n *Node) write(b *strings.Builder) {
	switch {
	case n.Quoted:
		b.WriteString(`"` + n.Text + `"`)
	case !n.List:
		b.WriteString(n.Text)
	default:
		b.WriteByte('(')
		for i, item := range n.Items {
			if i > 0 {
				b.WriteByte(' ')
			}
			item.write(b)
		}
		b.WriteByte(')')
	}
}

// Parse reads the lists at the top of a document, in order. It does not
// recurse, and builds nothing beyond the bounds. The error is an *Error.
func Parse(data []byte) ([]*Node, error) {
	if err := readable(data); err != nil {
		return nil, err
	}
	r := &reader{data: data, root: &Node{List: true}}
	r.open = []*Node{r.root}
	for r.skip(); r.at < len(data); r.skip() {
		if err := r.step(); err != nil {
			return nil, err
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	if len(r.open) > 1 {
		return nil, errorf(r.open[len(r.open)-1].Offset, "this parenthesis is never closed")
	}
	return r.root.Items, nil
}

// readable refuses characters that compilers or people read otherwise than
// they are written.
func readable(data []byte) error {
	for i := 0; i < len(data); {
		if c := data[i]; (c >= ' ' && c < 0x7f) || c == '\n' || c == '\t' {
			i++
			continue
		}
		c, size := utf8.DecodeRune(data[i:])
		switch {
		case c == utf8.RuneError && size == 1:
			return errorf(i, "this is not UTF-8")
		case c == '\r':
			return errorf(i, "a carriage return may not stand here, since it would end a comment: lines end with a newline alone")
		case unicode.IsControl(c) || unicode.In(c, unicode.Cf, unicode.Zl, unicode.Zp):
			return errorf(i, "the character %U may not stand here: it does not show, or changes how text shows", c)
		}
		i += size
	}
	return nil
}

type reader struct {
	data  []byte
	at    int
	root  *Node
	open  []*Node // the lists that are not closed yet, the root first
	count int
	err   error
}

// skip moves to the next token, past white space and comments.
func (r *reader) skip() {
	for r.at < len(r.data) {
		switch r.data[r.at] {
		case ' ', '\t', '\n':
			r.at++
		case ';':
			if bytes.HasPrefix(r.data[r.at:], []byte(";;*")) {
				r.err = errorf(r.at, "line marks of high-level languages (;;*) may not stand here: they change the structure")
				r.at = len(r.data)
				return
			}
			end := bytes.IndexByte(r.data[r.at:], '\n')
			if end < 0 {
				r.at = len(r.data)
				return
			}
			r.at += end
		default:
			return
		}
	}
}

// step takes one token.
func (r *reader) step() error {
	start, inner := r.at, r.open[len(r.open)-1]
	c := r.data[start]
	if c == ')' {
		if len(r.open) == 1 {
			return errorf(start, "this parenthesis closes nothing")
		}
		r.open = r.open[:len(r.open)-1]
		r.at++
		return nil
	}
	if r.count++; r.count > MaxElements {
		return errorf(start, "more than %d lists, symbols and strings", MaxElements)
	}
	n := &Node{Offset: start}
	switch {
	case c == '(':
		if len(r.open) > MaxDepth {
			return errorf(start, "lists are nested more than %d deep", MaxDepth)
		}
		n.List = true
		r.open = append(r.open, n)
		r.at++
	case inner == r.root:
		return errorf(start, "only statements in parentheses may stand at the top")
	case c == '"':
		return r.text(inner, n)
	default:
		return r.symbol(inner, n)
	}
	inner.Items = append(inner.Items, n)
	return nil
}

func (r *reader) text(inner, n *Node) error {
	rest := r.data[r.at+1:]
	end := bytes.IndexAny(rest, "\"\n")
	switch {
	case end < 0 || rest[end] == '\n':
		return errorf(n.Offset, "this string does not end on its line")
	case end > MaxStringBytes:
		return errorf(n.Offset, "a string of %d bytes is longer than the %d allowed", end, MaxStringBytes)
	}
	n.Quoted, n.Text = true, string(rest[:end])
	inner.Items = append(inner.Items, n)
	r.at += end + 2
	return nil
}

func (r *reader) symbol(inner, n *Node) error {
	end := r.at
	for end < len(r.data) && inSymbol(r.data[end]) {
		end++
	}
	switch {
	case end == r.at:
		c, _ := utf8.DecodeRune(r.data[r.at:])
		return errorf(r.at, "the character %q is not part of CIL", c)
	case end-r.at > MaxSymbolBytes:
		return errorf(r.at, "a symbol of %d bytes is longer than the %d allowed", end-r.at, MaxSymbolBytes)
	}
	n.Text = string(r.data[r.at:end])
	inner.Items = append(inner.Items, n)
	r.at = end
	return nil
}

// inSymbol holds libsepol's set of bytes for symbols.
func inSymbol(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("[].@=/*-_$%+!|&^:~`#{}'<>?,", c) >= 0
}
