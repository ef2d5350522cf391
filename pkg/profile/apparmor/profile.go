package apparmor

import (
	"bytes"
	"errors"
	"slices"
	"unicode/utf8"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor/policy"
	"github.com/confine-dev/confine/pkg/reason"
)

// Kind reads, judges and compares AppArmor profiles. It is stateless.
type Kind struct{}

// Profile is one parsed policy text, with all profiles in it.
type Profile struct {
	// Policy is what the text says. It must not be changed.
	Policy *policy.File
	label  string
	bytes  int
}

// NewKind returns the AppArmor kind.
func NewKind() *Kind { return &Kind{} }

// Name is "apparmor".
func (*Kind) Name() string { return Name }

// Format says how AppArmor profiles are labelled in artifacts.
func (*Kind) Format() profile.Format { return format() }

// Sniff reports whether data is text with a line that opens a profile.
func (*Kind) Sniff(data []byte) bool {
	return utf8.Valid(data) && bytes.IndexByte(data, 0) < 0 && header().Match(data)
}

// Parse reads one policy text, which may hold several profiles. The error is
// ProfileInvalid with file:line:column, or TooLarge.
func (*Kind) Parse(file string, data []byte) (profile.Profile, error) {
	if len(data) > profile.MaxPayloadBytes {
		return nil, reason.New(reason.TooLarge, file, "a profile of %d bytes is larger than the %d allowed",
			len(data), profile.MaxPayloadBytes)
	}
	read, err := policy.Parse(data)
	if err != nil {
		refusal, ok := errors.AsType[*policy.Error](err)
		if !ok {
			return nil, reason.New(reason.ProfileInvalid, file, "%w", err)
		}
		return nil, reason.New(reason.ProfileInvalid, file+":"+refusal.Pos.String(), "%s", refusal.Detail)
	}
	return &Profile{Policy: read, label: file, bytes: len(data)}, nil
}

// Kind is "apparmor".
func (*Profile) Kind() string { return Name }

// Names returns the names that loading p would give to profiles in the kernel,
// sorted: those of the top level, and children and hats as parent//child.
// Another kind's profile has none.
func Names(p profile.Profile) []string {
	a, ok := p.(*Profile)
	if !ok || a == nil {
		return nil
	}
	var names []string
	walk(a.Policy, func(name string, _ *policy.Profile) { names = append(names, name) })
	slices.Sort(names)
	return slices.Compact(names)
}

// walk visits all profiles, parents before children, with their full names.
func walk(f *policy.File, visit func(name string, p *policy.Profile)) {
	var within func(prefix string, all []*policy.Profile)
	within = func(prefix string, all []*policy.Profile) {
		for _, p := range all {
			visit(prefix+p.Name, p)
			within(prefix+p.Name+"//", p.Children)
		}
	}
	within("", f.Profiles)
}
