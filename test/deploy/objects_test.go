package deploy

import (
	"maps"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

type object = map[string]any

// deniedBy reports whether a policy refused a request. Another refusal, such as
// by a schema or by roles, is none of a policy's.
func deniedBy(err error, policy string) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "ValidatingAdmissionPolicy '"+policy+"'")
}

// appArmorKey is the annotation for the container "main".
const appArmorKey = "container.apparmor.security.beta.kubernetes.io/main"

// where are the places of a pod that can name a profile, by form of reference.
func where() map[string][]string {
	return map[string][]string{
		"seccomp":  {"spec", "containers", "initContainers"},
		"apparmor": {"spec", "containers", "initContainers", "annotation"},
		"selinux":  {"spec", "containers", "initContainers"},
	}
}

// template is a pod that names a profile in one place; none where form is empty.
func template(form, place, reference string) object {
	var securityContext object
	switch form {
	case "seccomp":
		securityContext = object{"seccompProfile": object{"type": "Localhost", "localhostProfile": reference}}
	case "apparmor":
		securityContext = object{"appArmorProfile": object{"type": "Localhost", "localhostProfile": reference}}
	case "selinux":
		securityContext = object{"seLinuxOptions": object{"type": reference}}
	}
	spec := object{
		"initContainers": []any{object{"name": "init", "image": "localhost/none"}},
		"containers":     []any{object{"name": "main", "image": "localhost/none"}, object{"name": "second", "image": "localhost/none"}},
	}
	metadata := object{"labels": object{"app": "x"}}
	switch place {
	case "spec":
		spec["securityContext"] = securityContext
	case "containers":
		spec["containers"].([]any)[1].(object)["securityContext"] = securityContext
	case "initContainers":
		spec["initContainers"].([]any)[0].(object)["securityContext"] = securityContext
	case "annotation":
		metadata["annotations"] = object{appArmorKey: "localhost/" + reference}
	}
	return object{"metadata": metadata, "spec": spec}
}

// pod is such a pod by itself.
func pod(form, place, reference string) *unstructured.Unstructured {
	return workloads()["Pod"].object(template(form, place, reference))
}

// workload is one kind of object that holds a pod or a pod template.
type workload struct {
	resource schema.GroupVersionResource
	// object is one around a template.
	object func(template object) *unstructured.Unstructured
	// path leads to the template.
	path []string
}

// workloads are all kinds that Kubernetes makes pods from, and the pod.
func workloads() map[string]workload {
	labels := object{"app": "x"}
	selector := object{"matchLabels": labels}
	around := func(kind, version string, r schema.GroupVersionResource, restart string, path []string, rest object) workload {
		return workload{resource: r, path: path, object: func(template object) *unstructured.Unstructured {
			content := object{"apiVersion": version, "kind": kind}
			maps.Copy(content, deepCopy(rest))
			if restart != "" {
				template["spec"].(object)["restartPolicy"] = restart
			}
			// The paths are ours, so nothing can stand in the way.
			if len(path) == 0 {
				maps.Copy(content, template)
			} else if err := unstructured.SetNestedMap(content, template, path...); err != nil {
				panic(err)
			}
			u := &unstructured.Unstructured{Object: content}
			u.SetName("x")
			return u
		}}
	}
	apps := func(name string) schema.GroupVersionResource { return resource("apps", "v1", name) }
	in := []string{"spec", "template"}
	return map[string]workload{
		"Pod":                   around("Pod", "v1", resource("", "v1", "pods"), "", nil, nil),
		"PodTemplate":           around("PodTemplate", "v1", resource("", "v1", "podtemplates"), "", []string{"template"}, nil),
		"ReplicationController": around("ReplicationController", "v1", resource("", "v1", "replicationcontrollers"), "", in, object{"spec": object{"selector": labels}}),
		"Deployment":            around("Deployment", "apps/v1", apps("deployments"), "", in, object{"spec": object{"selector": selector}}),
		"ReplicaSet":            around("ReplicaSet", "apps/v1", apps("replicasets"), "", in, object{"spec": object{"selector": selector}}),
		"DaemonSet":             around("DaemonSet", "apps/v1", apps("daemonsets"), "", in, object{"spec": object{"selector": selector}}),
		"StatefulSet":           around("StatefulSet", "apps/v1", apps("statefulsets"), "", in, object{"spec": object{"selector": selector, "serviceName": "x"}}),
		"Job":                   around("Job", "batch/v1", resource("batch", "v1", "jobs"), "Never", in, nil),
		"CronJob": around("CronJob", "batch/v1", resource("batch", "v1", "cronjobs"), "Never",
			[]string{"spec", "jobTemplate", "spec", "template"}, object{"spec": object{"schedule": "* * * * *"}}),
	}
}

func deepCopy(o object) object {
	return (&unstructured.Unstructured{Object: o}).DeepCopy().Object
}
