package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
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
	service.answer = `{"access_token":"good-token"}` // the one name that the OAuth 2 variant has
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
		"an answer too long":   {`{"token":"good-token"}` + strings.Repeat(" ", maxTokenAnswer), 0, reason.Unauthorized},
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
			if err == nil || (name != "a token not accepted" && !strings.Contains(err.Error(), "auth.test")) {
				t.Errorf("%v does not name the token service", err)
			}
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

// Which challenge is answered, and what the token service is asked for.
func TestChallengesThatAreAnswered(t *testing.T) {
	const realm = `realm="https://auth.test/token"`
	type asked struct{ Service, Scope []string }
	many := strings.TrimSpace(strings.Repeat("repository:team/x:pull ", 200))
	tests := map[string]struct {
		challenges []string
		want       []asked // of the token service
		basic      bool    // the registry itself got the password
	}{
		"bearer":                 {[]string{`Bearer ` + realm + `,service="s",scope="repository:team/web:pull"`}, []asked{{[]string{"s"}, []string{"repository:team/web:pull"}}}, false},
		"without quotes, spaces": {[]string{`bearer Realm="https://auth.test/token" , service=s`}, []asked{{[]string{"s"}, []string{"repository:team/web:pull"}}}, false},
		"escapes":                {[]string{`Bearer ` + realm + `,service="a \"b\" \\"`}, []asked{{[]string{`a "b" \`}, []string{"repository:team/web:pull"}}}, false},
		"more may be wanted":     {[]string{`Bearer ` + realm + `,scope="repository:team/web:pull,push"`}, []asked{{nil, []string{"repository:team/web:pull,push"}}}, false},
		"basic first in one":     {[]string{`Basic realm="x", Bearer ` + realm}, []asked{{nil, []string{"repository:team/web:pull"}}}, false},
		"another header first":   {[]string{`Negotiate`, `Bearer ` + realm}, []asked{{nil, []string{"repository:team/web:pull"}}}, false},
		"the first of two":       {[]string{`Bearer ` + realm, `Bearer realm="https://evil.test/"`}, []asked{{nil, []string{"repository:team/web:pull"}}}, false},
		"far too many scopes":    {[]string{`Bearer ` + realm + `,scope="` + many + `"`}, []asked{{nil, []string{"repository:team/web:pull"}}}, false},
		"many scopes": {[]string{`Bearer ` + realm + `,scope="a:1:x a:2:x a:3:x a:4:x a:5:x"`}, []asked{{nil, []string{
			"a:1:x", "a:2:x", "a:3:x", "repository:team/web:pull",
		}}}, false},
		"basic":       {[]string{`Basic realm="x y"`}, nil, true},
		"unknown":     {[]string{`Negotiate`}, nil, false},
		"not closed":  {[]string{`Bearer realm="https://auth.test/token`}, nil, false},
		"much to say": {[]string{`Bearer x="` + strings.Repeat("x", maxChallengeBytes) + `",` + realm}, nil, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n, registry, service, repo, desc := tokenSetup(t)
			victim := &recorder{next: func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") == "" {
					for _, c := range test.challenges {
						w.Header().Add("Www-Authenticate", c)
					}
					w.WriteHeader(401)
					return
				}
				body(ocispec.MediaTypeImageManifest, registry.manifest)(w, r)
			}}
			n.host("registry.test", victim, publicIP)
			data, err := newTestClient(t, n.options, withPassword("bob", "pw")).Manifest(t.Context(), repo, desc.Digest)
			var want error
			if test.want == nil && !test.basic {
				want = reason.Unauthorized
			}
			checkRefusal(t, data, err, want)
			var got []asked
			for _, form := range service.asked {
				got = append(got, asked{form["service"], form["scope"]})
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("token requests (-want +got):\n%s", diff)
			}
			if basic := slices.ContainsFunc(victim.secrets, func(s string) bool { return strings.HasPrefix(s, "Authorization Basic ") }); basic != test.basic {
				t.Errorf("the registry got %q, want the password itself: %v", victim.secrets, test.basic)
			}
		})
	}
}

// A registry that asks for another scope each time must not fill the memory,
// nor cost a token each time.
func TestTokensAreKeptByWhatWeAskFor(t *testing.T) {
	n, registry, service, repo, desc := tokenSetup(t)
	scopes := 0
	n.host("registry.test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scopes++
		registry.challenge = fmt.Sprintf(`Bearer realm="%s",scope="odd:%d:pull"`, registry.realm, scopes)
		registry.ServeHTTP(w, r)
	}), publicIP)
	c := newTestClient(t, n.options)
	for range 5 {
		if _, err := c.Manifest(t.Context(), repo, desc.Digest); err != nil {
			t.Fatal(err)
		}
	}
	if len(service.asked) != 1 || registry.asked != 6 {
		t.Errorf("%d tokens for %d requests, want 1 for 6", len(service.asked), registry.asked)
	}
	registry.accepts = "another" // and nobody gives it out
	for range 5 {
		_, _ = c.Manifest(t.Context(), repo, desc.Digest)
	}
	// The token that was refused is not tried again for the scopes that were
	// asked for.
	if registry.asked != 16 {
		t.Errorf("%d requests, want 2 more for each of 5", registry.asked)
	}
	if n := len(c.tokens.values()); n != 1 {
		t.Errorf("%d tokens are kept, want 1", n)
	}
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
