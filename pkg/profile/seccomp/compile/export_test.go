//go:build linux && cgo && libseccomp

package compile

import (
	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/pkg/profile/seccomp"
)

// Program is the kernel program of p for the architectures it names.
func Program(p *seccomp.Profile) ([]unix.SockFilter, error) {
	b, err := build(p, false)
	if err != nil {
		return nil, err
	}
	defer b.filter.Release()
	return b.program()
}
