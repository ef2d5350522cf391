//go:build linux

package nodeinit_test

import (
	"strings"
	"testing"

	"github.com/confine-dev/confine/test/kube/internal/nodeinit"
)

// TestMainRefuses holds that nobody turns the machine itself into a node.
func TestMainRefuses(t *testing.T) {
	if err := nodeinit.Main("gone.json"); err == nil || !strings.Contains(err.Error(), "process 1") {
		t.Errorf("%v, want a refusal outside of a PID namespace", err)
	}
}
