package fleet

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/reason"
)

// pem is a public key that signed nothing.
const pem = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEj4o4iV5KZAHguLgB/0MM1RVogz2n
uxUVp8g1We0LcIGP5eE3kUYHvlW2VfDPZIiMk/nIdIQOKptpRGVtUWPdKw==
-----END PUBLIC KEY-----
`

func policy(change ...func(*v1alpha1.TrustPolicySpec)) v1alpha1.TrustPolicy {
	p := v1alpha1.TrustPolicy{ObjectMeta: metav1.ObjectMeta{Name: "base"}, Spec: v1alpha1.TrustPolicySpec{
		Repositories: []string{"registry.example.com/profiles/*"}, Namespaces: []string{"web"}, Threshold: 1,
		AllowedKinds: []string{"seccomp"}, Signers: []v1alpha1.Signer{{Name: "team", Key: &v1alpha1.KeySigner{PEM: pem}}},
	}}
	for _, c := range change {
		c(&p.Spec)
	}
	return p
}

func machine(change ...func(*corev1.Node)) *corev1.Node {
	m := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node-1", UID: "node-uid", Labels: map[string]string{"kubernetes.io/os": "linux", "pool": "a"}},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: "True"}}},
	}
	for _, c := range change {
		c(m)
	}
	return m
}

func agentPod(ready corev1.ConditionStatus, status ...corev1.ContainerStatus) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "confine-system", Name: "confine-agent-x"},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: status,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}},
	}
}

// user is a running pod that names the profile.
func user(change ...func(*corev1.Pod)) corev1.Pod {
	local := "confine/web/nginx/nginx.json"
	p := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "front"},
		Spec: corev1.PodSpec{
			NodeName:        "node-1",
			SecurityContext: &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &local}},
			Containers:      []corev1.Container{{Name: "main"}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{
			{Name: "main", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: ago(time.Minute)}}},
		}},
	}
	for _, c := range change {
		c(&p)
	}
	return p
}

func waitsFor(what, message string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Phase = corev1.PodPending
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: what, Message: message}}}}
	}
}

// good is a case in which all is well.
func good() Case {
	return Case{
		Key: key(), Now: now(), NodeName: "node-1", Asked: true,
		Profile:  profile(says(v1alpha1.ConditionProgressing, "False", "RolloutComplete", ""), says(v1alpha1.ConditionReady, "True", "AsWanted", "")),
		Policies: []v1alpha1.TrustPolicy{policy()},
		Node:     node("node-1"), Machine: machine(), Agents: []corev1.Pod{agentPod("True")}, Pods: []corev1.Pod{user()},
	}
}

type refusedError struct{ what string }

func (e refusedError) Error() string    { return e.what }
func (e refusedError) WhatToDo() string { return "ask for the role" }

// whyTable are cases by what is wrong, each with the link it hangs on.
func whyTable() map[string]struct {
	change func(*Case)
	mark   Mark
	at     string
	reason reason.Reason
	want   string // in the message or advice of that link, or of any where all is well
} {
	refused := func(r, message string) func(*Case) {
		return func(c *Case) { c.Node = node("node-1", failing(r, message)) }
	}
	rollout := func(status metav1.ConditionStatus, word string) func(*v1alpha1.SecurityProfile) {
		return says(v1alpha1.ConditionProgressing, status, word, "")
	}
	return map[string]struct {
		change func(*Case)
		mark   Mark
		at     string
		reason reason.Reason
		want   string
	}{
		"all is well":     {func(*Case) {}, OK, "", "", "front (running, on node-1) names confine/web/nginx/nginx.json"},
		"no such profile": {func(c *Case) { c.Profile, c.Node = nil, nil }, Stuck, LinkProfile, "", "confine status -A"},
		"being deleted":   {func(c *Case) { gone := ago(0); c.Profile.DeletionTimestamp = &gone }, Stuck, LinkProfile, "", "being deleted"},
		"just made": {func(c *Case) {
			c.Profile.Status, c.Profile.CreationTimestamp, c.Node = nil, ago(time.Second), nil
			c.Asked = false
			c.NodeName = ""
		}, Wait, LinkProfile, "", "component=controller"},
		"no controller":   {func(c *Case) { c.Profile.Status = nil }, Stuck, LinkProfile, "", "component=controller"},
		"selects no node": {func(c *Case) { c.Profile.Status.Nodes.Total = 0 }, Stuck, LinkSelection, "", "spec.nodeSelector"},
		"no such node":    {func(c *Case) { c.Machine, c.Node = nil, nil }, Stuck, LinkSelection, "", "kubectl get nodes"},
		"Windows":         {func(c *Case) { c.Machine.Labels["kubernetes.io/os"] = "windows" }, Stuck, LinkSelection, "", "windows"},
		"not selected": {func(c *Case) {
			c.Profile.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "b"}}
		}, Stuck, LinkSelection, "", "pool=b"},
		"selected": {func(c *Case) {
			c.Profile.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "a"}}
		}, OK, "", "", "is selected and Ready"},
		"node is down":     {func(c *Case) { c.Machine.Status.Conditions = nil }, Wait, LinkSelection, "", "not Ready"},
		"no policy at all": {func(c *Case) { c.Policies = nil }, Stuck, LinkTrust, reason.NoTrustPolicy, "none of 0 policies"},
		"other namespace": {func(c *Case) {
			c.Policies = []v1alpha1.TrustPolicy{policy(func(s *v1alpha1.TrustPolicySpec) { s.Namespaces = []string{"db"} })}
		}, Stuck, LinkTrust, reason.NoTrustPolicy, "none of 1 policies"},
		"bad policy": {func(c *Case) {
			c.Policies = append(c.Policies, policy(func(s *v1alpha1.TrustPolicySpec) { s.Signers[0].Key.PEM = "x" }))
			c.Policies[1].Name = "bad"
		}, Stuck, LinkTrust, reason.TrustPolicyInvalid, "bad"},
		"revoked": {func(c *Case) {
			c.Policies = []v1alpha1.TrustPolicy{policy(func(s *v1alpha1.TrustPolicySpec) { s.Revoked = &v1alpha1.Revoked{Digests: []string{digest("b")}} })}
		}, Stuck, LinkTrust, reason.Revoked, "revoked"},
		"paused": {func(c *Case) {
			c.Profile = profile(rollout("True", "Paused"))
			c.Node.Spec.Profiles[0].Artifact = artifact("a")
		}, Stuck, LinkRollout, "", "confine rollout resume nginx -n web"},
		"paused, this node has it": {func(c *Case) { c.Profile = profile(rollout("True", "Paused")) }, OK, "", "", "Paused"},
		"canary goes, not this node": {func(c *Case) {
			c.Profile = profile(rollout("True", "Canary"))
			c.Node.Spec.Profiles = nil
			c.Node.Status.Profiles = nil
		}, Wait, LinkRollout, "", "Canary"},
		"stopped by another node": {func(c *Case) {
			c.Profile = profile(rollout("False", "CanaryFailed"), stoppedBy("CanaryFailed", 2))
			c.Node.Spec.Profiles[0].Artifact = artifact("a")
		}, Stuck, LinkRollout, "", "confine rollout undo"},
		"the canary that failed": {func(c *Case) {
			c.Profile = profile(rollout("False", "CanaryFailed"), stoppedBy("CanaryFailed", 2))
			c.Node = node("node-1", failing("SignatureMissing", "no signature"))
		}, Stuck, LinkVerdict, reason.SignatureMissing, "cosign sign"},
		"no ProfileNode": {func(c *Case) { c.Node = nil }, Stuck, LinkAssignment, "", "component=controller"},
		"no agent":       {func(c *Case) { c.Agents = nil }, Stuck, LinkAgent, "", "DaemonSet confine-agent"},
		"agent crashes": {func(c *Case) {
			c.Agents = []corev1.Pod{agentPod("False", corev1.ContainerStatus{Name: "agent", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}})}
		}, Stuck, LinkAgent, "", "CrashLoopBackOff"},
		"agent never reported": {func(c *Case) { c.Node.Status = nil }, Wait, LinkAgent, "", "has not reported"},
		"node was made anew":   {func(c *Case) { c.Machine.UID = "other" }, Wait, LinkAgent, "", "earlier node"},
		"node as a whole": {func(c *Case) {
			c.Node.Status.Problems = []v1alpha1.NodeProblem{{Reason: "NoSpace", Message: "disk is full"}}
		}, Stuck, LinkAgent, reason.NoSpace, "free disk space"},
		"refused": {refused("ProfileForbidden", "mount is denied"), Stuck, LinkVerdict, reason.ProfileForbidden, "mount is denied"},
		"registry is down": {func(c *Case) {
			c.Node = node("node-1", failing("RegistryUnavailable", "dial"))
			c.Node.Status.Profiles[0].State = v1alpha1.StatePending
		}, Wait, LinkVerdict, reason.RegistryUnavailable, "tried again by itself"},
		"cannot log in": {func(c *Case) {
			c.Node = node("node-1", failing("Unauthorized", "401"))
			c.Node.Status.Profiles[0].State = v1alpha1.StatePending
		}, Stuck, LinkVerdict, reason.Unauthorized, "credentials"},
		"a reason of tomorrow": {refused("NotKnownHere", "something new"), Wait, LinkVerdict, "NotKnownHere", "something new"},
		"not reported yet": {func(c *Case) {
			c.Node.Status.Profiles[0].WantedDigest = digest("a")
			c.Node.Status.Profiles[0].InstalledDigest = digest("a")
		}, Wait, LinkVerdict, "", "has not reported on"},
		"pulling": {func(c *Case) {
			c.Node.Status.Profiles[0].State = v1alpha1.StatePending
			c.Node.Status.Profiles[0].InstalledDigest = ""
		}, Wait, LinkVerdict, "", "pulling"},
		"revoked and in force": {func(c *Case) {
			r := &c.Node.Status.Profiles[0]
			r.Degraded, r.Verified, r.Reason = true, "False", "Revoked"
		}, Stuck, LinkVerdict, reason.Revoked, "should not be"},
		"a kind is not there": {func(c *Case) {
			c.Node.Status.Kinds = append(c.Node.Status.Kinds, v1alpha1.NodeKind{Name: "selinux", Message: "containerd has SELinux off"})
			c.Node.Status.Profiles[0].Kinds = append(c.Node.Status.Profiles[0].Kinds, v1alpha1.KindReport{Name: "selinux", Reason: "KindUnsupported"})
		}, OK, "", "", "containerd has SELinux off"},
		"pod starts not": {func(c *Case) { c.Pods = []corev1.Pod{user(waitsFor("CreateContainerError", "no such file"))} }, Stuck, LinkPods, "", "no such file"},
		"pod starts not, refused": {func(c *Case) {
			c.Node = node("node-1", failing("SignatureMissing", "no signature"))
			c.Pods = []corev1.Pod{user(waitsFor("CreateContainerError", "no such file"))}
		}, Stuck, LinkVerdict, reason.SignatureMissing, "no signature"},
		"pod names another file": {func(c *Case) {
			other := "confine/web/nginx/other.json"
			c.Pods = []corev1.Pod{user(waitsFor("CreateContainerError", "no such file"))}
			c.Pods[0].Spec.SecurityContext.SeccompProfile.LocalhostProfile = &other
		}, Stuck, LinkPods, "", "other.json, which the artifact does not have"},
		"privileged": {func(c *Case) {
			yes := true
			c.Pods[0].Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: &yes}
		}, Stuck, LinkPods, "", "no seccomp filter"},
		"pod keeps the old filter": {func(c *Case) { c.Pods[0].Status.ContainerStatuses[0].State.Running.StartedAt = ago(time.Hour) }, OK, "", "", "keeps the seccomp filter it started with"},
		"no pod":                   {func(c *Case) { c.Pods = nil }, OK, "", "", "no pod in namespace web on node-1 names it"},
		"pod is done":              {func(c *Case) { c.Pods[0].Status.Phase = corev1.PodSucceeded }, OK, "", "", "no pod in namespace web"},
		"pod waits for a node":     {func(c *Case) { c.Pods[0].Spec.NodeName = "" }, Wait, LinkPods, "", "waits for a node"},
		"tenant, all is well": {func(c *Case) {
			c.PoliciesErr, c.NodeErr, c.MachineErr, c.AgentErr = refusedError{"you may not list trustpolicies"}, refusedError{"2"}, refusedError{"3"}, refusedError{"4"}
			c.Policies, c.Node, c.Machine, c.Agents = nil, nil, nil, nil
		}, OK, "", "", "you may not list trustpolicies"},
		"tenant, refused": {func(c *Case) {
			c.PoliciesErr, c.NodeErr, c.MachineErr, c.AgentErr = errors.New("1"), errors.New("2"), errors.New("3"), errors.New("4")
			c.Policies, c.Node, c.Machine, c.Agents = nil, nil, nil, nil
			c.Profile.Status.Failures = []v1alpha1.NodeFailure{{Node: "node-1", Reason: "SignatureMissing", Message: "no signature"}}
		}, Stuck, LinkVerdict, reason.SignatureMissing, "no signature"},
	}
}

func TestWhy(t *testing.T) {
	for name, tc := range whyTable() {
		t.Run(name, func(t *testing.T) {
			c := good()
			tc.change(&c)
			chain := Explain(c)
			if chain.Mark != tc.mark || chain.At != tc.at || chain.Reason != tc.reason {
				t.Errorf("%s at %q for %q, want %s at %q for %q", chain.Mark, chain.At, chain.Reason, tc.mark, tc.at, tc.reason)
			}
			text := chain.Message + "\n" + chain.Advice
			if tc.mark == OK {
				text = chainText(chain)
			} else if chain.Advice == "" && !strings.HasPrefix(string(tc.reason), "NotKnown") && tc.at != LinkPods {
				t.Error("nothing says what to do")
			}
			if !strings.Contains(text, tc.want) {
				t.Errorf("%q is not in:\n%s", tc.want, text)
			}
			if t.Failed() {
				t.Logf("all:\n%s", chainText(chain))
			}
		})
	}
}

func chainText(c Chain) string {
	var b strings.Builder
	for _, s := range c.Steps {
		fmt.Fprintf(&b, "%s %s: %s [%s]\n", s.Mark, s.Link, s.Message, s.Advice)
	}
	return b.String()
}

func TestWhyListsFewPods(t *testing.T) {
	c := good()
	for i := range 50 {
		c.Pods = append(c.Pods, user(func(p *corev1.Pod) { p.Name = fmt.Sprint("pod-", i) }))
	}
	c.Pods = append(c.Pods, user(waitsFor("CreateContainerError", "the last one")))
	chain := Explain(c)
	listed := 0
	for _, s := range chain.Steps {
		if s.Link == LinkPods {
			listed++
		}
	}
	if listed != maxPods+1 || chain.At != LinkPods || !strings.Contains(chain.Message, "the last one") {
		t.Errorf("%d pods are listed, stuck at %q: %s", listed, chain.At, chain.Message)
	}
	if text := chainText(chain); !strings.Contains(text, "and 42 more of the 52 pods") {
		t.Error(text)
	}
}

func TestWhyOfWhatIsGoneSaysWhatIsLeft(t *testing.T) {
	c := good()
	c.Profile = nil
	c.Node = node("node-1", func(n *v1alpha1.ProfileNode, r *v1alpha1.ProfileReport) {
		n.Spec.Profiles, r.State, r.RemoveAt = nil, v1alpha1.StateRemoving, ago(-time.Hour)
	})
	if text := chainText(Explain(c)); !strings.Contains(text, "node-1 still has sha256:bbbbbbbbbbbb in force, until 2026-11-23T13:00:00Z") {
		t.Error(text)
	}
}
