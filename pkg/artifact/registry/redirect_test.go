package registry

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/reason"
)

// redirect answers with a redirect to location.
func redirect(code int, location string) http.HandlerFunc { return status(code, "Location", location) }

// recorder remembers the secrets that requests carried.
type recorder struct {
	next    http.HandlerFunc
	secrets []string
	asked   int
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.asked++
	for _, name := range []string{"Authorization", "Cookie", "Referer"} {
		if v := req.Header.Get(name); v != "" {
			r.secrets = append(r.secrets, name+" "+v)
		}
	}
	r.next(w, req)
}

const (
	publicIP  = "203.0.113.7"
	otherIP   = "198.51.100.7"
	privateIP = "10.1.2.3"
)

func TestRedirectsThatAreFollowed(t *testing.T) {
	payload := []byte("payload")
	desc := blobOf("", payload).Descriptor
	n := newFakeNet(t, "registry.test", "cdn.test", "sub.registry.test")
	cdn := &recorder{next: body("application/octet-stream", payload)}
	sub := &recorder{next: redirect(302, "https://registry.test/back")}
	port := &recorder{next: redirect(307, "https://sub.registry.test/x")}
	back := &recorder{next: redirect(303, "//cdn.test/blob?X-Signature=secret#fragment")}
	registry := &recorder{next: demandBasic(func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "secret"})
		redirect(301, "https://registry.test:8443/other-port")(w, r)
	})}
	n.host("cdn.test", cdn, otherIP)
	n.host("sub.registry.test", sub, publicIP)
	n.host("registry.test:8443", port, publicIP)
	n.host("registry.test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/back" {
			back.ServeHTTP(w, r)
			return
		}
		registry.ServeHTTP(w, r)
	}), publicIP)

	c := newTestClient(t, n.options, withPassword("bob", "pw"))
	data, err := c.Blob(t.Context(), reference.Repository{Host: "registry.test", Path: "a"}, desc)
	checkRefusal(t, data, err, nil)
	if len(registry.secrets) != 1 || !strings.HasPrefix(registry.secrets[0], "Authorization Basic ") {
		t.Errorf("the registry itself got %q, want its credential once", registry.secrets)
	}
	for name, r := range map[string]*recorder{"cdn": cdn, "subdomain": sub, "other port": port, "registry after the way back": back} {
		if r.asked != 1 || len(r.secrets) != 0 {
			t.Errorf("%s was asked %d times and got %q, want once and nothing", name, r.asked, r.secrets)
		}
	}
}

func TestRedirectWithinTheRegistryKeepsTheCredential(t *testing.T) {
	payload := []byte("payload")
	n := newFakeNet(t, "registry.test")
	n.host("registry.test", (demandBasic(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			body("", payload)(w, r)
			return
		}
		redirect(308, "/elsewhere")(w, r)
	})), publicIP)
	c := newTestClient(t, n.options, withPassword("bob", "pw"))
	data, err := c.Blob(t.Context(), reference.Repository{Host: "registry.test", Path: "a"}, blobOf("", payload).Descriptor)
	checkRefusal(t, data, err, nil)
}

// demandBasic demands a credential, whichever, before next answers.
func demandBasic(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			status(401, "Www-Authenticate", `Basic realm="registry"`)(w, r)
			return
		}
		next(w, r)
	}
}

func TestRedirectsThatAreRefused(t *testing.T) {
	_, desc, _ := testArtifact("{}")
	victim := &recorder{next: status(200)}
	loopback := httptest.NewServer(victim)
	t.Cleanup(loopback.Close)
	tests := map[string]struct {
		registry string // its address
		location string
		says     string
	}{
		"a loop":                       {publicIP, "https://registry.test/v2/again", "redirects"},
		"to http":                      {publicIP, "http://cdn.test/x", "https to http"},
		"to http on loopback":          {publicIP, loopback.URL, "https to http"},
		"to another scheme":            {publicIP, "ftp://cdn.test/x", "neither https nor http"},
		"to a file":                    {publicIP, "file:///etc/passwd", "no host"},
		"with a user name":             {publicIP, "https://user:pw@cdn.test/x", "user name"},
		"without Location":             {publicIP, "", "Location"},
		"with a broken one":            {publicIP, "https://[::1", "no URL"},
		"with an endless one":          {publicIP, "/" + strings.Repeat("x", 9<<10), "Location"},
		"to loopback":                  {publicIP, strings.Replace(loopback.URL, "http", "https", 1), "loopback"},
		"to metadata":                  {publicIP, "https://169.254.169.254/latest", "metadata"},
		"to metadata, mapped":          {publicIP, "https://[::ffff:169.254.169.254]/", "metadata"},
		"to metadata by name":          {publicIP, "https://metadata.test/", "metadata"},
		"to a private address":         {publicIP, "https://10.9.9.9/", "private"},
		"to a private host":            {publicIP, "https://internal.test/", "private"},
		"private to loopback":          {privateIP, strings.Replace(loopback.URL, "http", "https", 1), "loopback"},
		"private to metadata":          {privateIP, "https://metadata.test/", "metadata"},
		"private to public to private": {privateIP, "https://hop.test/", "private"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newFakeNet(t, "registry.test", "metadata.test", "internal.test", "hop.test", "10.9.9.9")
			n.host("registry.test", redirect(302, test.location), test.registry)
			n.host("metadata.test", victim, "169.254.169.254")
			n.host("internal.test", victim, "10.9.9.9")
			n.host("10.9.9.9", victim, "10.9.9.9")
			n.host("hop.test", redirect(302, "https://internal.test/"), publicIP)
			if strings.HasPrefix(test.location, "http") {
				n.hosts[strings.TrimPrefix(loopback.URL, "http://")] = fakeHost{ips: []string{"127.0.0.1"}, server: loopback.Listener.Addr().String()}
			}
			data, err := newTestClient(t, n.options).Manifest(t.Context(), reference.Repository{Host: "registry.test", Path: "a"}, desc.Digest)
			checkRefusal(t, data, err, reason.RegistryUnavailable)
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v does not say %q", err, test.says)
			}
			if strings.Contains(err.Error(), "pw") {
				t.Errorf("%v repeats a password", err)
			}
		})
	}
	if victim.asked != 0 {
		t.Errorf("hosts that are off limits got %d requests", victim.asked)
	}
}

