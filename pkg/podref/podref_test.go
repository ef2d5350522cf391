package podref_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/confine-dev/confine/pkg/podref"
)

func TestReferences(t *testing.T) {
	seccomp := func(name string) *corev1.SeccompProfile {
		return &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &name}
	}
	appArmor := func(name string) *corev1.AppArmorProfile {
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: &name}
	}
	context := func(name string) *corev1.SecurityContext {
		return &corev1.SecurityContext{SeccompProfile: seccomp(name)}
	}
	for name, test := range map[string]struct {
		spec        corev1.PodSpec
		annotations map[string]string
		want        []string
	}{
		"nothing": {},
		"of the pod": {
			spec: corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{
				SeccompProfile:  seccomp("confine/web/nginx/nginx.json"),
				AppArmorProfile: appArmor("confine.web.nginx"),
				SELinuxOptions:  &corev1.SELinuxOptions{Type: "confine_web_nginx.process"},
			}},
			want: []string{"confine.web.nginx", "confine/web/nginx/nginx.json", "confine_web_nginx.process"},
		},
		"of each sort of container": {
			spec: corev1.PodSpec{
				InitContainers: []corev1.Container{{SecurityContext: context("confine/web/init/a.json")}},
				Containers: []corev1.Container{
					{SecurityContext: context("confine/web/main/a.json")},
					{},
					{SecurityContext: &corev1.SecurityContext{AppArmorProfile: appArmor("confine.web.x"), SELinuxOptions: &corev1.SELinuxOptions{Type: "t"}}},
				},
				EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{SecurityContext: context("confine/web/debug/a.json")}}},
			},
			want: []string{"confine.web.x", "confine/web/debug/a.json", "confine/web/init/a.json", "confine/web/main/a.json", "t"},
		},
		"one spelling, named once": {
			spec: corev1.PodSpec{Containers: []corev1.Container{
				{SecurityContext: context("confine//web/nginx/nginx.json")},
				{SecurityContext: context("./confine/web/./nginx/nginx.json")},
				{SecurityContext: context("confine/web/other/../nginx/nginx.json")},
			}},
			want: []string{"confine/web/nginx/nginx.json"},
		},
		"old annotations": {
			annotations: map[string]string{
				"container.apparmor.security.beta.kubernetes.io/main": "localhost/confine.web.a",
				"container.apparmor.security.beta.kubernetes.io/side": "runtime/default",
				"container.seccomp.security.alpha.kubernetes.io/main": "localhost/confine//web/a.json",
				"seccomp.security.alpha.kubernetes.io/pod":            "localhost/confine/web/b.json",
				"example.com/other": "localhost/confine.web.c",
			},
			want: []string{"confine.web.a", "confine/web/a.json", "confine/web/b.json"},
		},
		"none by other types": {
			spec: corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{
				SeccompProfile:  &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
				AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined},
				SELinuxOptions:  &corev1.SELinuxOptions{Level: "s0:c1"},
			}},
		},
		"incomplete": {
			spec: corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{
				SeccompProfile:  &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost},
				AppArmorProfile: appArmor(""),
			}},
			annotations: map[string]string{"seccomp.security.alpha.kubernetes.io/pod": "localhost/"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, podref.References(&test.spec, test.annotations)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
