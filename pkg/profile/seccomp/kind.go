package seccomp

import (
	"bytes"

	"github.com/confine-dev/confine/pkg/profile"
)

// Resolver tells which names the node's libseccomp knows. Runtimes skip rules
// for names that it does not know with no more than a debug message.
// Package compile has the one of the linked library.
type Resolver interface {
	// Resolves reports whether a rule for the syscall takes effect wherever an
	// architecture has that syscall.
	Resolves(name string) bool
}

// Options configure a Kind. The zero value works.
type Options struct {
	// Resolver, when nil, leaves names unresolved: then profiles whose default
	// action does not deny are always forbidden, since their safety hangs on
	// rules of which nobody can tell whether they would be skipped.
	Resolver Resolver
}

// Kind reads, judges and compares seccomp profiles. It implements
// profile.Kind and profile.Differ.
type Kind struct {
	resolver Resolver
}

// New returns the seccomp kind.
func New(opts Options) *Kind { return &Kind{resolver: opts.Resolver} }

// Name returns "seccomp".
func (k *Kind) Name() string { return Name }

// Format says how seccomp payloads are labelled in artifacts.
func (k *Kind) Format() profile.Format {
	return profile.Format{
		MediaType:   "application/vnd.confine.seccomp.v1+json",
		Extensions:  []string{".json"},
		DefaultFile: "profile.json",
	}
}

// Sniff reports whether data looks like a JSON object with a default action.
func (k *Kind) Sniff(data []byte) bool {
	trimmed := bytes.TrimLeft(data, " \t\r\n")
	return bytes.HasPrefix(trimmed, []byte("{")) && bytes.Contains(trimmed, []byte(`"defaultAction"`))
}

// Parse reads runtime-spec JSON strictly: a field outside the specification,
// a key twice or in another case, a number that other readers would round, or
// anything unbounded is refused at its line and column.
func (k *Kind) Parse(file string, data []byte) (profile.Profile, error) {
	p, err := Parse(file, data)
	if err != nil {
		return nil, err
	}
	p.findings = k.review(p)
	return p, nil
}
