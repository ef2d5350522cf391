package seccomp

// The tests' second opinion reads the embedded facts in its own way.

// BaselineJSON is the embedded file.
func BaselineJSON() []byte { return baselineJSON }

// GoarchOf is the GOARCH whose baseline judges an architecture, and the one
// whose syscall table is its.
func GoarchOf(a Arch) (goarch, names string) {
	for _, f := range archTable() {
		if f.arch == a {
			return f.goarch, f.names
		}
	}
	return "", ""
}

// Families are all names of the table of aliases.
func Families() []string {
	var all []string
	for _, f := range families() {
		all = append(all, f.same, f.via)
	}
	return all
}
