package apparmor

import "github.com/confine-dev/confine/pkg/profile"

// Violations are what the safe default forbids in p.
func Violations(p *Profile) []Violation { return violations(p.Policy, profile.ForAnyone(), limits{}) }

// IsPowerful reports abstractions that a profile may not include by default.
func IsPowerful(abstraction string) bool { return isPowerful(abstraction) }
