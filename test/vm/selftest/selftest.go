// Package selftest holds the tests of the machines themselves: what a test
// package meets inside of one, and how its outcome comes out.
package selftest

// Covered is there to be covered, or not.
func Covered(yes bool) string {
	if yes {
		return "covered"
	}
	return "not covered"
}
