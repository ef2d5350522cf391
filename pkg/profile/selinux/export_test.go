package selinux

import "strings"

// The tests compile classes that hold these, and compare the tables.
var (
	DefaultPermissions = defaultPermissions
	NeverPermitted     = neverPermitted
)

// DefaultTemplates are the templates that need no relaxation, and the others.
func DefaultTemplates() (byDefault, listed []string) {
	for _, t := range templates() {
		if t.byDefault {
			byDefault = append(byDefault, t.name)
		} else {
			listed = append(listed, t.name)
		}
	}
	return byDefault, listed
}

// Text writes the profile again, without comments and spaces.
func (p *Profile) Text() string {
	var b strings.Builder
	for _, s := range p.statements {
		b.WriteString(s.String() + "\n")
	}
	return b.String()
}
