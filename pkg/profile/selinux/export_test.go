package selinux

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
