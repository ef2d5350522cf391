package deploy

import (
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/google/go-cmp/cmp"
)

// covers reports whether a rule lets somebody use a verb on a resource.
func covers(rule rbacv1.PolicyRule, verb, group, resource string) bool {
	has := func(list []string, want string) bool {
		return slices.Contains(list, want) || slices.Contains(list, "*")
	}
	return has(rule.Verbs, verb) && has(rule.APIGroups, group) && has(rule.Resources, resource)
}

// may lists which of some verbs a role has on a resource of Confine's.
func may(role rbacv1.ClusterRole, resource string, verbs ...string) []string {
	var found []string
	for _, verb := range verbs {
		if slices.ContainsFunc(role.Rules, func(r rbacv1.PolicyRule) bool { return covers(r, verb, "confine.dev", resource) }) {
			found = append(found, verb)
		}
	}
	return found
}

func clusterRoles(t *testing.T) map[string]rbacv1.ClusterRole {
	t.Helper()
	all, err := server.kube.RbacV1().ClusterRoles().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	roles := map[string]rbacv1.ClusterRole{}
	for _, r := range all.Items {
		roles[r.Name] = r
	}
	return roles
}

// aggregated returns a default role with what is aggregated to it, as the
// controller-manager would.
func aggregated(roles map[string]rbacv1.ClusterRole, name string) rbacv1.ClusterRole {
	role := roles[name]
	if role.AggregationRule == nil {
		return role
	}
	for _, selector := range role.AggregationRule.ClusterRoleSelectors {
		for other, r := range roles {
			matches := len(selector.MatchLabels) > 0
			for key, value := range selector.MatchLabels {
				matches = matches && r.Labels[key] == value
			}
			if matches && other != name {
				role.Rules = append(slices.Clone(role.Rules), aggregated(roles, other).Rules...)
			}
		}
	}
	return role
}

var (
	writes = []string{"create", "update", "patch", "delete", "deletecollection"}
	reads  = []string{"get", "list", "watch"}
)

// TestWhoWritesTrust: whoever writes a TrustPolicy decides what all nodes take.
func TestWhoWritesTrust(t *testing.T) {
	roles := clusterRoles(t)
	var writers []string
	for name := range roles {
		// The control plane's own controllers collect garbage of every kind.
		if !strings.HasPrefix(name, "system:") && may(aggregated(roles, name), "trustpolicies", writes...) != nil {
			writers = append(writers, name)
		}
	}
	if diff := cmp.Diff([]string{"cluster-admin"}, writers); diff != "" {
		t.Errorf("roles that write TrustPolicies (-want +got):\n%s", diff)
	}
}

func TestDefaultRoles(t *testing.T) {
	roles := clusterRoles(t)
	type access struct{ Read, Write []string }
	want := map[string]map[string]access{
		"admin":              {"securityprofiles": {reads, writes}, "trustpolicies": {}, "profilenodes": {}},
		"edit":               {"securityprofiles": {reads, writes}, "trustpolicies": {}, "profilenodes": {}},
		"view":               {"securityprofiles": {reads, nil}, "trustpolicies": {}, "profilenodes": {}},
		"confine-fleet-view": {"securityprofiles": {reads, nil}, "trustpolicies": {reads, nil}, "profilenodes": {reads, nil}},
	}
	got := map[string]map[string]access{}
	for name := range want {
		role := aggregated(roles, name)
		got[name] = map[string]access{}
		for _, resource := range []string{"securityprofiles", "trustpolicies", "profilenodes"} {
			got[name][resource] = access{may(role, resource, reads...), may(role, resource, writes...)}
		}
		if s := may(role, "securityprofiles/status", writes...); s != nil {
			t.Errorf("%s writes statuses: %q", name, s)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
