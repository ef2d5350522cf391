package apparmor

// Violations are what the safe default forbids in p.
func Violations(p *Profile) []Violation { return violations(p.Policy, limits{}) }

// IsPowerful reports abstractions that a profile may not include by default.
func IsPowerful(abstraction string) bool { return isPowerful(abstraction) }
