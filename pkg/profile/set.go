package profile

import (
	"path"
	"slices"
	"strings"
)

// Set is the explicit, ordered list of kinds a program knows. The order
// decides nothing: labels of two kinds never overlap, NewSet's callers hold
// that by a test.
type Set struct {
	kinds []Kind
}

// NewSet returns the set of the given kinds.
func NewSet(kinds ...Kind) Set { return Set{kinds: slices.Clone(kinds)} }

// All returns the kinds in their order.
func (s Set) All() []Kind { return slices.Clone(s.kinds) }

// Names returns the kinds' names in their order.
func (s Set) Names() []string {
	names := make([]string, 0, len(s.kinds))
	for _, k := range s.kinds {
		names = append(names, k.Name())
	}
	return names
}

// ByName returns the kind of that name.
func (s Set) ByName(name string) (Kind, bool) {
	return s.find(func(k Kind) bool { return k.Name() == name })
}

// ByMediaType returns the kind whose layers have that media type.
func (s Set) ByMediaType(mediaType string) (Kind, bool) {
	return s.find(func(k Kind) bool { return k.Format().MediaType == mediaType })
}

// ByTitle returns the kind whose extension ends title, ignoring case.
func (s Set) ByTitle(title string) (Kind, bool) {
	ext := strings.ToLower(path.Ext(title))
	if ext == "" {
		return nil, false
	}
	return s.find(func(k Kind) bool { return slices.Contains(k.Format().Extensions, ext) })
}

// BySniff returns all kinds that take data for their own.
func (s Set) BySniff(data []byte) []Kind {
	var found []Kind
	for _, k := range s.kinds {
		if k.Sniff(data) {
			found = append(found, k)
		}
	}
	return found
}

func (s Set) find(match func(Kind) bool) (Kind, bool) {
	i := slices.IndexFunc(s.kinds, match)
	if i < 0 {
		return nil, false
	}
	return s.kinds[i], true
}
