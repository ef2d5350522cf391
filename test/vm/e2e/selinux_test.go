//go:build lsm_selinux

package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/reason"
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
		more: []scenario{{"a runtime that gives containers no labels", runtimeWithoutLabels}},
	}
}

// runtimeWithoutLabels: with SELinux off in containerd, which is its default,
// no container would be under the profile.
func runtimeWithoutLabels(n *node) {
	const config = "/etc/containerd/config.toml"
	configure := func(enable string) {
		n.t.Helper()
		must(n.t, os.WriteFile(config, []byte("version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n"+enable), 0o644))
	}
	must(n.t, os.MkdirAll(filepath.Dir(config), 0o755))
	n.t.Cleanup(func() { must(n.t, os.RemoveAll(filepath.Dir(config))) })
	configure("")
	n.start()
	pinned := n.push(first(), n.key)
	n.want(pinned, "")
	n.says("it is not supported", func(p status.Profile) string {
		k := kindOf(p, "selinux")
		if p.WantedDigest != pinned.Digest || k.Reason != reason.KindUnsupported || !strings.Contains(k.Message, "enable_selinux") || p.Condition(status.Ready).Status != status.True {
			return "it does not say so"
		}
		return ""
	})
	if n.kernel.loaded(n.t) {
		n.t.Error("the kernel has the profile")
	}
	configure("enable_selinux = true\n")
	n.installed(pinned.Digest)
	newProcess(n.t, n.kernel).reads("once the runtime gives labels", underFirst())
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
