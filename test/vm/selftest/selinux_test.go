//go:build lsm_selinux

package selftest_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func TestSELinuxEnforces(t *testing.T) {
	if on, err := os.ReadFile("/sys/fs/selinux/enforce"); err != nil || string(on) != "1" {
		t.Fatalf("enforce: %q, %v", on, err)
	}
	const module = "(block selftest (blockinherit container))"
	if err := os.WriteFile("/tmp/selftest.cil", []byte(module), 0o644); err != nil {
		t.Fatal(err)
	}
	if said, err := exec.Command("semodule", "-i", "/tmp/selftest.cil").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	for file, kind := range map[string]string{"/srv/secret": "secret_t", "/srv/data": "container_file_t"} {
		if err := os.WriteFile(file, []byte(kind), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Setxattr(file, "security.selinux", []byte("system_u:object_r:"+kind+":s0\x00"), 0); err != nil {
			t.Fatal(err)
		}
	}
	read := func(file string) (string, error) {
		said, err := exec.Command("runcon", "system_u:system_r:selftest.process:s0", "/bin/busybox", "cat", file).CombinedOutput()
		return string(said), err
	}
	if said, err := read("/srv/data"); err != nil || said != "container_file_t" {
		t.Errorf("a file of containers: %q, %v", said, err)
	}
	if said, err := read("/srv/secret"); err == nil || !strings.Contains(said, "Permission denied") {
		t.Errorf("a file of others: %q, %v", said, err)
	}
}
