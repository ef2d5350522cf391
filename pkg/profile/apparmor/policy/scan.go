package policy

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// scanner walks over a text. Its functions are called for what may stand next:
// like apparmor_parser's, the scanner's rules depend on the place.
type scanner struct {
	src string
	off int
	// The place of seen, so that asking for places in order is one walk.
	seen, line0, start int
}

// eof is what peek returns at the end; NUL is refused before scanning.
const eof = 0

func (s *scanner) peek() byte {
	if s.off < len(s.src) {
		return s.src[s.off]
	}
	return eof
}

func (s *scanner) at(text string) bool { return strings.HasPrefix(s.src[s.off:], text) }

func (s *scanner) fail(off int, format string, args ...any) *Error {
	return &Error{Pos: s.pos(off), Detail: fmt.Sprintf(format, args...)}
}

func (s *scanner) pos(off int) Pos {
	off = min(off, len(s.src))
	if off < s.seen {
		s.seen, s.line0, s.start = 0, 0, 0
	}
	between := s.src[s.seen:off]
	if i := strings.LastIndexByte(between, '\n'); i >= 0 {
		s.line0 += strings.Count(between, "\n")
		s.start = s.seen + i + 1
	}
	s.seen = off
	return Pos{Line: 1 + s.line0, Column: 1 + off - s.start}
}

// found describes what stands next, for messages.
func (s *scanner) found() string {
	if s.peek() == eof {
		return "the end of the text"
	}
	rest := s.src[s.off:]
	if i := strings.IndexAny(rest, " \t\n"); i > 0 {
		rest = rest[:i]
	}
	if rest[0] == '\n' {
		return "the end of the line"
	}
	return quote(rest)
}

// quote renders text of the policy for a message, shortened.
func quote(text string) string {
	const shown = 64
	if len(text) > shown {
		text = strings.ToValidUTF8(text[:shown], "") + "..."
	}
	return fmt.Sprintf("%q", text)
}

