package controller_test

import (
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/controller"
)

// clusterRules are all that the controller may do in the cluster, and
// leaseRules in its own namespace. deploy/ grants these.
func clusterRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"nodes", "pods"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{v1alpha1.GroupName}, Resources: []string{"securityprofiles"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{v1alpha1.GroupName}, Resources: []string{"securityprofiles/status"}, Verbs: []string{"patch"}},
		{APIGroups: []string{v1alpha1.GroupName}, Resources: []string{"profilenodes"}, Verbs: []string{"list", "watch", "create", "patch"}},
		{APIGroups: []string{"events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
		{
			APIGroups: []string{"apiextensions.k8s.io"}, Resources: []string{"customresourcedefinitions"},
			ResourceNames: []string{"securityprofiles." + v1alpha1.GroupName}, Verbs: []string{"get"},
		},
	}
}

func leaseRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"create"}},
		{
			APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"},
			ResourceNames: []string{controller.LeaseName}, Verbs: []string{"get", "update"},
		},
		// Events about the lease, of the older API.
		{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
	}
}

// TestLeastPrivileges: with these rights it does all it has to, from the lease
// to the event; what it must never do, it cannot.
func TestLeastPrivileges(t *testing.T) {
	const user = "controller-with-little"
	f := newFleet(t, "a", "b")
	f.grant(user)
	config, err := server.ConfigFor(user)
	if err != nil {
		t.Fatal(err)
	}
	f.answers(but(artifact(2), "SignatureMissing"))
	f.start(func(o *controller.Options, c *rest.Config) {
		o.LeaderElect = true
		*c = *config
	})
	f.good("nginx", 1, nil)
	f.edit("nginx", func(s *v1alpha1.SecurityProfileSpec) {
		s.Artifact, s.Rollout = artifact(2), &v1alpha1.Rollout{OnFailure: v1alpha1.OnFailureRollback}
	})
	f.awaitCondition("nginx", v1alpha1.ConditionDegraded, metav1.ConditionTrue, v1alpha1.ReasonRolledBack)
	f.awaitEvent("nginx", v1alpha1.ReasonRolledBack)
	if err := f.client.Delete(t.Context(), &v1alpha1.SecurityProfile{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "nginx"}}); err != nil {
		t.Fatal(err)
	}
	f.awaitGiven("nginx", artifact(1), 0)

	c, err := client.New(config, client.Options{Scheme: newScheme(t)})
	if err != nil {
		t.Fatal(err)
	}
	for name, attempt := range map[string]func() error{
		"write a policy": func() error {
			return c.Create(t.Context(), &v1alpha1.TrustPolicy{ObjectMeta: metav1.ObjectMeta{Name: "mine"}})
		},
		"read a secret": func() error { return c.List(t.Context(), &corev1.SecretList{}) },
		"write a node":  func() error { return c.Update(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}) },
		"delete a share": func() error {
			return c.Delete(t.Context(), &v1alpha1.ProfileNode{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
		},
		"report for a node": func() error {
			n := &v1alpha1.ProfileNode{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
			return c.Status().Patch(t.Context(), n, client.RawPatch("application/merge-patch+json", []byte(`{"status":{"nodeUID":"x"}}`)))
		},
		"write a profile": func() error {
			return c.Create(t.Context(), &v1alpha1.SecurityProfile{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "mine"}})
		},
	} {
		if err := attempt(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want Forbidden", name, err)
		}
	}
}

func (f *fleet) grant(user string) {
	f.t.Helper()
	scheme := newScheme(f.t)
	if err := rbacv1.AddToScheme(scheme); err != nil {
		f.t.Fatal(err)
	}
	c, err := client.New(server.Config(), client.Options{Scheme: scheme})
	if err != nil {
		f.t.Fatal(err)
	}
	meta := metav1.ObjectMeta{Name: user}
	local := metav1.ObjectMeta{Name: user, Namespace: namespace}
	subject := []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}}
	var errs []error
	for _, object := range []client.Object{
		&rbacv1.ClusterRole{ObjectMeta: meta, Rules: clusterRules()},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta, Subjects: subject, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: user}},
		&rbacv1.Role{ObjectMeta: local, Rules: leaseRules()},
		&rbacv1.RoleBinding{ObjectMeta: local, Subjects: subject, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: user}},
	} {
		if err := c.Create(f.t.Context(), object); err != nil {
			errs = append(errs, fmt.Errorf("%T: %w", object, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		f.t.Fatal(err)
	}
}
