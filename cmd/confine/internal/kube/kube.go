// Package kube is the command line's way to the API server: a few bounded
// reads, one patch, and errors that say what to do. It holds no more of a
// client than that, so that the binary stays small.
package kube

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/confine-dev/confine/api/v1alpha1"
)

// FieldManager is who the command line is in metadata.managedFields.
const FieldManager = "confine"

const (
	defaultTimeout = 30 * time.Second
	// maxBodyBytes bounds one answer. The largest is a page of ProfileNodes:
	// nodePage objects of at most 900 kB of status each, and their spec.
	maxBodyBytes = 256 << 20
)

// Options say which cluster. The zero value is what kubectl would use.
type Options struct {
	// Kubeconfig is a file; empty means $KUBECONFIG, ~/.kube/config, or the
	// service account of the pod this runs in.
	Kubeconfig string
	// Context is one of its contexts; empty means the current one.
	Context string
	// Namespace is used where nothing else says one; empty means the context's.
	Namespace string
	// UserAgent names the client in audit logs.
	UserAgent string
	// Timeout bounds each request; zero means 30 seconds.
	Timeout time.Duration
}

// Client reads and patches through one API server. It is safe for concurrent
// use.
type Client struct {
	confine, core rest.Interface
	namespace     string
	host          string
}

// ErrNoCluster says that nothing names a cluster.
var ErrNoCluster = errors.New("no kubeconfig names a cluster")

// Connect finds the cluster by the rules of kubectl. It contacts nobody. The
// error is an *Error, and ErrNoCluster where nothing names a cluster.
func Connect(o Options) (*Client, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.Kubeconfig
	rules.WarnIfAllMissing = false
	overrides := &clientcmd.ConfigOverrides{CurrentContext: o.Context}
	overrides.Context.Namespace = o.Namespace
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, explainConfig(o, err)
	}
	namespace, _, err := loader.Namespace()
	if err != nil {
		return nil, explainConfig(o, err)
	}
	c, err := New(config, o)
	if err != nil {
		return nil, err
	}
	c.namespace = namespace
	return c, nil
}

// New returns a Client of a configuration that is known. Its namespace is that
// of the options, or "default".
func New(config *rest.Config, o Options) (*Client, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(v1alpha1.AddToScheme(scheme), corev1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("types of the API: %w", err)
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	config = rest.CopyConfig(config)
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.AcceptContentTypes, config.ContentType = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	config.UserAgent = o.UserAgent
	config.QPS = -1 // a command asks little, and the server has its own fairness
	config.Timeout = o.Timeout
	if config.Timeout == 0 {
		config.Timeout = defaultTimeout
	}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return bounded{next} })
	c := &Client{host: config.Host, namespace: o.Namespace}
	if c.namespace == "" {
		c.namespace = metav1.NamespaceDefault
	}
	var err error
	if c.confine, err = group(config, v1alpha1.SchemeGroupVersion(), "/apis"); err != nil {
		return nil, explainConfig(o, err)
	}
	if c.core, err = group(config, schema.GroupVersion{Version: "v1"}, "/api"); err != nil {
		return nil, explainConfig(o, err)
	}
	return c, nil
}

func group(config *rest.Config, version schema.GroupVersion, path string) (rest.Interface, error) {
	config = rest.CopyConfig(config)
	config.GroupVersion = &version
	config.APIPath = path
	return rest.RESTClientFor(config)
}

// Namespace is where commands look that name none.
func (c *Client) Namespace() string { return c.namespace }

// bounded cuts answers off that are larger than any honest one.
type bounded struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxBodyBytes}
	return resp, nil
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("the answer exceeds %d bytes", int64(maxBodyBytes))
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
