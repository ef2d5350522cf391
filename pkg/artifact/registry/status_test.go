package registry

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/reason"
)

// status answers with code and, where given, header pairs.
func status(code int, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
	}
}

// inOrder answers the first request with the first handler and so on; the last
// one answers all further requests.
func inOrder(handlers ...http.HandlerFunc) (http.HandlerFunc, *atomic.Int64) {
	var n atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		i := int(n.Add(1)) - 1
		handlers[min(i, len(handlers)-1)](w, r)
	}, &n
}

func TestStatuses(t *testing.T) {
	_, desc, _ := testArtifact("{}")
	inTwoMinutes := newTestClock().Now().Add(2 * time.Minute).Format(http.TimeFormat)
	tests := map[string]struct {
		handler    http.HandlerFunc
		want       error
		requests   int64
		retryAfter time.Duration
		slept      time.Duration
	}{
		"401 without challenge": {status(401), reason.Unauthorized, 1, 0, 0},
		"403":                   {status(403), reason.Unauthorized, 1, 0, 0},
		"404":                   {status(404), reason.ArtifactNotFound, 1, 0, 0},
		"400":                   {status(400), reason.RegistryUnavailable, 1, 0, 0},
		"204":                   {status(204), reason.RegistryUnavailable, 1, 0, 0},
		"501":                   {status(501), reason.RegistryUnavailable, 1, 0, 0},
		"500":                   {status(500), reason.RegistryUnavailable, 4, 0, 1750 * time.Millisecond},
		"503 with seconds":      {status(503, "Retry-After", "7"), reason.RegistryUnavailable, 4, 7 * time.Second, 22750 * time.Millisecond},
		"503 with hours":        {status(503, "Retry-After", "7200"), reason.RegistryUnavailable, 1, 2 * time.Hour, 0},
		"429":                   {status(429), reason.RateLimited, 4, 0, 1750 * time.Millisecond},
		"429 with seconds":      {status(429, "Retry-After", "3600"), reason.RateLimited, 1, time.Hour, 0},
		"429 with a date":       {status(429, "Retry-After", inTwoMinutes), reason.RateLimited, 1, 2 * time.Minute, 0},
		"429 with a past date":  {status(429, "Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT"), reason.RateLimited, 4, 0, 1750 * time.Millisecond},
		"429 with nonsense":     {status(429, "Retry-After", "-1"), reason.RateLimited, 4, 0, 1750 * time.Millisecond},
		"429 with eternity":     {status(429, "Retry-After", "9223372036854775807"), reason.RateLimited, 1, 365 * 24 * time.Hour, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			handler, n := inOrder(test.handler)
			clock := newTestClock()
			data, err := newTestClient(t, withClock(clock)).Manifest(t.Context(), serve(t, handler), desc.Digest)
			checkRefusal(t, data, err, test.want)
			if e, _ := reason.Of(err); e == nil || e.RetryAfter != test.retryAfter {
				t.Errorf("RetryAfter of %+v, want %s", e, test.retryAfter)
			}
			if n.Load() != test.requests {
				t.Errorf("%d requests, want %d", n.Load(), test.requests)
			}
			if clock.total() != test.slept {
				t.Errorf("waited %s, want %s", clock.total(), test.slept)
			}
		})
	}
}

func TestTransientFailuresPass(t *testing.T) {
	manifest, desc, _ := testArtifact("{}")
	good := body(ocispec.MediaTypeImageManifest, manifest)
	closes := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	tests := map[string]struct {
		first http.HandlerFunc
		least time.Duration // that is waited before the second request
	}{
		"500":                   {status(500), 0},
		"429 for five seconds":  {status(429, "Retry-After", "5"), 5 * time.Second},
		"the connection breaks": {closes, 0},
		"the body is cut short": {truncated(ocispec.MediaTypeImageManifest, manifest), 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			handler, n := inOrder(test.first, good)
			clock := newTestClock()
			data, err := newTestClient(t, withClock(clock)).Manifest(t.Context(), serve(t, handler), desc.Digest)
			checkRefusal(t, data, err, nil)
			if n.Load() != 2 || clock.total() < test.least {
				t.Errorf("%d requests after %s, want 2 after at least %s", n.Load(), clock.total(), test.least)
			}
		})
	}
}

