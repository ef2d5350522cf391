package kube

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/confine-dev/confine/api/v1alpha1"
)

// The plural names of what is read.
const (
	Profiles = "securityprofiles"
	Nodes    = "profilenodes"
	Policies = "trustpolicies"
)

const (
	pageSize = 500
	// nodePage is smaller: a ProfileNode can have close to a megabyte.
	nodePage = 100
	maxPages = 10_000
)

// Profile reads one SecurityProfile.
func (c *Client) Profile(ctx context.Context, key types.NamespacedName) (*v1alpha1.SecurityProfile, error) {
	found := &v1alpha1.SecurityProfile{}
	req := c.confine.Get().Namespace(key.Namespace).Resource(Profiles).Name(key.Name)
	return found, c.do(ctx, "get", Profiles, key, req, found)
}

// EachProfile hands over the SecurityProfiles of a namespace, or of all where
// it is empty, in the order of namespace and name.
func (c *Client) EachProfile(ctx context.Context, namespace string, each func(*v1alpha1.SecurityProfile)) error {
	q := query{client: c.confine, resource: Profiles, namespace: namespace}
	return list(ctx, c, q, func(page *v1alpha1.SecurityProfileList) string {
		for i := range page.Items {
			each(&page.Items[i])
		}
		return page.Continue
	})
}

// Node reads one ProfileNode.
func (c *Client) Node(ctx context.Context, name string) (*v1alpha1.ProfileNode, error) {
	found := &v1alpha1.ProfileNode{}
	req := c.confine.Get().Resource(Nodes).Name(name)
	return found, c.do(ctx, "get", Nodes, types.NamespacedName{Name: name}, req, found)
}

// EachNode hands over all ProfileNodes, in the order of their names, one page
// at a time in memory.
func (c *Client) EachNode(ctx context.Context, each func(*v1alpha1.ProfileNode)) error {
	q := query{client: c.confine, resource: Nodes, limit: nodePage}
	return list(ctx, c, q, func(page *v1alpha1.ProfileNodeList) string {
		for i := range page.Items {
			each(&page.Items[i])
		}
		return page.Continue
	})
}

// TrustPolicies reads all of them.
func (c *Client) TrustPolicies(ctx context.Context) ([]v1alpha1.TrustPolicy, error) {
	var all []v1alpha1.TrustPolicy
	q := query{client: c.confine, resource: Policies}
	err := list(ctx, c, q, func(page *v1alpha1.TrustPolicyList) string {
		all = append(all, page.Items...)
		return page.Continue
	})
	return all, err
}

// Machine reads the Node itself.
func (c *Client) Machine(ctx context.Context, name string) (*corev1.Node, error) {
	found := &corev1.Node{}
	req := c.core.Get().Resource("nodes").Name(name)
	return found, c.do(ctx, "get", "nodes", types.NamespacedName{Name: name}, req, found)
}

// PodQuery selects pods. The zero value is all of all namespaces.
type PodQuery struct {
	Namespace string
	// Labels all match.
	Labels map[string]string
	// Node is the node they run on; empty means any.
	Node string
}

// EachPod hands over the pods.
func (c *Client) EachPod(ctx context.Context, pods PodQuery, each func(*corev1.Pod)) error {
	q := query{client: c.core, resource: "pods", namespace: pods.Namespace}
	if len(pods.Labels) > 0 {
		q.labels = labels.SelectorFromSet(pods.Labels).String()
	}
	if pods.Node != "" {
		q.fields = fields.OneTermEqualSelector("spec.nodeName", pods.Node).String()
	}
	return list(ctx, c, q, func(page *corev1.PodList) string {
		for i := range page.Items {
			each(&page.Items[i])
		}
		return page.Continue
	})
}

// PatchProfile applies a JSON merge patch to one SecurityProfile, provided that
// its resourceVersion is still the one given. IsConflict tells where it is not.
func (c *Client) PatchProfile(ctx context.Context, key types.NamespacedName, resourceVersion string, patch map[string]any) (*v1alpha1.SecurityProfile, error) {
	patch["metadata"] = map[string]any{"resourceVersion": resourceVersion}
	body, err := json.Marshal(patch)
	if err != nil {
		return nil, fmt.Errorf("patch of %s: %w", key, err)
	}
	found := &v1alpha1.SecurityProfile{}
	req := c.confine.Patch(types.MergePatchType).Namespace(key.Namespace).Resource(Profiles).Name(key.Name).
		Param("fieldManager", FieldManager).Body(body)
	return found, c.do(ctx, "patch", Profiles, key, req, found)
}

func (c *Client) do(ctx context.Context, verb, resource string, key types.NamespacedName, req *rest.Request, into runtime.Object) error {
	if err := req.Do(ctx).Into(into); err != nil {
		return c.explain(err, verb, resource, key)
	}
	return nil
}

type query struct {
	client    rest.Interface
	resource  string
	namespace string
	labels    string
	fields    string
	limit     int64
}

// list reads page by page; page returns the token of the next one. A list that
// changed for longer than the server remembers ends with an error, which says
// to try again.
func list[L any, P interface {
	*L
	runtime.Object
}](ctx context.Context, c *Client, q query, page func(P) string) error {
	opts := metav1.ListOptions{Limit: q.limit, LabelSelector: q.labels, FieldSelector: q.fields}
	if opts.Limit == 0 {
		opts.Limit = pageSize
	}
	for range maxPages {
		req := q.client.Get().NamespaceIfScoped(q.namespace, q.namespace != "").Resource(q.resource).
			Param("limit", fmt.Sprint(opts.Limit))
		for name, value := range map[string]string{
			"continue": opts.Continue, "labelSelector": opts.LabelSelector, "fieldSelector": opts.FieldSelector,
		} {
			if value != "" {
				req = req.Param(name, value)
			}
		}
		found := P(new(L))
		if err := c.do(ctx, "list", q.resource, types.NamespacedName{Namespace: q.namespace}, req, found); err != nil {
			return err
		}
		next := page(found)
		if next == "" {
			return nil
		}
		if next == opts.Continue {
			return &Error{What: "list " + q.resource + ": the API server repeats a page", Advice: tryAgain, Again: true}
		}
		opts.Continue = next
	}
	return &Error{What: fmt.Sprintf("list %s: more than %d pages", q.resource, maxPages), Advice: "name a namespace with -n"}
}
