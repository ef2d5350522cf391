package controller_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/controller"
)

// without refuses all requests for a resource.
type without struct {
	resource string
	next     http.RoundTripper
}

func (w without) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.Contains(r.URL.Path, "/"+w.resource) {
		return w.next.RoundTrip(r)
	}
	return &http.Response{
		StatusCode: http.StatusForbidden, Request: r, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"no"}`)),
	}, nil
}

// Where it cannot be told whether a SecurityProfile was deleted or its
// definition, nodes keep it, and nobody else waits for that: any tenant may
// delete a profile.
func TestDefinitionThatCannotBeReadHoldsUpNobodyElse(t *testing.T) {
	f := newFleet(t, "a", "b")
	f.start(func(_ *controller.Options, c *rest.Config) {
		c.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return without{resource: "customresourcedefinitions", next: next}
		})
	})
	f.good("nginx", 1, nil)
	if err := f.client.Delete(t.Context(), &v1alpha1.SecurityProfile{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "nginx"}}); err != nil {
		t.Fatal(err)
	}
	f.good("redis", 2, nil)
	f.awaitGiven("redis", artifact(2), 2)
	f.awaitGiven("nginx", artifact(1), 2)
}
