//go:build lsm_apparmor || lsm_selinux

package selftest_test

import (
	"net"
	"os"
	"strings"
	"testing"

	"github.com/confine-dev/confine/test/vm/selftest"
)

func TestFilesOfThePackage(t *testing.T) {
	got, err := os.ReadFile("testdata/greeting.txt")
	if err != nil || string(got) != "hello from testdata\n" {
		t.Errorf("testdata: %q, %v", got, err)
	}
	if got := selftest.Covered(true); got != "covered" {
		t.Error(got)
	}
	if err := os.WriteFile(t.TempDir()+"/x", nil, 0o600); err != nil {
		t.Error(err)
	}
}

func TestLoopback(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestMachineIsNotTheHost(t *testing.T) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil || !strings.Contains(string(line), "console=ttyS0") {
		t.Errorf("booted with %q, %v", line, err)
	}
	if os.Getpid() == 1 || os.Getppid() != 1 {
		t.Errorf("pid %d, child of %d", os.Getpid(), os.Getppid())
	}
}
