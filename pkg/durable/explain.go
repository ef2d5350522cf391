package durable

import (
	"errors"
	"syscall"

	"github.com/confine-dev/confine/pkg/reason"
)

// Explain turns an error of this package into a reason.Error: NoSpace for a
// full disk or an exhausted quota, else InstallFailed. An error that already
// carries a reason keeps it. err must not be nil.
func Explain(object string, err error) *reason.Error {
	if known, ok := reason.Of(err); ok {
		return known
	}
	switch {
	case isFull(err):
		return reason.New(reason.NoSpace, object, "%w", err).
			WithAdvice("free space and inodes, or raise the quota, on the file system that holds it; it is tried again by itself")
	case errors.Is(err, syscall.EROFS):
		return reason.New(reason.InstallFailed, object, "the file system is read-only: %w", err).
			WithAdvice("mount it read-write, or choose a writable folder")
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return reason.New(reason.InstallFailed, object, "%w", err).
			WithAdvice("run as the user who owns the folder, and check for immutable files and a sandbox that keeps it read-only")
	case errors.Is(err, ErrNotFolder), errors.Is(err, ErrNotRegular):
		return reason.New(reason.InstallFailed, object, "%w", err).
			WithAdvice("look at what was put in its place and take it away; links are never followed here")
	}
	return reason.New(reason.InstallFailed, object, "%w", err)
}
