package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/reason"
)

// tokenRegistry demands a bearer token for a scope and serves a manifest.
type tokenRegistry struct {
	realm, challenge string
	manifest         []byte
	accepts          string
	asked, tokens    int // requests, and those of them with a token
}

func (r *tokenRegistry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.asked++
	if req.Header.Get("Authorization") != "" {
		r.tokens++
	}
	if req.Header.Get("Authorization") != "Bearer "+r.accepts {
		challenge := r.challenge
		if challenge == "" {
			challenge = fmt.Sprintf(`Bearer realm="%s",service="the registry",scope="repository:team/web:pull"`, r.realm)
		}
		status(401, "Www-Authenticate", challenge)(w, req)
		return
	}
	body(ocispec.MediaTypeImageManifest, r.manifest)(w, req)
}

// tokenService gives out one token and remembers what it was asked.
type tokenService struct {
	answer string
	code   int
	asked  []url.Values
	basic  []string
}

func (s *tokenService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	s.asked = append(s.asked, r.Form)
	if user, password, ok := r.BasicAuth(); ok {
		s.basic = append(s.basic, user+":"+password)
	}
	if s.code != 0 {
		w.WriteHeader(s.code)
	}
	_, _ = w.Write([]byte(s.answer))
}

// tokenSetup is a public registry with a token service at another public host.
func tokenSetup(t *testing.T) (*fakeNet, *tokenRegistry, *tokenService, reference.Repository, ocispec.Descriptor) {
	t.Helper()
	manifest, desc, _ := testArtifact("{}")
	n := newFakeNet(t, "registry.test", "auth.test", "internal.test", "metadata.test")
	registry := &tokenRegistry{realm: "https://auth.test/token?account=x", manifest: manifest, accepts: "good-token"}
	service := &tokenService{answer: `{"token":"good-token","expires_in":300}`}
	n.host("registry.test", registry, publicIP)
	n.host("auth.test", service, otherIP)
	n.host("internal.test", service, privateIP)
	n.host("metadata.test", service, "169.254.169.254")
	return n, registry, service, reference.Repository{Host: "registry.test", Path: "team/web"}, desc
}

func TestBearerTokens(t *testing.T) {
	n, registry, service, repo, desc := tokenSetup(t)
	clock := newTestClock()
	c := newTestClient(t, n.options, withClock(clock), withPassword("bob", "pw"))
	get := func(want int) {
		t.Helper()
		if _, err := c.Manifest(t.Context(), repo, desc.Digest); err != nil {
			t.Fatalf("Manifest: %v", err)
		}
		if registry.asked != want {
			t.Errorf("%d requests to the registry, want %d", registry.asked, want)
		}
	}
	get(2)
	get(3) // the token is remembered
	if diff := cmp.Diff([]url.Values{{"account": {"x"}, "service": {"the registry"}, "scope": {"repository:team/web:pull"}}}, service.asked); diff != "" {
		t.Errorf("token request (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"bob:pw"}, service.basic); diff != "" {
		t.Errorf("credentials (-want +got):\n%s", diff)
	}
	clock.advance(5 * time.Minute)
	get(5) // it has expired
	registry.accepts, service.answer = "next-token", `{"access_token":"next-token"}`
	get(7) // it was withdrawn
	if _, err := c.Manifest(t.Context(), reference.Repository{Host: "registry.test", Path: "team/other"}, desc.Digest); err != nil {
		t.Fatal(err)
	}
	if got := service.asked[len(service.asked)-1]["scope"]; !cmp.Equal(got, []string{"repository:team/other:pull", "repository:team/web:pull"}) {
		t.Errorf("scopes of another repository: %q, want its own and the one that was asked for", got)
	}
}

func TestIdentityTokenIsExchanged(t *testing.T) {
	n, _, service, repo, desc := tokenSetup(t)
	c := newTestClient(t, n.options, func(o *Options) {
		o.DockerConfig = dockerConfigFile(t, `{"auths":{"registry.test":{"auth":"Ym9iOg==","identitytoken":"identity"}}}`)
	})
	if _, err := c.Manifest(t.Context(), repo, desc.Digest); err != nil {
		t.Fatal(err)
	}
	want := []url.Values{{
		"account": {"x"}, "client_id": {"confine"}, "grant_type": {"refresh_token"}, "refresh_token": {"identity"},
		"scope": {"repository:team/web:pull"}, "service": {"the registry"},
	}}
	if diff := cmp.Diff(want, service.asked); diff != "" {
		t.Errorf("token request (-want +got):\n%s", diff)
	}
}

func TestOnlyTheRegistrysOwnCredentialIsUsed(t *testing.T) {
	n, _, service, repo, desc := tokenSetup(t)
	c := newTestClient(t, n.options, func(o *Options) {
		o.DockerConfig = dockerConfigFile(t, `{"auths":{"auth.test":{"auth":"Ym9iOnB3"},"other.test":{"auth":"Ym9iOnB3"}}}`)
	})
	if _, err := c.Manifest(t.Context(), repo, desc.Digest); err != nil {
		t.Fatal(err)
	}
	if len(service.basic) != 0 {
		t.Errorf("the token service got %q, want an anonymous request", service.basic)
	}
}

func TestTokenServicesThatAreRefused(t *testing.T) {
	tests := map[string]struct{ realm, says string }{
		"http":             {"http://auth.test/token", "https to http"},
		"http on loopback": {"http://127.0.0.1:1/token", "https to http"},
		"another scheme":   {"file:///etc/passwd", "no host"},
		"relative":         {"/token", "no host"},
		"missing":          {"", "no host"},
		"with user name":   {"https://x:y@auth.test/", "user name"},
		"no URL":           {"https://[::1", "no URL"},
		"endless":          {"https://auth.test/" + strings.Repeat("x", 3000), "no URL"},
		"metadata":         {"https://169.254.169.254/token", "metadata"},
		"metadata by name": {"https://metadata.test/token", "metadata"},
		"private":          {"https://internal.test/token", "private"},
		"loopback":         {"https://127.0.0.1/token", "loopback"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n, registry, service, repo, desc := tokenSetup(t)
			registry.realm = test.realm
			data, err := newTestClient(t, n.options, withPassword("bob", "pw")).Manifest(t.Context(), repo, desc.Digest)
			if data != nil || err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want a refusal that says %q", err, test.says)
			}
			if len(service.asked) != 0 {
				t.Errorf("the token service was asked: %v", service.asked)
			}
		})
	}
}

