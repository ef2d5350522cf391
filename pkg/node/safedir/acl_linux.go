package safedir

import (
	"errors"
	"syscall"
)

// hasACL reports whether an access control list stands on name. Where the file
// system has none, there is none.
func hasACL(name string) (bool, error) {
	for _, attribute := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
		size, err := syscall.Getxattr(name, attribute, nil)
		switch {
		case err == nil && size > 0:
			return true, nil
		case err == nil, errors.Is(err, syscall.ENODATA), errors.Is(err, syscall.ENOTSUP):
		default:
			return false, err
		}
	}
	return false, nil
}
