package fleet

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/profile/kinds"
)

// TestEveryKindHasAnEffect: only seccomp filters stay as they are.
func TestEveryKindHasAnEffect(t *testing.T) {
	for _, kind := range kinds.All(nil).Names() {
		if got := Effect(kind); strings.Contains(got, "at once") == (kind == "seccomp") || got == "" {
			t.Errorf("%s: %q", kind, got)
		}
	}
	if got := Effect("landlock"); got != "" {
		t.Errorf("of a kind that is not known it says %q", got)
	}
}

func references() []v1alpha1.PayloadReference {
	return []v1alpha1.PayloadReference{
		{Kind: "apparmor", Name: "confine.web.nginx"}, {Kind: "apparmor", Name: "confine.web.worker"},
		{Kind: "seccomp", Name: "confine/web/nginx/nginx.json"}, {Kind: "selinux", Name: "confine_web_nginx.process"},
	}
}

func TestKindsOf(t *testing.T) {
	if diff := cmp.Diff([]string{"apparmor", "seccomp", "selinux"}, KindsOf(references())); diff != "" {
		t.Error(diff)
	}
}

// TestWhatPrivilegedContainersLose: AppArmor holds for them, too.
func TestWhatPrivilegedContainersLose(t *testing.T) {
	yes := true
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		NodeName: "n1", Containers: []corev1.Container{{Name: "main", SecurityContext: &corev1.SecurityContext{Privileged: &yes}}},
	}}
	c := Case{NodeName: "n1", Profile: &v1alpha1.SecurityProfile{Status: &v1alpha1.SecurityProfileStatus{References: references()}}}
	known := c.references(Share{})
	for name, tc := range map[string]struct {
		names []string
		lost  string
	}{
		"a filter":              {[]string{"confine/web/nginx/nginx.json"}, "no seccomp filter,"},
		"a filter and more":     {[]string{"confine.web.nginx", "confine/web/nginx/nginx.json"}, "no seccomp filter,"},
		"AppArmor":              {[]string{"confine.web.nginx"}, ""},
		"SELinux":               {[]string{"confine_web_nginx.process"}, "gives it no SELinux label,"},
		"all":                   {known, "no seccomp filter and no SELinux label,"},
		"one that is not there": {[]string{"confine/web/nginx/other.json"}, "no seccomp filter,"},
	} {
		told := ""
		for _, s := range c.pod(pod, tc.names, known, Share{}) {
			if strings.Contains(s.Message, "is privileged") {
				told = s.Message
			}
		}
		if (told == "") != (tc.lost == "") || !strings.Contains(told, strings.TrimPrefix(tc.lost, "gives it ")) {
			t.Errorf("%s: told %q, want %q", name, told, tc.lost)
		}
	}
}
