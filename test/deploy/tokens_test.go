package deploy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/google/go-cmp/cmp"
)

// thief is who holds the token of another.
type thief struct {
	kube kubernetes.Interface
	any  dynamic.Interface
}

func steal(t *testing.T, token string) thief {
	t.Helper()
	kube, objects, err := clients(server.ConfigForToken(token))
	if err != nil {
		t.Fatal(err)
	}
	return thief{kube: kube, any: objects}
}

// attempt is one request; the error is the API server's answer.
type attempt func(ctx context.Context, th thief) error

func patch(r schema.GroupVersionResource, in, name, content string, subresources ...string) attempt {
	return func(ctx context.Context, th thief) error {
		_, err := th.any.Resource(r).Namespace(in).Patch(ctx, name, types.MergePatchType, []byte(content), metav1.PatchOptions{}, subresources...)
		return err
	}
}

func create(r schema.GroupVersionResource, in, content string) attempt {
	return func(ctx context.Context, th thief) error {
		o := &unstructured.Unstructured{}
		if err := o.UnmarshalJSON([]byte(content)); err != nil {
			return err
		}
		_, err := th.any.Resource(r).Namespace(in).Create(ctx, o, metav1.CreateOptions{})
		return err
	}
}

func remove(r schema.GroupVersionResource, in, name string) attempt {
	return func(ctx context.Context, th thief) error {
		return th.any.Resource(r).Namespace(in).Delete(ctx, name, metav1.DeleteOptions{})
	}
}

func removeAll(r schema.GroupVersionResource, in string) attempt {
	return func(ctx context.Context, th thief) error {
		return th.any.Resource(r).Namespace(in).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
	}
}

func list(r schema.GroupVersionResource, in string) attempt {
	return func(ctx context.Context, th thief) error {
		_, err := th.any.Resource(r).Namespace(in).List(ctx, metav1.ListOptions{})
		return err
	}
}

func get(r schema.GroupVersionResource, in, name string) attempt {
	return func(ctx context.Context, th thief) error {
		_, err := th.any.Resource(r).Namespace(in).Get(ctx, name, metav1.GetOptions{})
		return err
	}
}

// applyStatus writes a status the way the agent does.
func applyStatus(name string) attempt {
	return func(ctx context.Context, th thief) error {
		_, err := th.any.Resource(confine("profilenodes")).ApplyStatus(ctx, name, &unstructured.Unstructured{Object: object{
			"apiVersion": "confine.dev/v1alpha1", "kind": "ProfileNode", "metadata": object{"name": name},
			"status": object{"agentVersion": "1"},
		}}, metav1.ApplyOptions{FieldManager: "confine-agent", Force: true})
		return err
	}
}

func core(name string) schema.GroupVersionResource { return resource("", "v1", name) }

const (
	aSecret       = `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"secret"},"stringData":{"a":"b"}}`
	aProfile      = `{"apiVersion":"confine.dev/v1alpha1","kind":"SecurityProfile","metadata":{"name":"x"},"spec":{"artifact":"registry.example.com/p/x@sha256:0000000000000000000000000000000000000000000000000000000000000000"}}`
	aPod          = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"y"},"spec":{"containers":[{"name":"a","image":"b"}]}}`
	grabAll       = `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"grab"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"},"subjects":[{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"me"}]}`
	revokeNothing = `{"spec":{"revoked":null}}`
	otherArtifact = `{"spec":{"artifact":"registry.example.com/p/x@sha256:1111111111111111111111111111111111111111111111111111111111111111"}}`
	assignNothing = `{"spec":{"profiles":null}}`
	aTrustPolicy  = `{"apiVersion":"confine.dev/v1alpha1","kind":"TrustPolicy","metadata":{"name":"NAME"},"spec":{
		"repositories":["registry.example.com/p/*"],"namespaces":["web"],"threshold":1,"allowedKinds":["seccomp"],
		"signers":[{"name":"k","key":{"pem":"-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEld9p33o65IWxPxMyC1xFk0ATbPGO\n+9nHkByPCo2EQp3f11IhCkk/BRGGnKrR3jDA0UWTTXOJaWeCdCJ4De1KCA==\n-----END PUBLIC KEY-----\n"}}]}}`
)

func trustPolicy(name string) string { return strings.ReplaceAll(aTrustPolicy, "NAME", name) }

func profileNode(name string) string {
	return `{"apiVersion":"confine.dev/v1alpha1","kind":"ProfileNode","metadata":{"name":"` + name + `"}}`
}

