package deploy

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/confine-dev/confine/test/deploy/hostroot"
)

// What the chart's agents run as. The numbers are those of values.yaml.
const (
	agentUser = 65527
	fetchUser = 65526
)

// rights is all that a container may do beyond what any other may.
type rights struct {
	User         int64
	Group        int64
	NonRoot      bool
	Capabilities []string
	// AppArmor is the type of its AppArmor profile; empty means the runtime's.
	AppArmor string
	// Mounts by path: "ro" or "rw", and what.
	Mounts map[string]string
}

// privileges are those of a pod of one combination of kinds.
type privileges struct {
	SELinux    string // type of all containers
	Containers map[string]rights
}

// kindsOn is one combination of kinds beside seccomp.
type kindsOn struct{ apparmor, selinux bool }

func allKinds() []kindsOn {
	return []kindsOn{{}, {apparmor: true}, {selinux: true}, {apparmor: true, selinux: true}}
}

func (k kindsOn) name() string {
	name := "seccomp"
	if k.apparmor {
		name += ",apparmor"
	}
	if k.selinux {
		name += ",selinux"
	}
	return name
}

func (k kindsOn) asRoot() bool { return k.apparmor || k.selinux }

func (k kindsOn) args() []string {
	return []string{"--set", fmt.Sprintf("agent.kinds.apparmor=%t,agent.kinds.selinux=%t", k.apparmor, k.selinux)}
}

// want is what a pod of these kinds may do, with credentials and a certificate
// authority in the release's namespace.
func (k kindsOn) want() privileges {
	user, first := int64(agentUser), []string{"CHOWN"}
	mounts := map[string]string{
		"/host/kubelet/seccomp/confine": "rw host /var/lib/kubelet/seccomp/confine",
		"/host/state":                   "rw host /var/lib/confine",
	}
	prepare := rights{Capabilities: first, Mounts: maps.Clone(mounts)}
	mounts["/run/confine"] = "rw socket"
	mounts["/var/run/secrets/kubernetes.io/serviceaccount"] = "ro token"
	agent := rights{User: user, Group: user, NonRoot: true, Mounts: mounts}
	if k.asRoot() {
		agent.User, agent.Group, agent.NonRoot = 0, 0, false
	}
	for _, needs := range k.needs() {
		for _, c := range needs.Capabilities {
			agent.Capabilities = append(agent.Capabilities, strings.TrimPrefix(c.String(), "CAP_"))
		}
		for _, m := range needs.Mounts {
			mounts[hostroot.At+m.Path] = mounted(m)
		}
	}
	slices.Sort(agent.Capabilities)
	if k.apparmor {
		agent.AppArmor = "Unconfined"
	}
	p := privileges{Containers: map[string]rights{
		"prepare": prepare, "agent": agent,
		"fetch": {User: fetchUser, Group: fetchUser, NonRoot: true, Mounts: map[string]string{
			"/run/confine": "ro socket", "/dev/shm": "ro nothing", "/dev/mqueue": "ro nothing",
			"/etc/confine/credentials": "ro credentials", "/etc/confine/ca": "ro ca",
		}},
	}}
	if k.selinux {
		p.SELinux = "spc_t"
	}
	return p
}

// needs are what the tests in virtual machines found to be enough.
func (k kindsOn) needs() []hostroot.Kind {
	var all []hostroot.Kind
	if k.asRoot() {
		all = append(all, hostroot.Common())
	}
	if k.apparmor {
		all = append(all, hostroot.AppArmor())
	}
	if k.selinux {
		all = append(all, hostroot.SELinux())
	}
	return all
}

func mounted(m hostroot.Mount) string {
	switch {
	case m.Empty && m.ReadOnly:
		return "ro nothing"
	case m.Empty:
		return "rw scratch"
	case m.ReadOnly:
		return "ro host " + m.Path
	}
	return "rw host " + m.Path
}