// checkText finds what no policy needs and a reader could overlook.
func checkText(data []byte) *Error {
	s := &scanner{src: string(data)}
	if len(data) > MaxBytes {
		return &Error{Pos: Pos{1, 1}, Detail: fmt.Sprintf("%d bytes are more than the %d allowed", len(data), MaxBytes)}
	}
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		return s.fail(0, "a byte order mark may not stand here")
	}
	for i := 0; i < len(s.src); {
		r, size := utf8.DecodeRuneInString(s.src[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return s.fail(i, "this is not UTF-8")
		case r == '\n' || r == '\t':
		case r == '\r':
			return s.fail(i, "a carriage return may not stand in a policy: end lines as Unix does")
		case !unicode.IsPrint(r):
			return s.fail(i, "the character U+%04X is invisible or a control character, which may not stand in a policy", r)
		}
		i += size
	}
	return nil
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

func isSpace(c byte) bool { return isBlank(c) || c == '\n' }

func isNameStart(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' }

func isNameByte(c byte) bool { return isNameStart(c) || '0' <= c && c <= '9' }

func (s *scanner) blanks() {
	for isBlank(s.peek()) {
		s.off++
	}
}

// between skips white space and comments where a statement may begin. It stops
// at "#include", which is no comment for apparmor_parser, whatever follows it.
func (s *scanner) between() {
	for {
		switch {
		case isSpace(s.peek()):
			s.off++
		case s.peek() == '#' && !s.at("#include"):
			s.line()
		default:
			return
		}
	}
}

// line skips the rest of the line.
func (s *scanner) line() {
	if i := strings.IndexByte(s.src[s.off:], '\n'); i >= 0 {
		s.off += i
	} else {
		s.off = len(s.src)
	}
}

// within skips white space inside of a statement. apparmor_parser reads a "#"
// there in different ways for different rules.
func (s *scanner) within() *Error {
	for isSpace(s.peek()) {
		s.off++
	}
	if s.peek() == '#' {
		return s.fail(s.off, "a comment may not stand inside of a statement: write it before or after")
	}
	return nil
}

// keyword reads a word of letters, digits and underscores; empty where none
// stands. What follows it directly must be able to end it.
func (s *scanner) keyword() (string, *Error) {
	start := s.off
	if !isNameStart(s.peek()) {
		return "", nil
	}
	for isNameByte(s.peek()) {
		s.off++
	}
	if c := s.peek(); c != eof && !isSpace(c) && !strings.ContainsRune(",(=", rune(c)) {
		return "", s.fail(start, "%s cannot be read: put white space after the keyword", s.wordFrom(start))
	}
	return s.src[start:s.off], nil
}

// nextKeyword returns the keyword that stands next without going past it.
func (s *scanner) nextKeyword() string {
	end := s.off
	for end < len(s.src) && isNameByte(s.src[end]) {
		end++
	}
	if end < len(s.src) && !isSpace(s.src[end]) && !strings.ContainsRune(",(=", rune(s.src[end])) {
		return ""
	}
	return s.src[s.off:end]
}

func (s *scanner) wordFrom(start int) string {
	c := &scanner{src: s.src, off: start}
	return c.found()
}

// comma reads the comma that ends a statement. Glued to what follows it would
// be a part of a longer word for apparmor_parser in some places.
func (s *scanner) comma() *Error {
	if err := s.within(); err != nil {
		return err
	}
	if s.peek() != ',' {
		return s.fail(s.off, "expected a comma at the end of the rule, found %s", s.found())
	}
	s.off++
	if c := s.peek(); c != eof && !isSpace(c) && c != '#' && c != '}' {
		return s.fail(s.off, "put white space after the comma that ends a rule")
	}
	return nil
}

// expect reads one given character.
func (s *scanner) expect(c byte, where string) *Error {
	if err := s.within(); err != nil {
		return err
	}
	if s.peek() != c {
		return s.fail(s.off, "expected %q %s, found %s", string(c), where, s.found())
	}
	s.off++
	return nil
}

// arrow reads "->" where it stands next.
func (s *scanner) arrow() (bool, *Error) {
	if err := s.within(); err != nil || !s.at("->") {
		return false, err
	}
	s.off += 2
	if !isBlank(s.peek()) {
		return false, s.fail(s.off-2, "put white space after ->")
	}
	return true, s.within()
}

// text reads a word or a quoted string. Inside of a list a comma or a closing
// parenthesis always ends it.
func (s *scanner) text(inList bool) (string, *Error) {
	if s.peek() == '"' {
		return s.quoted()
	}
	return s.word(inList)
}

// quoted reads a quoted string, as one line without escaped quotes: with one,
// apparmor_parser takes the longest text between two quotes.
func (s *scanner) quoted() (string, *Error) {
	start := s.off
	end := strings.IndexAny(s.src[start+1:], "\"\n")
	if end < 0 || s.src[start+1+end] == '\n' {
		return "", s.fail(start, "the quoted text does not end on its line")
	}
	inner := s.src[start+1 : start+1+end]
	s.off = start + end + 2
	if strings.HasSuffix(inner, `\`) {
		return "", s.fail(s.off-2, "a backslash may not stand before a quote")
	}
	if c := s.peek(); c != eof && !isSpace(c) && c != ',' && c != ')' {
		return "", s.fail(s.off, "put white space after the quoted text")
	}
	return s.settle(start+1, inner)
}

// settle checks what a word or quoted text may hold, and resolves the escapes
// that only unquoted text needs.
func (s *scanner) settle(start int, raw string) (string, *Error) {
	if raw == "" {
		return "", s.fail(start, "an empty text may not stand here")
	}
	if len(raw) > MaxWordBytes {
		return "", s.fail(start, "a word of %d bytes is longer than the %d allowed", len(raw), MaxWordBytes)
	}
	var out strings.Builder
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			out.WriteByte(raw[i])
			continue
		}
		i++
		switch {
		case i < len(raw) && strings.IndexByte(" !#\t", raw[i]) >= 0:
			out.WriteByte(raw[i])
		case i < len(raw) && strings.IndexByte(`*?[]{}^,\-`, raw[i]) >= 0:
			out.WriteString(raw[i-1 : i+1])
		default:
			return "", s.fail(start+i-1, "only blanks and the characters * ? [ ] { } ^ , - ! # \\ may be escaped: write others themselves")
		}
	}
	if why := unbalanced(out.String()); why != "" {
		return "", s.fail(start, "%s", why)
	}
	return out.String(), nil
}

// word reads an unquoted word: to white space, or to a comma that white space
// follows.
func (s *scanner) word(inList bool) (string, *Error) {
	start, depth, class := s.off, 0, false
	for {
		c := s.peek()
		switch {
		case c == eof || isSpace(c), inList && (c == ',' || c == ')'):
			return s.settle(start, s.src[start:s.off])
		case c == '"' || c == '!':
			return "", s.fail(s.off, "%q may not stand in a word without a backslash or quotes around the word", string(c))
		case inList && c == '(':
			return "", s.fail(s.off, "a parenthesis may not stand in a word")
		case c == ',' && class && !s.endsAfterComma(): // [6,7] holds a comma, too
		case c == ',' && (depth == 0 || s.endsAfterComma()):
			if !s.endsAfterComma() {
				return "", s.fail(s.off, "a comma inside of a word needs a backslash or quotes around the word; one that ends a rule needs white space after it")
			}
			return s.settle(start, s.src[start:s.off])
		case c == '\\':
			if s.off+1 < len(s.src) && s.src[s.off+1] != '\n' {
				s.off++
			}
		case c == '[' || c == ']':
			class = c == '['
		case c == '{':
			depth++
		case c == '}':
			depth--
		}
		s.off++
		if s.off-start > MaxWordBytes {
			return "", s.fail(start, "a word is longer than the %d bytes allowed", MaxWordBytes)
		}
	}
}

// endsAfterComma reports whether the comma that stands next ends a word for
// apparmor_parser: those followed by anything else belong to it.
func (s *scanner) endsAfterComma() bool {
	if s.off+1 >= len(s.src) {
		return true
	}
	next := s.src[s.off+1]
	return isSpace(next) || next == '"' || next == '!' || next == ','
}

// unbalanced says what is wrong with the braces and brackets of a glob.
func unbalanced(glob string) string {
	depth, class := 0, false
	for i := 0; i < len(glob); i++ {
		c := glob[i]
		switch {
		case c == '\\':
			i++
		case class:
			class = c != ']'
			if c == '[' || c == '{' || c == '}' || c == ',' && depth > 0 {
				return "braces, brackets and commas in a set of characters need a backslash"
			}
		case c == '[':
			class = true
			if i+1 < len(glob) && glob[i+1] == ']' {
				return "a set of characters is empty"
			}
		case c == ']':
			return "a closing bracket has no opening one"
		case c == '{':
			depth++
			if depth > MaxDepth {
				return "braces are nested too deeply"
			}
		case c == '}':
			depth--
			if depth < 0 {
				return "a closing brace has no opening one"
			}
		}
	}
	switch {
	case class:
		return "an opening bracket has no closing one"
	case depth > 0:
		return "an opening brace has no closing one: put white space before the brace that opens a profile"
	}
	return ""
}