// furnish makes what a thief could be after, once.
func furnish(t *testing.T, prefix string) {
	t.Helper()
	admin := thief{kube: server.kube, any: server.any}
	for _, a := range []attempt{
		create(core("secrets"), own, strings.Replace(aSecret, `"secret"`, `"`+prefix+`"`, 1)),
		create(core("secrets"), namespace, strings.Replace(aSecret, `"secret"`, `"`+prefix+`"`, 1)),
		create(confine("trustpolicies"), "", trustPolicy(prefix)),
		create(confine("securityprofiles"), own, strings.Replace(aProfile, `"x"`, `"`+prefix+`"`, 1)),
		create(confine("profilenodes"), "", profileNode(prefix+"-a")),
		create(confine("profilenodes"), "", profileNode(prefix+"-b")),
	} {
		if err := a(t.Context(), admin); err != nil {
			t.Fatal(err)
		}
	}
}

// expect makes each attempt and holds its outcome.
func expect(t *testing.T, th thief, attempts map[string]attempt, outcome func(error) string) {
	t.Helper()
	for name, a := range attempts {
		if wrong := outcome(a(t.Context(), th)); wrong != "" {
			t.Errorf("%s: %s", name, wrong)
		}
	}
}

func succeeds(err error) string {
	if err != nil {
		return fmt.Sprintf("refused: %v", err)
	}
	return ""
}

// forbidden is what roles refuse, before any policy is asked.
func forbidden(err error) string {
	if !apierrors.IsForbidden(err) || strings.Contains(err.Error(), "ValidatingAdmissionPolicy") {
		return fmt.Sprintf("%v, want it forbidden by roles", err)
	}
	return ""
}

func policed(err error) string {
	if !deniedBy(err, "confine-agent") {
		return fmt.Sprintf("%v, want it denied by the policy confine-agent", err)
	}
	return ""
}