// TestPrivileges holds what each container of the agent's pod may do, from what
// the chart renders, for every combination of kinds.
func TestPrivileges(t *testing.T) {
	for _, k := range allKinds() {
		t.Run(k.name(), func(t *testing.T) {
			for _, name := range []string{"confine-agent", "confine-agent-mnt-disk-kubelet"} {
				ds := daemonSets(t, render(t, append(k.args(), "--set", "registry.credentials.secretName=registries",
					"--set", "registry.ca.configMapName=ca", "--set", "kubelet.extraRoots={/mnt/disk/kubelet}")...))[name]
				want := k.want()
				if name != "confine-agent" {
					for _, c := range []string{"prepare", "agent"} {
						want.Containers[c].Mounts["/host/kubelet/seccomp/confine"] = "rw host /mnt/disk/kubelet/seccomp/confine"
					}
				}
				if diff := cmp.Diff(want, privilegesOf(t, ds)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
				holdKinds(t, ds, k)
			}
		})
	}
}

// holdKinds holds that the agent is told of the kinds, and of nothing that is
// another container's.
func holdKinds(t *testing.T, ds appsv1.DaemonSet, k kindsOn) {
	t.Helper()
	for _, c := range ds.Spec.Template.Spec.Containers {
		for flag, want := range map[string]bool{
			"--kinds=" + k.name():                                  c.Name == "agent",
			"--host-root=" + hostroot.At:                           c.Name == "agent" && k.asRoot(),
			"--fetch-socket=/run/confine/fetch/agent.sock":         c.Name == "agent",
			fmt.Sprintf("--fetch-uid=%d", fetchUser):               c.Name == "agent",
			"--socket=/run/confine/fetch/agent.sock":               c.Name == "fetch",
			"--docker-config=/etc/confine/credentials/config.json": c.Name == "fetch",
			"--ca-file=/etc/confine/ca/ca.crt":                     c.Name == "fetch",
		} {
			if got := slices.Contains(c.Args, flag); got != want {
				t.Errorf("has %s the argument %s: %v, want %v", c.Name, flag, got, want)
			}
		}
	}
}

// privilegesOf reads them out of a DaemonSet, and fails for what no container of
// Confine ever has.
func privilegesOf(t *testing.T, ds appsv1.DaemonSet) privileges {
	t.Helper()
	pod := ds.Spec.Template.Spec
	if pod.HostPID || pod.HostIPC || pod.ShareProcessNamespace != nil || !pod.HostNetwork {
		t.Errorf("host namespaces: %+v", pod)
	}
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		t.Error("every container gets the token")
	}
	found := privileges{Containers: map[string]rights{}}
	if o := pod.SecurityContext.SELinuxOptions; o != nil {
		found.SELinux = o.Type
	}
	if len(pod.SecurityContext.SupplementalGroups) != 0 || len(pod.SecurityContext.Sysctls) != 0 || *pod.SecurityContext.FSGroup != fetchUser {
		t.Errorf("the pod: %+v", pod.SecurityContext)
	}
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		holdConfined(t, pod, c)
		found.Containers[c.Name] = mayDo(t, pod, c)
	}
	return found
}

// holdConfined holds what is true of every container.
func holdConfined(t *testing.T, pod corev1.PodSpec, c corev1.Container) {
	t.Helper()
	s := c.SecurityContext
	if s.Privileged != nil && *s.Privileged || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem {
		t.Errorf("%s: %+v", c.Name, s)
	}
	if s.ProcMount != nil || len(c.VolumeDevices) != 0 || s.SELinuxOptions != nil || len(c.EnvFrom) != 0 {
		t.Errorf("%s has more than it needs: %+v", c.Name, c)
	}
	if s.Capabilities == nil || len(s.Capabilities.Drop) != 1 || s.Capabilities.Drop[0] != "ALL" {
		t.Errorf("%s: capabilities %+v", c.Name, s.Capabilities)
	}
	if s.SeccompProfile != nil || pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%s: seccomp %+v", c.Name, s.SeccompProfile)
	}
	for _, e := range c.Env {
		if e.ValueFrom != nil && (e.ValueFrom.SecretKeyRef != nil || e.ValueFrom.ConfigMapKeyRef != nil) {
			t.Errorf("%s: %s comes from an object", c.Name, e.Name)
		}
	}
	if c.Resources.Limits.Memory().IsZero() {
		t.Errorf("%s may use all memory", c.Name)
	}
}

func mayDo(t *testing.T, pod corev1.PodSpec, c corev1.Container) rights {
	t.Helper()
	s := c.SecurityContext
	m := rights{User: *pod.SecurityContext.RunAsUser, Group: *pod.SecurityContext.RunAsGroup, Mounts: map[string]string{}}
	if s.RunAsUser != nil {
		m.User = *s.RunAsUser
	}
	if s.RunAsGroup != nil {
		m.Group = *s.RunAsGroup
	}
	m.NonRoot = s.RunAsNonRoot != nil && *s.RunAsNonRoot
	for _, added := range s.Capabilities.Add {
		m.Capabilities = append(m.Capabilities, string(added))
	}
	slices.Sort(m.Capabilities)
	if s.AppArmorProfile != nil {
		m.AppArmor = string(s.AppArmorProfile.Type)
	}
	for _, at := range c.VolumeMounts {
		if at.MountPropagation != nil || at.SubPath != "" || at.SubPathExpr != "" {
			t.Errorf("%s: %+v", c.Name, at)
		}
		mode := "rw "
		if at.ReadOnly {
			mode = "ro "
		}
		m.Mounts[at.MountPath] = mode + volume(t, pod, at.Name)
	}
	return m
}

