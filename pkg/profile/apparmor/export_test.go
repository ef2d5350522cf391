package apparmor

// Violations are what the safe default forbids in p.
func Violations(p *Profile) []Violation { return violations(p.Policy, limits{}) }