func TestStolenAgentToken(t *testing.T) {
	furnish(t, "agent")
	token, err := server.AgentToken(t.Context(), namespace, "confine-agent", "agent-a")
	if err != nil {
		t.Fatal(err)
	}
	th := steal(t, token)
	expect(t, th, map[string]attempt{
		"own status":         applyStatus("agent-a"),
		"read own object":    get(confine("profilenodes"), "", "agent-a"),
		"read TrustPolicies": list(confine("trustpolicies"), ""),
	}, succeeds)
	expect(t, th, map[string]attempt{"another node's status": applyStatus("agent-b")}, policed)
	expect(t, th, map[string]attempt{
		"read a Secret":           get(core("secrets"), own, "agent"),
		"list Secrets":            list(core("secrets"), ""),
		"list its own Secrets":    list(core("secrets"), namespace),
		"list ConfigMaps":         list(core("configmaps"), namespace),
		"list Pods":               list(core("pods"), ""),
		"read its Node":           get(core("nodes"), "", "agent-a"),
		"label its Node":          patch(core("nodes"), "", "agent-a", `{"metadata":{"labels":{"a":"b"}}}`),
		"make a Pod":              create(core("pods"), namespace, aPod),
		"own spec":                patch(confine("profilenodes"), "", "agent-a", assignNothing),
		"another node's spec":     patch(confine("profilenodes"), "", "agent-b", assignNothing),
		"delete own object":       remove(confine("profilenodes"), "", "agent-a"),
		"delete another's object": remove(confine("profilenodes"), "", "agent-b"),
		"delete all objects":      removeAll(confine("profilenodes"), ""),
		"make an object":          create(confine("profilenodes"), "", profileNode("agent-c")),
		"list SecurityProfiles":   list(confine("securityprofiles"), ""),
		"change a profile":        patch(confine("securityprofiles"), own, "agent", otherArtifact),
		"profile's status":        patch(confine("securityprofiles"), own, "agent", `{"status":null}`, "status"),
		"make a TrustPolicy":      create(confine("trustpolicies"), "", trustPolicy("mine")),
		"change a TrustPolicy":    patch(confine("trustpolicies"), "", "agent", revokeNothing),
		"delete a TrustPolicy":    remove(confine("trustpolicies"), "", "agent"),
		"grab everything":         create(resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings"), "", grabAll),
		"a token of its own":      serviceAccountToken("confine-agent"),
		"the controller's token":  serviceAccountToken("confine-controller"),
	}, forbidden)
	want := []string{
		"confine.dev/profilenodes/status: patch", "confine.dev/profilenodes: get list watch", "confine.dev/trustpolicies: get list watch",
	}
	if diff := cmp.Diff(want, rules(t, th, namespace)); diff != "" {
		t.Errorf("what the token may do (-want +got):\n%s", diff)
	}
}

// TestAgentPolicyAlone gives the agent's account all of Confine's API by a role,
// as a mistake could: the policy alone must hold then.
func TestAgentPolicyAlone(t *testing.T) {
	furnish(t, "alone")
	token, err := server.AgentToken(t.Context(), namespace, "confine-agent", "alone-a")
	if err != nil {
		t.Fatal(err)
	}
	th := steal(t, token)
	grant(t, th, "confine-agent")
	expect(t, th, map[string]attempt{"own status": applyStatus("alone-a")}, succeeds)
	expect(t, th, map[string]attempt{
		"another node's status":   applyStatus("alone-b"),
		"own spec":                patch(confine("profilenodes"), "", "alone-a", assignNothing),
		"own labels":              patch(confine("profilenodes"), "", "alone-a", `{"metadata":{"labels":{"a":"b"}}}`),
		"another node's spec":     patch(confine("profilenodes"), "", "alone-b", assignNothing),
		"delete own object":       remove(confine("profilenodes"), "", "alone-a"),
		"delete all objects":      removeAll(confine("profilenodes"), ""),
		"make an object":          create(confine("profilenodes"), "", profileNode("alone-c")),
		"change a profile":        patch(confine("securityprofiles"), own, "alone", otherArtifact),
		"a profile's status":      patch(confine("securityprofiles"), own, "alone", `{"status":{"observedGeneration":1}}`, "status"),
		"make a TrustPolicy":      create(confine("trustpolicies"), "", trustPolicy("mine")),
		"change a TrustPolicy":    patch(confine("trustpolicies"), "", "alone", `{"spec":{"namespaces":["*"]}}`),
		"delete a TrustPolicy":    remove(confine("trustpolicies"), "", "alone"),
		"delete all the profiles": removeAll(confine("securityprofiles"), own),
	}, policed)
	// A token that names no node, as who may ask for tokens can get one.
	unbound, err := server.kube.CoreV1().ServiceAccounts(namespace).
		CreateToken(t.Context(), "confine-agent", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	nowhere := steal(t, unbound.Status.Token)
	expect(t, nowhere, map[string]attempt{
		"a status":       applyStatus("alone-a"),
		"make an object": create(confine("profilenodes"), "", profileNode("alone-c")),
	}, policed)
	expect(t, nowhere, map[string]attempt{"read": list(confine("profilenodes"), "")}, succeeds)
}

// grant binds all verbs on Confine's API to an account until the test ends.
func grant(t *testing.T, th thief, account string) {
	t.Helper()
	roles := server.kube.RbacV1()
	_, err := roles.ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "mistake"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{"confine.dev"}, Resources: []string{"*"}, Verbs: []string{"*"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = roles.ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "mistake"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "mistake"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: account}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	may := func(ctx context.Context) bool {
		review, err := th.kube.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
				Group: "confine.dev", Resource: "trustpolicies", Verb: "delete",
			}},
		}, metav1.CreateOptions{})
		return err == nil && review.Status.Allowed
	}
	await := func(ctx context.Context, want bool) {
		if err := wait.PollUntilContextTimeout(ctx, every, timeout, true, func(ctx context.Context) (bool, error) {
			return may(ctx) == want, nil
		}); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() {
		ctx := context.Background()
		if err := roles.ClusterRoleBindings().Delete(ctx, "mistake", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		if err := roles.ClusterRoles().Delete(ctx, "mistake", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		await(ctx, false)
	})
	await(t.Context(), true)
}

func serviceAccountToken(name string) attempt {
	return func(ctx context.Context, th thief) error {
		_, err := th.kube.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		return err
	}
}

func TestStolenControllerToken(t *testing.T) {
	furnish(t, "controller")
	token, err := server.AgentToken(t.Context(), namespace, "confine-controller", "controller-a")
	if err != nil {
		t.Fatal(err)
	}
	th := steal(t, token)
	const lease = `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"NAME"}}`
	leases := resource("coordination.k8s.io", "v1", "leases")
	expect(t, th, map[string]attempt{
		"assign":               patch(confine("profilenodes"), "", "controller-b", `{"spec":{"profiles":[]}}`),
		"make a ProfileNode":   create(confine("profilenodes"), "", profileNode("controller-c")),
		"a profile's status":   patch(confine("securityprofiles"), own, "controller", `{"status":{"observedGeneration":1}}`, "status"),
		"read Nodes":           list(core("nodes"), ""),
		"read Pods":            list(core("pods"), ""),
		"an event of a tenant": create(core("events"), own, `{"apiVersion":"v1","kind":"Event","metadata":{"name":"e"},"involvedObject":{"namespace":"web"}}`),
		"its lease":            create(leases, namespace, strings.Replace(lease, "NAME", "confine-controller", 1)),
	}, succeeds)
	expect(t, th, map[string]attempt{"renew its lease": patch(leases, namespace, "confine-controller", `{"spec":{"holderIdentity":"a"}}`)}, succeeds)
	expect(t, th, map[string]attempt{
		"make a TrustPolicy":       create(confine("trustpolicies"), "", trustPolicy("mine")),
		"change a TrustPolicy":     patch(confine("trustpolicies"), "", "controller", revokeNothing),
		"delete a TrustPolicy":     remove(confine("trustpolicies"), "", "controller"),
		"make a profile":           create(confine("securityprofiles"), own, aProfile),
		"change a profile":         patch(confine("securityprofiles"), own, "controller", otherArtifact),
		"delete a profile":         remove(confine("securityprofiles"), own, "controller"),
		"report for a node":        applyStatus("controller-b"),
		"change a Node":            patch(core("nodes"), "", "controller-a", `{"metadata":{"labels":{"a":"b"}}}`),
		"a Node's status":          patch(core("nodes"), "", "controller-a", `{"status":{"phase":"Running"}}`, "status"),
		"delete a Node":            remove(core("nodes"), "", "controller-a"),
		"read a Secret":            get(core("secrets"), own, "controller"),
		"read its namespace's":     get(core("secrets"), namespace, "controller"),
		"list Secrets":             list(core("secrets"), ""),
		"make a Pod":               create(core("pods"), namespace, aPod),
		"delete a Pod":             remove(core("pods"), namespace, "confine-controller-controller-a"),
		"another's lease":          patch(leases, "kube-system", "kube-scheduler", `{"spec":{"holderIdentity":"a"}}`),
		"another lease of its own": patch(leases, namespace, "x", `{"spec":{"holderIdentity":"a"}}`),
		"switch off a policy":      remove(resource("admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings"), "", "confine-tenants"),
		"grab everything":          create(resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings"), "", grabAll),
		"a token of an agent's":    serviceAccountToken("confine-agent"),
		"another image for agents": patch(resource("apps", "v1", "daemonsets"), namespace, "confine-agent", `{"metadata":{"labels":{"a":"b"}}}`),
		"a ConfigMap":              get(core("configmaps"), namespace, "ca"),
	}, forbidden)
	want := []string{
		"/events: create patch", "/nodes: get list watch", "/pods: get list watch",
		"apiextensions.k8s.io/customresourcedefinitions [securityprofiles.confine.dev]: get",
		"confine.dev/profilenodes: create delete get list patch update watch",
		"confine.dev/securityprofiles/status: patch update", "confine.dev/securityprofiles: get list watch",
		"coordination.k8s.io/leases [confine-controller]: get patch update", "coordination.k8s.io/leases: create",
		"events.k8s.io/events: create patch",
	}
	if diff := cmp.Diff(want, rules(t, th, namespace)); diff != "" {
		t.Errorf("what the token may do (-want +got):\n%s", diff)
	}
}

// rules lists what a token may do in a namespace and the cluster, without what
// everyone may: ask who it is and what it may do, and read public certificates.
func rules(t *testing.T, th thief, in string) []string {
	t.Helper()
	review, err := th.kube.AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(), &authorizationv1.SelfSubjectRulesReview{
		Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: in},
	}, metav1.CreateOptions{})
	if err != nil || review.Status.Incomplete {
		t.Fatalf("%v, %+v", err, review)
	}
	var all []string
	for _, rule := range review.Status.ResourceRules {
		slices.Sort(rule.Verbs)
		for _, group := range rule.APIGroups {
			for _, name := range rule.Resources {
				if slices.Contains([]string{"authentication.k8s.io", "authorization.k8s.io", "certificates.k8s.io"}, group) {
					continue
				}
				if len(rule.ResourceNames) > 0 {
					name += fmt.Sprint(" ", rule.ResourceNames)
				}
				all = append(all, group+"/"+name+": "+strings.Join(rule.Verbs, " "))
			}
		}
	}
	slices.Sort(all)
	return all
}
