//go:build !linux

package safedir

import "errors"

// hasACL refuses: nodes run Linux.
func hasACL(string) (bool, error) {
	return false, errors.New("access control lists are known on Linux alone")
}