// volume says what is mounted.
func volume(t *testing.T, pod corev1.PodSpec, name string) string {
	t.Helper()
	i := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == name })
	if i < 0 {
		t.Fatalf("there is no volume %s", name)
	}
	switch v := pod.Volumes[i]; {
	case v.HostPath != nil:
		return "host " + v.HostPath.Path
	case v.Secret != nil:
		if v.Secret.SecretName != "registries" || *v.Secret.DefaultMode != 0o440 || len(v.Secret.Items) != 1 {
			t.Errorf("credentials: %+v", v.Secret)
		}
		return "credentials"
	case v.ConfigMap != nil:
		if v.ConfigMap.Name != "ca" || len(v.ConfigMap.Items) != 1 {
			t.Errorf("certificate authorities: %+v", v.ConfigMap)
		}
		return "ca"
	case v.Projected != nil:
		if s := v.Projected.Sources; len(s) != 3 || s[0].ServiceAccountToken == nil || s[0].ServiceAccountToken.Audience != "" {
			t.Errorf("token: %+v", v.Projected)
		}
		return "token"
	case v.EmptyDir != nil:
		if v.EmptyDir.SizeLimit.IsZero() {
			t.Errorf("%s has no bound", name)
		}
		return map[string]string{"socket": "socket", "nothing": "nothing", "host-run": "scratch"}[name]
	}
	t.Errorf("volume %s is of an unknown kind", name)
	return ""
}

// TestMemoryFollowsTheKinds: what compiles SELinux policy counts in the agent's
// container, and what somebody sets is what they get.
func TestMemoryFollowsTheKinds(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"seccomp":  {nil, "512Mi"},
		"apparmor": {[]string{"--set", "agent.kinds.apparmor=true"}, "512Mi"},
		"selinux":  {[]string{"--set", "agent.kinds.selinux=true"}, "1Gi"},
		"set":      {[]string{"--set", "agent.kinds.selinux=true,agent.resources.limits.memory=2Gi"}, "2Gi"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := daemonSets(t, render(t, c.args...))["confine-agent"].Spec.Template.Spec
			for _, container := range append(pod.InitContainers, pod.Containers...) {
				if got := container.Resources.Limits.Memory().String(); container.Name != "fetch" && got != c.want {
					t.Errorf("%s may use %s, want %s", container.Name, got, c.want)
				}
				if container.Resources.Requests.Memory().IsZero() {
					t.Errorf("%s asks for no memory", container.Name)
				}
			}
		})
	}
}

// TestNothingIsWrittenToNothing: the folder that covers others is writable to no
// container, so it stays empty.
func TestNothingIsWrittenToNothing(t *testing.T) {
	for _, k := range allKinds() {
		for name, c := range privilegesOf(t, daemonSets(t, render(t, k.args()...))["confine-agent"]).Containers {
			for at, what := range c.Mounts {
				if what == "rw nothing" {
					t.Errorf("%s: %s can write %s", k.name(), name, at)
				}
			}
		}
	}
}

// TestNothingRunsAsRootForSeccomp reads all that the chart installs: with
// seccomp alone only the init container is root.
func TestNothingRunsAsRootForSeccomp(t *testing.T) {
	for file, rendered := range map[string]string{"defaults": render(t), "manifests": readManifests(t)} {
		if got := strings.Count(rendered, "runAsUser: 0\n"); got != 1 {
			t.Errorf("%s: %d containers are root, want the init container alone", file, got)
		}
		if got := strings.Count(rendered, "runAsNonRoot: true\n"); got != 3 {
			t.Errorf("%s: %d containers may not be root, want agent, fetch and controller", file, got)
		}
		for _, never := range []string{"privileged: true", "hostPID", "hostIPC", "SYS_ADMIN", "SYS_PTRACE", "DAC_", "MAC_ADMIN"} {
			if strings.Contains(rendered, never+"\n") || strings.Contains(rendered, never+":") || strings.Contains(rendered, "["+never) {
				t.Errorf("%s: there is %s", file, never)
			}
		}
	}
}

// TestChartRefuses tries what a schema cannot tell.
func TestChartRefuses(t *testing.T) {
	for name, c := range map[string]struct{ set, says string }{
		"who speaks to registries owns the profiles": {"agent.fetch.uid=65527", "agent.fetch.uid"},
		"values of an older chart":                   {"agent.fetch=null", "--reset-then-reuse-values"},
		"values of an older chart, kinds":            {"agent.kinds=null", "--reset-then-reuse-values"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := run(t.TempDir(), server.helm, "template", "confine", chart(), "--set", c.set)
			if err == nil || !strings.Contains(out, c.says) {
				t.Errorf("accepted, or refused for another reason: %v\n%s", err, out)
			}
		})
	}
}

// TestEveryKindIsAccepted: the API server takes what each combination makes.
func TestEveryKindIsAccepted(t *testing.T) {
	dir := t.TempDir() // of a subtest, its path would hold commas, which kubectl splits at
	for i, k := range allKinds() {
		t.Run(k.name(), func(t *testing.T) {
			file := filepath.Join(dir, fmt.Sprintf("%d.yaml", i))
			write(t, file, render(t, append(everything(), k.args()...)...))
			must(t)(server.runKubectl("apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", file))
		})
	}
}
