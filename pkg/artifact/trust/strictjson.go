package trust

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds on foreign JSON before any library reads it. A bundle of cosign with
// a log entry and a timestamp has about 200 tokens, 8 levels deep.
const (
	maxJSONDepth  = 32
	maxJSONTokens = 16384
)

// checkJSON refuses JSON that two readers might read differently (duplicate or
// case-variant keys, invalid UTF-8, something after the value) or that is
// costly to read (deep, or of very many parts). The top must be an object.
func checkJSON(data []byte) error {
	switch {
	case !utf8.Valid(data):
		return errors.New("it is not UTF-8")
	case !json.Valid(data):
		return errors.New("it is not JSON, or it was cut off")
	case bytes.TrimLeft(data, " \t\r\n")[0] != '{':
		return errors.New("it is no JSON object")
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var open scopes
	for range maxJSONTokens {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errors.New("it is not JSON")
		}
		if err := open.take(token); err != nil {
			return err
		}
	}
	return fmt.Errorf("it has more than %d parts", maxJSONTokens)
}

// scope is one open array, or object with the keys seen in it.
type scope struct {
	keys   map[string]struct{} // nil for an array
	values bool                // the next token of an object is a value
}

type scopes []scope

func (s *scopes) take(token json.Token) error {
	delim, isDelim := token.(json.Delim)
	if isDelim && (delim == '}' || delim == ']') {
		*s = (*s)[:len(*s)-1]
		s.valueDone()
		return nil
	}
	if top := s.top(); top != nil && top.keys != nil && !top.values {
		key, _ := token.(string) // inside an object, here stands a key
		folded := strings.Map(smallestFold, key)
		if _, twice := top.keys[folded]; twice {
			return fmt.Errorf("the key %.40q stands twice in one object", key)
		}
		top.keys[folded], top.values = struct{}{}, true
		return nil
	}
	if !isDelim {
		s.valueDone()
		return nil
	}
	if len(*s) == maxJSONDepth {
		return fmt.Errorf("it is nested deeper than %d levels", maxJSONDepth)
	}
	opened := scope{}
	if delim == '{' {
		opened.keys = make(map[string]struct{})
	}
	*s = append(*s, opened)
	return nil
}

func (s *scopes) top() *scope {
	if len(*s) == 0 {
		return nil
	}
	return &(*s)[len(*s)-1]
}

// valueDone makes the enclosing object expect its next key.
func (s *scopes) valueDone() {
	if top := s.top(); top != nil {
		top.values = false
	}
}

// smallestFold is the same for all runes that encoding/json takes for one
// another in keys, the Kelvin sign and k among them.
func smallestFold(r rune) rune {
	least := r
	for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
		least = min(least, next)
	}
	return least
}
