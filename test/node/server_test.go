package node_test

import (
	"context"
	"encoding/json"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/confine-dev/confine/api/v1alpha1"
)

func (s *site) crds() dynamic.ResourceInterface {
	return s.api.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
}

func (s *site) deleteCRDs() {
	s.t.Helper()
	for _, resource := range []string{"profilenodes", "trustpolicies", "securityprofiles"} {
		s.must(s.crds().Delete(s.t.Context(), resource+"."+v1alpha1.GroupName, metav1.DeleteOptions{}))
	}
}

// served reports whether both resources can be listed.
func (s *site) served() bool {
	for _, resource := range []string{"profilenodes", "trustpolicies"} {
		if _, err := s.resource(resource).List(s.t.Context(), metav1.ListOptions{}); err != nil {
			return false
		}
	}
	return true
}

// preserveUnknown lets the server keep fields of a TrustPolicy's spec that its
// CRD does not name, as a newer CRD would.
func (s *site) preserveUnknown(on bool) {
	s.t.Helper()
	const at = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-preserve-unknown-fields"
	patch := []map[string]any{{"op": "add", "path": at, "value": true}}
	if !on {
		patch = []map[string]any{{"op": "remove", "path": at}}
	}
	body, err := json.Marshal(patch)
	s.must(err)
	_, err = s.crds().Patch(context.WithoutCancel(s.t.Context()), "trustpolicies."+v1alpha1.GroupName, types.JSONPatchType, body, metav1.PatchOptions{})
	s.must(err)
}

// allow lets a user read one resource, and write its status.
func (s *site) allow(role, user, resource string) {
	s.t.Helper()
	c, err := kubernetes.NewForConfig(env.Config())
	s.must(err)
	_, err = c.RbacV1().ClusterRoles().Create(s.t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: role}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{v1alpha1.GroupName}, Resources: []string{resource}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{v1alpha1.GroupName}, Resources: []string{resource + "/status"}, Verbs: []string{"patch"}},
	}}, metav1.CreateOptions{})
	s.must(err)
	_, err = c.RbacV1().ClusterRoleBindings().Create(s.t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: role},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}}}, metav1.CreateOptions{})
	s.must(err)
}
