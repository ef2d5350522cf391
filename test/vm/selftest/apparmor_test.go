//go:build lsm_apparmor

package selftest_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestAppArmorEnforces(t *testing.T) {
	const text = "profile selftest { file, deny /srv/** rw, }\n"
	load := exec.Command("apparmor_parser", "-K", "-r")
	load.Stdin = strings.NewReader(text)
	if said, err := load.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if err := os.WriteFile("/srv/secret", []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	read := func(profile string) (string, error) {
		script := "cat /srv/secret"
		if profile != "" {
			// As runc does, the next program is put under the profile.
			script = "echo exec " + profile + " > /proc/self/attr/apparmor/exec && exec cat /srv/secret"
		}
		said, err := exec.Command("sh", "-c", script).CombinedOutput()
		return string(said), err
	}
	if said, err := read(""); err != nil || said != "secret" {
		t.Errorf("unconfined: %q, %v", said, err)
	}
	if said, err := read("selftest"); err == nil || !strings.Contains(said, "Permission denied") {
		t.Errorf("confined: %q, %v", said, err)
	}
}
