//go:build vm

package e2e_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/confine-dev/confine/test/vm/image"
	"github.com/confine-dev/confine/test/vm/job"
	"github.com/confine-dev/confine/test/vm/machine"
)

// TestReboots plays the test behind the build tag reboot in two machines, one
// after the other: the second has nothing but the disk of the first.
func TestReboots(t *testing.T) {
	if err := machine.Possible(); err != nil {
		t.Fatal(err)
	}
	made := t.TempDir()
	packages, err := image.Packages(t.Context(), os.Stderr)
	check(t, err)
	first, err := image.BuildInit(t.Context(), made)
	check(t, err)
	check(t, image.BuildPrograms(t.Context(), made, []string{"confine-agent"}))
	for _, module := range image.All() {
		t.Run(string(module), func(t *testing.T) {
			t.Parallel()
			binary := filepath.Join(t.TempDir(), "test")
			build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", binary, "-tags", module.Tag()+",reboot", ".")
			build.Env = append(os.Environ(), "CGO_ENABLED=0")
			if said, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, said)
			}
			disk := t.TempDir()
			for _, boot := range []string{"first", "second"} {
				files := map[string]string{job.Programs + "/confine-agent": filepath.Join(made, "confine-agent")}
				if boot == "second" {
					files["/disk/disk.tar"] = filepath.Join(disk, "disk.tar")
				}
				var said bytes.Buffer
				status, err := machine.Run(t.Context(), machine.Options{
					Source: image.Source{Packages: packages, Init: first}, LSM: module, Output: &said, Files: files,
					Args: []string{binary, "-test.v", "-test.run=^TestReboot"}, Keep: map[string]string{"/disk": disk},
				})
				if err != nil || status != 0 || !bytes.Contains(said.Bytes(), []byte("--- PASS: TestReboot")) {
					t.Fatalf("the %s boot: status %d, %v\n%s", boot, status, err, said.Bytes())
				}
			}
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
