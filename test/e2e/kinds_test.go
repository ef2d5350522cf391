//go:build e2e

package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/reason"
	"github.com/confine-dev/confine/test/e2e/lab"
	"github.com/confine-dev/confine/test/kube/cluster"
)

// oneArtifactWithThreeKinds installs what of an artifact a node can have. The
// kernel of the machine that these tests run on has neither AppArmor nor SELinux.
func oneArtifactWithThreeKinds(s *scene) {
	s.noKernelHasThem()
	s.trust("seccomp", "apparmor", "selinux")
	artifact := s.pushThreeKinds("web", denyMkdir())
	s.want("web", artifact, nil)
	status := s.ready("web", artifact, nodes)
	want := []v1alpha1.PayloadReference{{Kind: "seccomp", Name: s.reference("web")}}
	if diff := cmp.Diff(want, status.References); diff != "" {
		s.t.Errorf("references (-want +got):\n%s", diff)
	}
	s.holdReports("web", artifact, "installs no")
	s.run(1, podName(1), "web")
	s.sees(podName(1), mkdirDenied)

	s.must(s.Client.Create(s.ctx(), &v1alpha1.SecurityProfile{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "strict"},
		Spec:       v1alpha1.SecurityProfileSpec{Artifact: artifact, Rollout: allAtOnce(), Kinds: v1alpha1.KindsRequired},
	}))
	refused := s.until("all nodes to refuse it", "strict", func(status *v1alpha1.SecurityProfileStatus) error {
		if status.Nodes.Failed != nodes || len(status.Failures) == 0 {
			return fmt.Errorf("nodes %+v, failures %+v", status.Nodes, status.Failures)
		}
		return nil
	})
	if f := refused.Failures[0]; f.Reason != string(reason.KindUnsupported) || !strings.Contains(f.Message, "apparmor") {
		s.t.Errorf("failure %+v, want %s of apparmor", f, reason.KindUnsupported)
	}
	for n := 1; n <= nodes; n++ {
		if err := s.isGone(n, "strict"); err != nil {
			s.t.Errorf("refused, and a part of it is there: %v", err)
		}
	}
}

// kindsSwitchedOnAndOff gives the agents what AppArmor and SELinux take, on nodes
// that have neither: they start as root with few capabilities, say that the
// kernel lacks it, and go on installing seccomp profiles. Switched off again,
// they go on as an ordinary user with what they did as root.
func kindsSwitchedOnAndOff(s *scene) {
	s.noKernelHasThem()
	s.trust("seccomp", "apparmor", "selinux")
	artifacts := []string{s.pushThreeKinds("web", denyMkdir()), s.pushThreeKinds("web", denyChmod())}
	s.want("web", artifacts[0], allAtOnce())
	s.ready("web", artifacts[0], nodes)
	s.run(1, podName(1), "web")
	s.sees(podName(1), mkdirDenied)

	s.t.Cleanup(func() { s.report(s.Configure(s.lasting(), switchedTo(false)...)) })
	s.must(s.Configure(s.ctx(), switchedTo(true)...))
	for n := 1; n <= nodes; n++ {
		s.holdAgent(n, 0, kindsCapabilities)
		s.holdFetch(n)
		s.holdOwner(n, 0)
		s.hasFile(n, "web")
	}
	s.sees(podName(1), mkdirDenied)
	s.change("web", func(spec *v1alpha1.SecurityProfileSpec) { spec.Artifact = artifacts[1] })
	s.ready("web", artifacts[1], nodes)
	s.holdReports("web", artifacts[1], "kernel")
	s.run(2, podName(2), "web")
	s.sees(podName(2), chmodDenied)

	s.must(s.Configure(s.ctx(), switchedTo(false)...))
	for n := 1; n <= nodes; n++ {
		s.holdAgent(n, agentUser, 0)
		s.holdOwner(n, agentUser)
		s.hasFile(n, "web")
	}
	s.change("web", func(spec *v1alpha1.SecurityProfileSpec) { spec.Artifact = artifacts[0] })
	s.ready("web", artifacts[0], nodes)
	s.run(3, podName(3), "web")
	s.sees(podName(3), mkdirDenied)
}

