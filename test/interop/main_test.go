// Package interop_test runs the real confine program together with the real
// oras, cosign and registry programs of other projects, each built from its Go
// module (test/tools), on loopback alone.
package interop_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/confine-dev/confine/test/tools"
)

// labEnv names the folder that TestMain prepares: the programs by name, and
// what cosign needs to work without any service. It is an environment variable
// and not a global, so that nothing can change it unseen.
const labEnv = "CONFINE_INTEROP_LAB"

// The two lines of cosign, as programs of the lab.
const (
	cosign2 = "cosign2"
	cosign3 = "cosign3"
)

// Key pairs of the lab, made once since each costs a fifth of a second: by
// confine, by each line of cosign, and one that no policy names.
const (
	confineKey  = "key-of-confine"
	cosign2Key  = "key-of-cosign2"
	cosign3Key  = "key-of-cosign3"
	strangerKey = "key-of-a-stranger"
)

func TestMain(m *testing.M) {
	code, err := runInLab(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		code = 1
	}
	os.Exit(code)
}

func runInLab(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "confine-interop-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := prepareLab(context.Background(), dir); err != nil {
		return 0, err
	}
	if err := os.Setenv(labEnv, dir); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// prepareLab links the foreign programs, builds confine, makes the files that
// tell cosign to contact no service, and makes keys.
func prepareLab(ctx context.Context, dir string) error {
	for _, name := range []string{"oras", "registry", cosign2, cosign3} {
		program, err := tools.Path(ctx, name)
		if err != nil {
			return err
		}
		if err := os.Symlink(program, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	steps := [][]string{
		{"go", "build", "-tags", buildTags, "-o", filepath.Join(dir, "confine"), "github.com/confine-dev/confine/cmd/confine"},
		// Without services named, both files mean: there are none.
		{filepath.Join(dir, cosign3), "signing-config", "create", "--out", filepath.Join(dir, "signing-config.json")},
		{filepath.Join(dir, cosign3), "trusted-root", "create", "--out", filepath.Join(dir, "trusted-root.json")},
		{filepath.Join(dir, "confine"), "keygen", "--output-key-prefix", filepath.Join(dir, confineKey)},
		{filepath.Join(dir, "confine"), "keygen", "--output-key-prefix", filepath.Join(dir, strangerKey)},
		{filepath.Join(dir, cosign2), "generate-key-pair", "--output-key-prefix", filepath.Join(dir, cosign2Key)},
		{filepath.Join(dir, cosign3), "generate-key-pair", "--output-key-prefix", filepath.Join(dir, cosign3Key)},
	}
	for _, step := range steps {
		cmd := exec.CommandContext(ctx, step[0], step[1:]...)
		cmd.Env = append(os.Environ(), "COSIGN_PASSWORD="+password)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%v: %w\n%s", step, err, out)
		}
	}
	return nil
}

// lab returns the path of a program or file of the lab.
func lab(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv(labEnv)
	if dir == "" {
		t.Fatal("the lab is not prepared")
	}
	return filepath.Join(dir, name)
}

// examples is the folder of the repository's examples.
func examples(t *testing.T, elem ...string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(append([]string{"..", "..", "examples"}, elem...)...))
	if err != nil {
		t.Fatal(err)
	}
	return path
}