func TestRedirectFromPrivateToPrivate(t *testing.T) {
	manifest, desc, _ := testArtifact("{}")
	n := newFakeNet(t, "registry.test", "storage.test")
	n.host("registry.test", redirect(302, "https://storage.test/x"), privateIP)
	n.host("storage.test", body(ocispec.MediaTypeImageManifest, manifest), "192.168.1.1")
	data, err := newTestClient(t, n.options).Manifest(t.Context(), reference.Repository{Host: "registry.test", Path: "a"}, desc.Digest)
	checkRefusal(t, data, err, nil)
}

// A connection that was opened because a reference named its host must not be
// used when another registry sends us there.
func TestPooledConnectionsAreNotShared(t *testing.T) {
	manifest, desc, _ := testArtifact("{}")
	n := newFakeNet(t, "evil.test", "internal.test")
	internal := &recorder{next: body(ocispec.MediaTypeImageManifest, manifest)}
	n.host("internal.test", internal, privateIP)
	n.host("evil.test", redirect(302, "https://internal.test/v2/a/manifests/x"), publicIP)
	c := newTestClient(t, n.options)
	if _, err := c.Manifest(t.Context(), reference.Repository{Host: "internal.test", Path: "a"}, desc.Digest); err != nil {
		t.Fatal(err)
	}
	_, err := c.Manifest(t.Context(), reference.Repository{Host: "evil.test", Path: "a"}, desc.Digest)
	if !errors.Is(err, reason.RegistryUnavailable) || internal.asked != 1 {
		t.Errorf("got %v and %d requests to the private host, want a refusal and 1", err, internal.asked)
	}
	if diff := cmp.Diff([]string{privateIP + ":443", publicIP + ":443"}, n.dialed); diff != "" {
		t.Errorf("connections (-want +got):\n%s", diff)
	}
}

func TestConnectionsAreKept(t *testing.T) {
	manifest, desc, _ := testArtifact("{}")
	n := newFakeNet(t, "registry.test")
	handler, _ := inOrder(status(404), status(500), body(ocispec.MediaTypeImageManifest, manifest))
	n.host("registry.test", handler, publicIP)
	c := newTestClient(t, n.options)
	repo := reference.Repository{Host: "registry.test", Path: "a"}
	for range 4 {
		_, _ = c.Manifest(t.Context(), repo, desc.Digest)
	}
	if !slices.Equal(n.dialed, []string{publicIP + ":443"}) {
		t.Errorf("connections %q, want one for all requests", n.dialed)
	}
}

func TestUnknownAuthorityIsRefused(t *testing.T) {
	_, desc, _ := testArtifact("{}")
	n := newFakeNet(t, "registry.test", "other.test")
	victim := &recorder{next: status(200)}
	n.host("registry.test", victim, publicIP)
	n.host("wrong.test", victim, publicIP)
	for name, change := range map[string]func(*Options){
		"registry.test": func(o *Options) { o.dial = n.dial }, // without the CA file
		"wrong.test":    n.options,                            // not in the certificate
	} {
		_, err := newTestClient(t, change).Manifest(t.Context(), reference.Repository{Host: name, Path: "a"}, desc.Digest)
		if !errors.Is(err, reason.RegistryUnavailable) || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: %v, want the certificate refused", name, err)
		}
	}
	if victim.asked != 0 {
		t.Error("a request was sent over a connection that is not trusted")
	}
}
