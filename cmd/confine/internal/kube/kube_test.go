package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/confine-dev/confine/api/v1alpha1"
)

// serve answers every request as an API server would not, or not often.
func serve(t *testing.T, handler http.HandlerFunc, timeout time.Duration) *Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c, err := New(&rest.Config{Host: server.URL}, Options{Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func status(code int, reason metav1.StatusReason, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"reason":%q,"message":%q}`, code, reason, message)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	for name, tc := range map[string]struct {
		handler http.HandlerFunc
		again   bool
		want    string
	}{
		"internal error": {status(500, metav1.StatusReasonInternalError, "etcd is away"), true, "etcd is away"},
		"expired list":   {status(410, metav1.StatusReasonExpired, "too old"), true, "too old"},
		"unavailable":    {status(503, metav1.StatusReasonServiceUnavailable, "starting"), true, "starting"},
		"forbidden":      {status(403, metav1.StatusReasonForbidden, "no"), false, "you may not list securityprofiles.confine.dev in namespace web"},
		"unauthorized":   {status(401, metav1.StatusReasonUnauthorized, "no"), false, "does not know who you are"},
		"not served":     {http.NotFound, false, "does not know securityprofiles.confine.dev"},
		"no answer":      {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, true, "did not answer in time"},
		"nonsense":       {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, true, "securityprofiles"},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "{")
		}, true, "securityprofiles"},
		"a page that repeats": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"kind":"SecurityProfileList","apiVersion":"confine.dev/v1alpha1","metadata":{"continue":"same"},"items":[]}`)
		}, true, "repeats a page"},
	} {
		t.Run(name, func(t *testing.T) {
			c := serve(t, tc.handler, 500*time.Millisecond)
			err := c.EachProfile(t.Context(), "web", func(*v1alpha1.SecurityProfile) {})
			var e *Error
			if !errors.As(err, &e) || e.Advice == "" || e.Again != tc.again || !strings.Contains(e.Error(), tc.want) {
				t.Errorf("%#v: %v, want %q and again %t", err, err, tc.want, tc.again)
			}
		})
	}
}

func TestAnInterruptionIsNoRefusal(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() }, time.Minute)
	if _, err := c.Profile(ctx, types.NamespacedName{Namespace: "web", Name: "nginx"}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	body := &boundedBody{ReadCloser: io.NopCloser(strings.NewReader("12345")), left: 4}
	if data, err := io.ReadAll(body); err == nil || string(data) != "1234" {
		t.Errorf("read %q, %v", data, err)
	}
	body = &boundedBody{ReadCloser: io.NopCloser(strings.NewReader("1234")), left: 5}
	if data, err := io.ReadAll(body); err != nil || string(data) != "1234" {
		t.Errorf("read %q, %v", data, err)
	}
}

func TestEveryRequestNamesItsPage(t *testing.T) {
	var asked []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path+"?"+r.URL.RawQuery)
		w.Header().Set("Content-Type", "application/json")
		next := ""
		if !r.URL.Query().Has("continue") {
			next = "2"
		}
		_, _ = fmt.Fprintf(w, `{"kind":"ProfileNodeList","apiVersion":"confine.dev/v1alpha1","metadata":{"continue":%q},"items":[{"metadata":{"name":"n"}}]}`, next)
	}, time.Minute)
	found := 0
	if err := c.EachNode(t.Context(), func(*v1alpha1.ProfileNode) { found++ }); err != nil {
		t.Fatal(err)
	}
	want := "/apis/confine.dev/v1alpha1/profilenodes?limit=100&timeout=1m0s /apis/confine.dev/v1alpha1/profilenodes?continue=2&limit=100&timeout=1m0s"
	if got := strings.Join(asked, " "); found != 2 || got != want {
		t.Errorf("%d nodes, asked %s", found, got)
	}
}