func TestRateLimitHoldsForTheWholeRegistry(t *testing.T) {
	manifest, desc, _ := testArtifact("{}")
	handler, _ := inOrder(status(429, "Retry-After", "20"), body(ocispec.MediaTypeImageManifest, manifest))
	repo := serve(t, handler)
	clock := newTestClock()
	c := newTestClient(t, withClock(clock), func(o *Options) { o.MaxAttempts = 2 })
	// The first request's own pause is over at once on the test's clock: stop
	// the clock there, as another request would find it.
	site := c.site(endpoint{scheme: "http", host: repo.Host, loopback: true})
	if _, err := c.Manifest(t.Context(), repo, desc.Digest); err != nil {
		t.Fatal(err)
	}
	clock.advance(-20 * time.Second)
	if wait := site.wait(clock.Now()); wait <= 0 {
		t.Fatalf("the registry may be asked again after %s, want a pause", wait)
	}
	before := clock.total()
	if _, err := c.Manifest(t.Context(), repo, desc.Digest); err != nil {
		t.Fatal(err)
	}
	if clock.total() == before {
		t.Error("a second request did not wait for the registry's pause")
	}
}

func TestRequestsAtOneTimeAreBounded(t *testing.T) {
	manifest, desc, _ := testArtifact("{}")
	var now, most atomic.Int64
	full := make(chan struct{})
	repo := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		running := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); running > old && !most.CompareAndSwap(old, running); old = most.Load() {
		}
		if running == 3 {
			close(full)
		}
		select {
		case <-full:
		case <-r.Context().Done():
		}
		body(ocispec.MediaTypeImageManifest, manifest)(w, r)
	}))
	c := newTestClient(t, func(o *Options) { o.PerHost = 3 })
	var all sync.WaitGroup
	errs := make(chan error, 12)
	// The first three meet in the handler; were there no bound, running would
	// go beyond 3 with the rest.
	for range 3 {
		all.Go(func() { _, err := c.Manifest(t.Context(), repo, desc.Digest); errs <- err })
	}
	<-full
	for range 9 {
		all.Go(func() { _, err := c.Manifest(t.Context(), repo, desc.Digest); errs <- err })
	}
	all.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	if most.Load() != 3 {
		t.Errorf("%d requests at one time, want 3", most.Load())
	}
}

func TestErrorBodiesAreCleaned(t *testing.T) {
	_, desc, _ := testArtifact("{}")
	const password = "s3cr3t-p4ssw0rd"
	said := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "" {
				w.Header().Set("Www-Authenticate", `Basic realm="x"`)
				w.WriteHeader(401)
				return
			}
			w.WriteHeader(403)
			text := strings.ReplaceAll(text, "AUTH", r.Header.Get("Authorization"))
			_, _ = w.Write(mustMarshal(map[string]any{"errors": []any{map[string]string{"code": "DENIED", "message": text}}}))
		}
	}
	tests := map[string]struct{ text, want string }{
		"plain":              {"no access", "HTTP 403: DENIED: no access"},
		"control characters": {"a\x00b\x1b[31mc\nd\u202ee", "HTTP 403: DENIED: a b [31mc d e"},
		"the password":       {"user bob has " + password, "HTTP 403: DENIED: user bob has [removed]"},
		"the header":         {"you sent AUTH", "HTTP 403: DENIED: you sent Basic [removed]"},
		"a signed URL":       {"see https://cdn.example/x?X-Signature=abc&y=1 now", "HTTP 403: DENIED: see https://cdn.example/x?[removed] now"},
		"long":               {strings.Repeat("x", 1000), "HTTP 403: DENIED: " + strings.Repeat("x", maxShownText-len("DENIED: ")) + "…"},
		"too long to read":   {strings.Repeat("x", 10_000), "HTTP 403"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := newTestClient(t, withPassword("bob", password))
			_, err := c.Manifest(t.Context(), serve(t, said(test.text)), desc.Digest)
			e, ok := reason.Of(err)
			if !ok {
				t.Fatalf("%v is no reason.Error", err)
			}
			if diff := cmp.Diff(test.want, e.Detail); diff != "" {
				t.Errorf("detail (-want +got):\n%s", diff)
			}
			if strings.Contains(fmt.Sprintf("%+v %v", e, errors.Unwrap(e)), password) {
				t.Error("the error holds the password")
			}
		})
	}
}
