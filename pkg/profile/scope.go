package profile

// Scope says for whom a profile is judged, so that no tenant takes names that
// belong to another. The zero value is for nobody: no name that belongs to a
// namespace is allowed.
type Scope struct {
	owner  Owner
	anyone bool
}

// For is the scope of one SecurityProfile: names of its namespace are allowed.
func For(owner Owner) Scope { return Scope{owner: owner} }

// ForAnyone is the scope of a file that nobody wants yet: names of every
// namespace are allowed, as long as they are well formed. It is for showing
// verdicts to people. What is installed is judged For its owner.
func ForAnyone() Scope { return Scope{anyone: true} }

// Holds reports whether names that belong to a namespace are allowed.
func (s Scope) Holds(namespace string) bool {
	return s.anyone || (namespace != "" && namespace == s.owner.Namespace)
}

// Namespace is the one whose names are allowed, and NAMESPACE where that is
// every one or none: for messages.
func (s Scope) Namespace() string {
	if s.anyone || s.owner.Namespace == "" {
		return "NAMESPACE"
	}
	return s.owner.Namespace
}
