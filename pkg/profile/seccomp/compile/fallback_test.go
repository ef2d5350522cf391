//go:build !(linux && cgo && libseccomp)

package compile_test

import (
	"errors"
	"testing"

	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/profile/seccomp/compile"
	"github.com/confine-dev/confine/pkg/reason"
)

func TestWithoutTheLibraryNothingPretendsToWork(t *testing.T) {
	if compile.Available() {
		t.Error("Available() = true")
	}
	if compile.Resolver() != nil {
		t.Error("Resolver() is not nil")
	}
	p := &seccomp.Profile{DefaultAction: seccomp.ActErrno}
	if _, err := compile.Check(p); !errors.Is(err, reason.KindUnsupported) {
		t.Errorf("Check: got %v", err)
	}
	if err := compile.Load(p); !errors.Is(err, reason.KindUnsupported) {
		t.Errorf("Load: got %v", err)
	}
}