func TestTokenServicesThatMisbehave(t *testing.T) {
	tests := map[string]struct {
		answer string
		code   int
		want   error
	}{
		"no JSON":              {"token", 0, reason.Unauthorized},
		"no token":             {"{}", 0, reason.Unauthorized},
		"an endless answer":    {`{"token":"` + strings.Repeat("x", maxTokenAnswer) + `"}`, 0, reason.Unauthorized},
		"a token with newline": {`{"token":"a\r\nX-Evil: b"}`, 0, reason.Unauthorized},
		"a token too long":     {`{"token":"` + strings.Repeat("x", maxTokenBytes+1) + `"}`, 0, reason.Unauthorized},
		"a token not accepted": {`{"token":"bad-token"}`, 0, reason.Unauthorized},
		"401":                  {"", 401, reason.Unauthorized},
		"404":                  {"", 404, reason.Unauthorized},
		"429":                  {"", 429, reason.RateLimited},
		"503":                  {"", 503, reason.RegistryUnavailable},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n, registry, service, repo, desc := tokenSetup(t)
			service.answer, service.code = test.answer, test.code
			data, err := newTestClient(t, n.options, withPassword("bob", "pw")).Manifest(t.Context(), repo, desc.Digest)
			checkRefusal(t, data, err, test.want)
			if err != nil && strings.Contains(err.Error(), "bad-token") {
				t.Errorf("%v repeats the token", err)
			}
			if n := len(service.asked); n > 4 {
				t.Errorf("the token service was asked %d times", n)
			}
			if used := registry.tokens > 0; used != (name == "a token not accepted") {
				t.Errorf("%d requests to the registry carried a token", registry.tokens)
			}
		})
	}
	t.Run("redirects", func(t *testing.T) {
		n, _, service, repo, desc := tokenSetup(t)
		n.host("auth.test", redirect(307, "https://internal.test/token"), otherIP)
		_, err := newTestClient(t, n.options, withPassword("bob", "pw")).Manifest(t.Context(), repo, desc.Digest)
		if !errors.Is(err, reason.Unauthorized) || len(service.asked) != 0 {
			t.Errorf("got %v and %d requests behind the redirect, want a refusal and none", err, len(service.asked))
		}
	})
}

