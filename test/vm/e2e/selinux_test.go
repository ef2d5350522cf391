//go:build lsm_selinux

package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSELinux(t *testing.T) { runScenarios(t, seLinux()) }

func seLinux() kernel {
	const block = "confine_shop_web"
	const label = "system_u:system_r:" + block + ".process:s0:c1,c2"
	return kernel{
		kind: "selinux", other: "apparmor",
		reference: block + ".process", enter: "exec " + label, label: label,
		arrange: labelFiles,
		loaded: func(*testing.T) bool {
			// The role object_r may have every type that there is.
			return os.WriteFile("/sys/fs/selinux/context", []byte("system_u:object_r:"+block+".process:s0"), 0) == nil
		},
		forget: func(t *testing.T) {
			t.Helper()
			byHand(t, "", "semodule", "--priority=350", "--remove="+moduleName(t))
		},
		loosen: func(t *testing.T) {
			t.Helper()
			file := filepath.Join(t.TempDir(), moduleName(t)+".cil")
			must(t, os.WriteFile(file, []byte("(block "+block+" (blockinherit container) (blockinherit config_container) (allow process secret_t (file (all))))"), 0o600))
			byHand(t, "", "semodule", "--priority=350", "--install="+file)
		},
	}
}

// moduleName is what Confine calls its only module here.
func moduleName(t *testing.T) string {
	t.Helper()
	for line := range strings.Lines(byHand(t, "", "semodule", "--list-modules=full")) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "350" {
			return fields[1]
		}
	}
	t.Fatal("the policy store has no module of Confine's")
	return ""
}

func labelFiles(t *testing.T) {
	t.Helper()
	writeFiles(t)
	for file, kind := range map[string]string{data: "container_file_t", settings: "etc_t", secret: "secret_t"} {
		must(t, unix.Setxattr(file, "security.selinux", []byte("system_u:object_r:"+kind+":s0\x00"), 0))
	}
}
