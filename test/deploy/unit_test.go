package deploy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/test/deploy/hostroot"
)

// settings are what files of systemd say, all assignments of each name in order.
func settings(t *testing.T, files ...string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for _, file := range files {
		data, err := os.ReadFile(filepath.Join("..", "..", "deploy", "systemd", file))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSpace(line)
			name, value, ok := strings.Cut(line, "=")
			switch {
			case line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "["):
			case !ok || strings.HasSuffix(line, `\`):
				t.Fatalf("%s: %q is no assignment", file, line)
			default:
				found[name] = append(found[name], value)
			}
		}
	}
	return found
}

// TestUnit holds what the service may do with each drop-in: the capabilities of
// the fetch child's user, and what the chart gives for the kind. It needs no
// CAP_SYS_CHROOT, since the host's root is its own.
func TestUnit(t *testing.T) {
	for name, c := range map[string]struct {
		files []string
		kind  hostroot.Kind
		kinds string
	}{
		"seccomp":  {[]string{"confine-agent.service"}, hostroot.Kind{}, ""},
		"apparmor": {[]string{"confine-agent.service", "apparmor.conf"}, hostroot.AppArmor(), "seccomp,apparmor"},
		"selinux":  {[]string{"confine-agent.service", "selinux.conf"}, hostroot.SELinux(), "seccomp,selinux"},
	} {
		t.Run(name, func(t *testing.T) {
			got := settings(t, c.files...)
			want := []string{"CAP_KILL", "CAP_SETGID", "CAP_SETUID"}
			for _, capability := range c.kind.Capabilities {
				want = append(want, capability.String())
			}
			slices.Sort(want)
			capabilities := strings.Fields(strings.Join(got["CapabilityBoundingSet"], " "))
			slices.Sort(capabilities)
			if diff := cmp.Diff(want, capabilities); diff != "" {
				t.Errorf("capabilities (-want +got):\n%s", diff)
			}
			if got["NoNewPrivileges"][0] != "yes" || got["ProtectSystem"][0] != "strict" || !slices.Equal(got["AmbientCapabilities"], []string{""}) {
				t.Errorf("not confined: %v", got)
			}
			if !slices.Equal(got["OOMPolicy"], []string{"continue"}) {
				t.Errorf("a compiler that takes too much memory ends the agent: OOMPolicy %q", got["OOMPolicy"])
			}
			args := strings.Join(got["Environment"], " ")
			if c.kinds == "" && args != "" || !strings.Contains(args, c.kinds) || !strings.HasSuffix(got["ExecStart"][0], " $CONFINE_AGENT_ARGS") {
				t.Errorf("arguments %q in %q, want kinds %q", args, got["ExecStart"], c.kinds)
			}
			// Whatever it is told to filter, it must be able to filter itself.
			filters := strings.Join(got["SystemCallFilter"][2:], " ")
			for _, call := range []string{"@setuid", "capset", "seccomp", "landlock_restrict_self"} {
				if !strings.Contains(filters, call) {
					t.Errorf("%s is not allowed: %s", call, filters)
				}
			}
			holdWritable(t, c.kind, strings.Join(got["ReadWritePaths"], " "))
		})
	}
}

// holdWritable holds that what the kind writes on a host can be written.
func holdWritable(t *testing.T, kind hostroot.Kind, paths string) {
	t.Helper()
	for _, m := range kind.Mounts {
		if !m.ReadOnly && !strings.Contains(paths, m.Path) {
			t.Errorf("%s cannot be written: %s", m.Path, paths)
		}
	}
}
