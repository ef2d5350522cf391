//go:build !linux || !(amd64 || arm64)

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

func unsupported() error {
	return fmt.Errorf("a sandbox on %s/%s: %w", runtime.GOOS, runtime.GOARCH, errors.ErrUnsupported)
}

// Run is for Linux on amd64 and arm64.
func Run(context.Context, Program) error { return unsupported() }

// Enter is for Linux on amd64 and arm64.
func Enter(Walls) (Entered, error) { return Entered{}, unsupported() }

// Drop is for Linux on amd64 and arm64.
func Drop(...Capability) error { return unsupported() }

// Restrict is for Linux on amd64 and arm64.
func Restrict(Filter) error { return unsupported() }

// Limit is for Linux on amd64 and arm64.
func Limit(Limits) error { return unsupported() }

// StatusOf is for Linux on amd64 and arm64.
func StatusOf(int) (Status, error) { return Status{}, unsupported() }
