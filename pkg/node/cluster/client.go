package cluster

import (
	"cmp"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/reason"
)

// FieldManager is the name under which the status is applied.
const FieldManager = "confine-agent"

// Limits on the requests of one Client, unless its configuration has others: an
// agent needs two watches and now and then one write.
const (
	defaultQPS   = 5
	defaultBurst = 10
)

// Client speaks to one API server. It has no state of its own, so many Sources
// in one process may share it, and with it the connections.
type Client struct {
	nodes, policies dynamic.NamespaceableResourceInterface
}

// Connect returns a Client; it contacts nobody. Who shares it among many
// Sources sets config.QPS to -1: one Source limits itself.
func Connect(config *rest.Config) (*Client, error) {
	c := rest.CopyConfig(config)
	c.Timeout = 0 // watches last; single requests have deadlines of their own
	c.QPS = cmp.Or(c.QPS, defaultQPS)
	c.Burst = cmp.Or(c.Burst, defaultBurst)
	httpClient, err := rest.HTTPClientFor(c)
	if err != nil {
		return nil, unusable(err)
	}
	return ConnectWith(c, httpClient)
}

// ConnectWith is Connect with an HTTP client, such as one that is shared with
// others or counts requests.
func ConnectWith(config *rest.Config, httpClient *http.Client) (*Client, error) {
	api, err := dynamic.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, unusable(err)
	}
	version := v1alpha1.SchemeGroupVersion()
	return &Client{
		nodes:    api.Resource(version.WithResource("profilenodes")),
		policies: api.Resource(version.WithResource("trustpolicies")),
	}, nil
}

func unusable(err error) error {
	return reason.New(reason.InstallFailed, "API server", "the client configuration cannot be used: %w", err).
		WithAdvice("run the agent in a cluster, or give a --kubeconfig that works")
}

func kindOf(kind string) schema.GroupVersionKind { return v1alpha1.SchemeGroupVersion().WithKind(kind) }

// own selects one object by name.
func own(options metav1.ListOptions, name string) metav1.ListOptions {
	if name != "" {
		options.FieldSelector = "metadata.name=" + name
	}
	return options
}
