//go:build lsm_apparmor

package hostroot_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor/host"
	"github.com/confine-dev/confine/test/deploy/hostroot"
)

const (
	fileName  = "web.aa"
	reference = "confine.shop.web"
)

func kind() hostroot.Kind { return hostroot.AppArmor() }

func open(t *testing.T, root string) profile.Host {
	t.Helper()
	h, err := host.New(host.Options{Root: filepath.Join(t.TempDir(), "apparmor"), HostRoot: root})
	must(t, err)
	return h
}

func texts() []string {
	const strict = "abi <abi/3.0>,\n#include <tunables/global>\nprofile confine.shop.web flags=(attach_disconnected) {\n#include <abstractions/base>\nfile,\ndeny /srv/** w,\n}\n"
	return []string{strict, "profile confine.shop.web {\n  file,\n}\n"}
}

// running is a process under the profile.
func running(t *testing.T) (end func()) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `echo exec "$0" > /proc/self/attr/apparmor/exec && exec sh -c 'echo; read -r line'`, reference)
	return started(t, cmd)
}
