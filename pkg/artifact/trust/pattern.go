package trust

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/reason"
)

// maxPatternBytes bounds a repository pattern, as the API type does.
const maxPatternBytes = 512

// pattern is a repository pattern in canonical spelling: the host is literal,
// "*" is one whole path segment, and open stands for a "**" at the end.
type pattern struct {
	segments []string // the host first
	open     bool     // one or more further segments follow
}

// parsePattern reads a pattern. Its host and its first path segment must be
// literal: a wider one would give a whole registry, which many people may
// share, to one policy. Names are canonicalized as sources are, so that a
// pattern and a source mean the same however they were typed.
func parsePattern(s string) (pattern, error) {
	if len(s) > maxPatternBytes {
		return pattern{}, fmt.Errorf("the pattern has %d bytes, at most %d are allowed", len(s), maxPatternBytes)
	}
	segments := strings.Split(s, "/")
	if len(segments) < 2 || segments[1] == "" {
		return pattern{}, errors.New("the pattern names no repository path: write HOST/PATH, such as registry.example.com/profiles/**")
	}
	literal := slices.Clone(segments)
	for i, segment := range segments {
		if !strings.Contains(segment, "*") {
			continue
		}
		switch {
		case i == 0:
			return pattern{}, errors.New("the host must be literal")
		case i == 1:
			return pattern{}, errors.New("the first path segment must be literal: the pattern would match every repository of the registry")
		case segment == "**" && i != len(segments)-1:
			return pattern{}, errors.New("** may stand only at the end")
		case segment != "*" && segment != "**":
			return pattern{}, errors.New("* stands for one whole path segment and ** for one or more: neither may be part of a segment")
		}
		literal[i] = "x" // a stand-in that every path grammar accepts
	}
	repo, err := reference.ParseRepository(strings.Join(literal, "/"))
	if err != nil {
		return pattern{}, errors.New(plainDetail(err))
	}
	canonical := repo.Segments()
	if len(canonical) == len(segments)+1 { // docker.io/NAME means docker.io/library/NAME
		segments = slices.Insert(segments, 1, canonical[1])
	}
	if len(canonical) != len(segments) {
		return pattern{}, errors.New("the pattern is no canonical repository name")
	}
	return newPattern(segments, canonical), nil
}

func newPattern(segments, canonical []string) pattern {
	p := pattern{segments: canonical}
	for i, segment := range segments {
		switch segment {
		case "*":
			p.segments[i] = "*"
		case "**":
			p.segments, p.open = p.segments[:i], true
		}
	}
	return p
}

// matches reports whether repo is one that the pattern means.
func (p pattern) matches(repo reference.Repository) bool {
	segments := repo.Segments()
	switch {
	case len(p.segments) < 2 || repo.Host == "" || repo.Path == "":
		return false
	case p.open && len(segments) <= len(p.segments):
		return false
	case !p.open && len(segments) != len(p.segments):
		return false
	}
	for i, want := range p.segments {
		if segments[i] == "" || want != "*" && want != segments[i] {
			return false
		}
	}
	return true
}

// String is the canonical spelling.
func (p pattern) String() string {
	s := strings.Join(p.segments, "/")
	if p.open {
		s += "/**"
	}
	return s
}

// plainDetail drops an inner reason: what is wrong with a policy is
// TrustPolicyInvalid, whatever the reader of its parts calls it.
func plainDetail(err error) string {
	if e, ok := reason.Of(err); ok {
		return e.Detail
	}
	return err.Error()
}
