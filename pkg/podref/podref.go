// Package podref tells which security profiles of its node a pod names. What a
// running pod names is in use, and is not removed.
//
// It is one explicit list of the fields of a pod that name a profile: a fourth
// kind of profile adds its field here.
package podref

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Annotations that named profiles before the fields did. The kubelet of old
// versions still honours them, and pods keep them beside the fields.
// Source: k8s.io/api/core/v1/annotation_key_constants.go of Kubernetes 1.32
// and docs/reference/labels-annotations-taints of kubernetes.io.
const (
	appArmorPrefix   = "container.apparmor.security.beta.kubernetes.io/"
	seccompContainer = "container.seccomp.security.alpha.kubernetes.io/"
	seccompPod       = "seccomp.security.alpha.kubernetes.io/pod"
	localhostPrefix  = "localhost/"
)

// References returns the names of profiles that a pod names, as a node reports
// them: a path below the kubelet's seccomp folder, the name of an AppArmor
// profile, an SELinux type. The result is sorted, without repetition, and nil
// for a pod that names none.
func References(spec *corev1.PodSpec, annotations map[string]string) []string {
	var found []string
	if c := spec.SecurityContext; c != nil {
		found = append(found, seccomp(c.SeccompProfile)...)
		found = append(found, appArmor(c.AppArmorProfile)...)
		found = append(found, seLinux(c.SELinuxOptions)...)
	}
	each := func(c *corev1.SecurityContext) {
		if c != nil {
			found = append(found, seccomp(c.SeccompProfile)...)
			found = append(found, appArmor(c.AppArmorProfile)...)
			found = append(found, seLinux(c.SELinuxOptions)...)
		}
	}
	for i := range spec.InitContainers {
		each(spec.InitContainers[i].SecurityContext)
	}
	for i := range spec.Containers {
		each(spec.Containers[i].SecurityContext)
	}
	for i := range spec.EphemeralContainers {
		each(spec.EphemeralContainers[i].SecurityContext)
	}
	for key, value := range annotations {
		name, local := strings.CutPrefix(value, localhostPrefix)
		switch {
		case !local || name == "":
		case strings.HasPrefix(key, appArmorPrefix):
			found = append(found, name)
		case key == seccompPod, strings.HasPrefix(key, seccompContainer):
			found = append(found, clean(name))
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func seccomp(p *corev1.SeccompProfile) []string {
	if p == nil || p.Type != corev1.SeccompProfileTypeLocalhost || p.LocalhostProfile == nil || *p.LocalhostProfile == "" {
		return nil
	}
	return []string{clean(*p.LocalhostProfile)}
}

func appArmor(p *corev1.AppArmorProfile) []string {
	if p == nil || p.Type != corev1.AppArmorProfileTypeLocalhost || p.LocalhostProfile == nil || *p.LocalhostProfile == "" {
		return nil
	}
	return []string{*p.LocalhostProfile}
}

func seLinux(o *corev1.SELinuxOptions) []string {
	if o == nil || o.Type == "" {
		return nil
	}
	return []string{o.Type}
}

// clean makes the one spelling of a path: a pod may write confine//web/x or
// ./confine/web/x for the same file.
func clean(name string) string { return path.Clean(name) }