func switchedTo(on bool) []string {
	return []string{fmt.Sprintf("agent.kinds.apparmor=%t", on), fmt.Sprintf("agent.kinds.selinux=%t", on)}
}

// noKernelHasThem fails on a machine for which these scenarios are not written.
func (s *scene) noKernelHasThem() {
	s.t.Helper()
	for _, folder := range []string{"/sys/kernel/security/apparmor", "/sys/fs/selinux"} {
		if _, err := os.Stat(folder); err == nil {
			s.t.Fatalf("%s is there: test/vm is for kernels that have AppArmor or SELinux", folder)
		}
	}
}

// pushThreeKinds pushes an artifact with a profile of each kind, called as the
// namespace's own.
func (s *scene) pushThreeKinds(repository string, denied []string) string {
	s.t.Helper()
	seccomp, err := s.Without(denied)
	s.must(err)
	dir := s.t.TempDir()
	var files []string
	for _, f := range []struct{ name, text string }{
		{lab.ProfileFile, string(seccomp)},
		{"web.aa", "profile confine." + s.namespace + ".web flags=(attach_disconnected) {\n  /etc/** r,\n}\n"},
		{"web.cil", "(block confine_" + strings.ReplaceAll(s.namespace, "-", "__") + "_web\n  (blockinherit container)\n)\n"},
	} {
		file := filepath.Join(dir, f.name)
		s.must(os.WriteFile(file, []byte(f.text), 0o600))
		files = append(files, file)
	}
	reference, err := s.PushFiles(s.ctx(), s.Repository(s.namespace+"-"+repository)+":latest", lab.Team, files...)
	s.must(err)
	return reference
}

// holdReports holds that every node installed the seccomp part and says of the
// others that and why it does not.
func (s *scene) holdReports(profile, artifact, why string) {
	s.t.Helper()
	unsupported := string(reason.KindUnsupported)
	want := []v1alpha1.KindReport{
		{Name: "apparmor", Reason: unsupported}, {Name: "seccomp", References: []string{s.reference(profile)}}, {Name: "selinux", Reason: unsupported},
	}
	for n := 1; n <= nodes; n++ {
		s.eventually("the report of "+cluster.NodeName(n), func() error {
			var node v1alpha1.ProfileNode
			if err := s.Client.Get(s.ctx(), client.ObjectKey{Name: cluster.NodeName(n)}, &node); err != nil {
				return err
			}
			if err := saysWhy(node.Status.Kinds, why); err != nil {
				return err
			}
			i := slices.IndexFunc(node.Status.Profiles, func(p v1alpha1.ProfileReport) bool { return p.Namespace == s.namespace && p.Name == profile })
			if i < 0 || node.Status.Profiles[i].InstalledDigest != digestOf(artifact) {
				return fmt.Errorf("it reports %+v", node.Status.Profiles)
			}
			if diff := cmp.Diff(want, node.Status.Profiles[i].Kinds); diff != "" {
				return fmt.Errorf("kinds (-want +got):\n%s", diff)
			}
			return nil
		})
	}
}

// saysWhy says what is wrong with what a node says of its kinds.
func saysWhy(kinds []v1alpha1.NodeKind, why string) error {
	seen := map[string]bool{}
	for _, k := range kinds {
		seen[k.Name] = true
		if k.Supported != (k.Name == "seccomp") || !k.Supported && !strings.Contains(k.Message, why) {
			return fmt.Errorf("it says of %s: %t, %q; want %q", k.Name, k.Supported, k.Message, why)
		}
	}
	if !seen["seccomp"] || len(seen) != 1 && len(seen) != 3 {
		return fmt.Errorf("it says nothing of some kinds: %+v", kinds)
	}
	return nil
}

// holdOwner holds who owns what is on a node's disk.
func (s *scene) holdOwner(n, user int) {
	s.t.Helper()
	for _, file := range []string{s.profilesRoot(n), filepath.Join(s.profilesRoot(n), s.namespace), filepath.Join(s.Cluster.NodeDisk(n), "confine")} {
		info, err := os.Lstat(file)
		s.must(err)
		if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != user {
			s.t.Errorf("%s belongs to %d, want %d", file, stat.Uid, user)
		}
	}
}