// A host that the registry redirects to must not get a credential by asking.
func TestChallengesOfOtherHostsAreNotAnswered(t *testing.T) {
	_, desc, _ := testArtifact("{}")
	n := newFakeNet(t, "registry.test", "cdn.test")
	n.host("registry.test", redirect(307, "https://cdn.test/x"), publicIP)
	for name, challenge := range map[string]string{"basic": `Basic realm="x"`, "bearer": `Bearer realm="https://cdn.test/token"`} {
		cdn := &recorder{next: status(401, "Www-Authenticate", challenge)}
		n.host("cdn.test", cdn, otherIP)
		_, err := newTestClient(t, n.options, withPassword("bob", "pw")).Manifest(t.Context(), reference.Repository{Host: "registry.test", Path: "a"}, desc.Digest)
		if !errors.Is(err, reason.Unauthorized) || cdn.asked != 1 || len(cdn.secrets) != 0 {
			t.Errorf("%s: %v, asked %d times, got %q, want Unauthorized, once, nothing", name, err, cdn.asked, cdn.secrets)
		}
	}
}

func TestLoopbackTokenService(t *testing.T) {
	manifest, desc, _ := testArtifact("{}")
	service := &tokenService{answer: `{"token":"good-token"}`}
	realm := serve(t, service)
	registry := &tokenRegistry{realm: "http://" + realm.Host + "/token", manifest: manifest, accepts: "good-token"}
	data, err := newTestClient(t).Manifest(t.Context(), serve(t, registry), desc.Digest)
	checkRefusal(t, data, err, nil)

	registry.realm = "http://auth.test/token"
	data, err = newTestClient(t).Manifest(t.Context(), serve(t, registry), desc.Digest)
	checkRefusal(t, data, err, reason.Unauthorized)
}

func TestParseChallenges(t *testing.T) {
	tests := map[string]struct {
		headers []string
		want    map[string]map[string]string
	}{
		"none":         {nil, map[string]map[string]string{}},
		"basic":        {[]string{`Basic realm="x y"`}, map[string]map[string]string{"basic": {"realm": "x y"}}},
		"bearer":       {[]string{`bearer Realm="https://a/b?c=d,e",service=s , scope="a b"`}, map[string]map[string]string{"bearer": {"realm": "https://a/b?c=d,e", "service": "s", "scope": "a b"}}},
		"two in one":   {[]string{`Basic realm="b", Bearer realm="c"`}, map[string]map[string]string{"basic": {"realm": "b"}, "bearer": {"realm": "c"}}},
		"two headers":  {[]string{`Negotiate`, `Bearer realm="c"`}, map[string]map[string]string{"negotiate": {}, "bearer": {"realm": "c"}}},
		"escapes":      {[]string{`Bearer realm="a\"b\\c"`}, map[string]map[string]string{"bearer": {"realm": `a"b\c`}}},
		"twice":        {[]string{`Bearer realm="a",realm="b"`, `Bearer realm="c"`}, map[string]map[string]string{"bearer": {"realm": "a"}}},
		"not closed":   {[]string{`Bearer realm="a`}, map[string]map[string]string{"bearer": {}}},
		"no value":     {[]string{`Bearer realm=`}, map[string]map[string]string{"bearer": {}}},
		"odd bytes":    {[]string{"\x00\xff", `="x"`, "Bearer \x7f"}, map[string]map[string]string{"bearer": {}}},
		"far too long": {[]string{"Bearer realm=" + strings.Repeat("x", maxChallengeBytes)}, map[string]map[string]string{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, parseChallenges(test.headers)); diff != "" {
				t.Errorf("challenges (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzChallenges(f *testing.F) {
	f.Add(`Bearer realm="https://auth.test/token",service="x",scope="repository:a:pull", Basic realm=x`)
	f.Fuzz(func(t *testing.T, header string) {
		for scheme, params := range parseChallenges([]string{header}) {
			if scheme == "" || len(params) > len(header) {
				t.Errorf("scheme %q with %d parameters", scheme, len(params))
			}
		}
	})
}

func FuzzClean(f *testing.F) {
	f.Add("a?token=secret secret \x00\u202e", "secret")
	f.Fuzz(func(t *testing.T, text, secret string) {
		got := clean(text, []string{secret})
		if len(got) > maxShownText+len("…") || strings.ContainsAny(got, "\r\n\x00\x1b") {
			t.Errorf("clean(%q) = %q", text, got)
		}
		if _, err := json.Marshal(got); err != nil {
			t.Errorf("clean(%q): %v", text, err)
		}
	})
}
