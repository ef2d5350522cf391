package registry

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/reason"
)

// A push reads and writes: it needs one token, not one of each.
func TestPushAsksForOneToken(t *testing.T) {
	n, registry, service, repo, _ := tokenSetup(t)
	manifest, desc, blobs := testArtifact("{}")
	withdrawn := false
	n.host("registry.test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+registry.accepts {
			registry.ServeHTTP(w, r)
			return
		}
		switch r.Method {
		case http.MethodHead:
			w.WriteHeader(404)
		case http.MethodPost:
			// As a registry behind a TLS proxy calls itself.
			status(202, "Location", "http://registry.test/v2/up")(w, r)
			if withdrawn {
				registry.accepts, service.answer = "next-token", `{"token":"next-token"}`
			}
		default:
			w.WriteHeader(201)
		}
	}), publicIP)
	c := newTestClient(t, n.options, withPassword("bob", "pw"))
	if err := c.Push(t.Context(), repo.Tagged("v1"), blobs, manifest, desc); err != nil {
		t.Fatal(err)
	}
	want := []url.Values{{"account": {"x"}, "service": {"the registry"}, "scope": {"repository:team/web:pull,push"}}}
	if diff := cmp.Diff(want, service.asked); diff != "" {
		t.Errorf("token requests (-want +got):\n%s", diff)
	}
	withdrawn = true // between the two requests of an upload
	if err := c.Push(t.Context(), repo.Tagged("v1"), blobs, manifest, desc); err != nil {
		t.Errorf("a token that is withdrawn during an upload: %v", err)
	}
	if len(service.asked) != 2 {
		t.Errorf("%d token requests, want 2", len(service.asked))
	}
}

// A token that was refused is not sent again, also where there is no other.
func TestRefusedTokensAreForgotten(t *testing.T) {
	n, registry, service, repo, desc := tokenSetup(t)
	c := newTestClient(t, n.options)
	if _, err := c.Manifest(t.Context(), repo, desc.Digest); err != nil {
		t.Fatal(err)
	}
	registry.accepts, service.code, registry.tokens = "another", http.StatusForbidden, 0
	for range 2 {
		if _, err := c.Manifest(t.Context(), repo, desc.Digest); !errors.Is(err, reason.Unauthorized) {
			t.Errorf("got %v, want Unauthorized", err)
		}
	}
	if registry.tokens != 1 {
		t.Errorf("the refused token was sent %d times, want once", registry.tokens)
	}
}

func TestTokenServicesDoNotGetTheirSecretsRepeated(t *testing.T) {
	n, _, _, repo, desc := tokenSetup(t)
	n.host("auth.test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		w.WriteHeader(403)
		_, _ = w.Write(mustMarshal(map[string]any{"errors": []any{map[string]string{"message": "no " + r.Form.Get("refresh_token")}}}))
	}), otherIP)
	const secret = "s3cr3t-identity"
	c := newTestClient(t, n.options, func(o *Options) {
		o.DockerConfig = dockerConfigFile(t, `{"auths":{"registry.test":{"identitytoken":"`+secret+`"}}}`)
	})
	_, err := c.Manifest(t.Context(), repo, desc.Digest)
	if !errors.Is(err, reason.Unauthorized) || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "no [removed]") {
		t.Errorf("got %v, want Unauthorized with what was said, without the token", err)
	}
}

// A registry that is redirected away from and back to may be asking for
// whoever sent us back.
func TestChallengesAfterAWayBackAreNotAnswered(t *testing.T) {
	_, desc, _ := testArtifact("{}")
	n := newFakeNet(t, "registry.test", "cdn.test")
	registry := &recorder{next: func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/back" {
			status(401, "Www-Authenticate", `Basic realm="x"`)(w, r)
			return
		}
		redirect(307, "https://cdn.test/x")(w, r)
	}}
	n.host("registry.test", registry, publicIP)
	n.host("cdn.test", redirect(307, "https://registry.test/back"), otherIP)
	c := newTestClient(t, n.options, withPassword("bob", "pw"))
	_, err := c.Manifest(t.Context(), reference.Repository{Host: "registry.test", Path: "a"}, desc.Digest)
	if !errors.Is(err, reason.Unauthorized) || registry.asked != 2 || len(registry.secrets) != 0 {
		t.Errorf("got %v after %d requests with %q, want Unauthorized after 2 without a credential", err, registry.asked, registry.secrets)
	}
}

// The bytes count, not what a header says of them.
func TestDigestHeadersAreNotBelieved(t *testing.T) {
	manifest, desc, _ := testArtifact("{}")
	lying := func(contentType string, data []byte, says string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Docker-Content-Digest", says)
			body(contentType, data)(w, r)
		}
	}
	for name, says := range map[string]string{"another digest": subjectDigest.String(), "no digest": "x", "another algorithm": digest.SHA512.FromString("").String()} {
		t.Run(name, func(t *testing.T) {
			repo := serve(t, lying(ocispec.MediaTypeImageManifest, manifest, says))
			c := newTestClient(t)
			data, err := c.Manifest(t.Context(), repo, desc.Digest)
			checkRefusal(t, data, err, nil)
			got, err := c.Resolve(t.Context(), repo.Tagged("v1"))
			if err != nil || got.Digest != desc.Digest {
				t.Errorf("Resolve = %v, %v, want %s", got.Digest, err, desc.Digest)
			}
			payload := []byte("payload")
			data, err = newTestClient(t).Blob(t.Context(), serve(t, lying("", payload, says)), blobOf("", payload).Descriptor)
			checkRefusal(t, data, err, nil)
		})
	}
	t.Run("the digest that is wanted", func(t *testing.T) {
		other := []byte(`{"n":1}`)
		data, err := newTestClient(t).Manifest(t.Context(), serve(t, lying(ocispec.MediaTypeImageManifest, other, desc.Digest.String())), desc.Digest)
		checkRefusal(t, data, err, reason.DigestMismatch)
	})
}

// Without a length oras-go would ask again, by HEAD.
func TestManifestWithoutLengthIsAskedForOnce(t *testing.T) {
	manifest, desc, _ := testArtifact("{}")
	var log requestLog
	c := newTestClient(t, withLog(&log))
	repo := serve(t, chunked(ocispec.MediaTypeImageManifest, manifest))
	if got, err := c.Resolve(t.Context(), repo.Tagged("v1")); err != nil || got.Digest != desc.Digest {
		t.Errorf("Resolve = %v, %v, want %s", got.Digest, err, desc.Digest)
	}
	if got := methods(log.take()); !cmp.Equal(got, []string{"GET"}) {
		t.Errorf("requests %q, want one GET", got)
	}
}

// A registry that does not say how long a blob is gets it again.
func TestBlobOfUnknownLengthIsPushedAgain(t *testing.T) {
	var log requestLog
	c := newTestClient(t, withLog(&log))
	repo := newRegistry(t, true, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.WriteHeader(200) // without Content-Length
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	_, layer := pushTest(t, c, repo, "{}")
	if _, err := c.Blob(t.Context(), repo, layer); err != nil {
		t.Error(err)
	}
}
