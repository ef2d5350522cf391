//go:build lsm_selinux

package hostroot_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/selinux/host"
	"github.com/confine-dev/confine/test/deploy/hostroot"
)

const (
	fileName  = "web.cil"
	reference = "confine_shop_web.process"
)

func kind() hostroot.Kind { return hostroot.SELinux() }

func open(t *testing.T, root string) profile.Host {
	t.Helper()
	h, err := host.New(host.Options{Root: filepath.Join(t.TempDir(), "selinux"), HostRoot: root})
	must(t, err)
	return h
}

func texts() []string {
	return []string{
		"(block confine_shop_web (blockinherit container))\n",
		"(block confine_shop_web (blockinherit container) (allow process self (tcp_socket (listen accept))))\n",
	}
}

// running is a process of the type.
func running(t *testing.T) (end func()) {
	t.Helper()
	return started(t, exec.Command("runcon", "system_u:system_r:"+reference+":s0", "/bin/busybox", "sh", "-c", "echo; read -r line"))
}
