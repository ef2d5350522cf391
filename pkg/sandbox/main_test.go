//go:build linux && (amd64 || arm64)

package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// role is the variable that makes this binary one of the processes under test
// instead of a test.
const role = "CONFINE_SANDBOX_TEST_ROLE"

func TestMain(m *testing.M) {
	if play, ok := roles()[os.Getenv(role)]; ok {
		if err := play(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// as runs this binary in a role, and returns what it printed.
func as(t *testing.T, name string, env ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), append(env, role+"="+name)...)
	cmd.Stderr = &Output{Max: 1 << 16}
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(cmd.Stderr.(*Output).String()))
	}
	return strings.TrimSpace(string(out)), err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
