package registry

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/confine-dev/confine/pkg/reason"
)

const (
	maxTokenAnswer = 64 << 10
	maxTokenBytes  = 16 << 10
	maxRealmBytes  = 2 << 10
	maxScopeBytes  = 1 << 10
	maxScopes      = 4
	// defaultTokenLife is what the token specification says where the answer
	// does not (https://distribution.github.io/distribution/spec/auth/token/).
	defaultTokenLife = time.Minute
	maxTokenLife     = time.Hour
	tokenMargin      = 10 * time.Second
)

// newAuth returns oras-go's client that answers the challenges of one
// registry. It asks us for credentials, keeps tokens with us, and sends all it
// sends through our transport.
func (c *Client) newAuth(e endpoint) *auth.Client {
	return &auth.Client{
		Client: &http.Client{
			Transport:     transport{},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		Credential: c.credential,
		Cache:      tokenCache{client: c, endpoint: e},
		ClientID:   "confine",
		// Empty, not nil: oras-go would resolve the name itself, and beforehand.
		// Ours are checked when it is dialled.
		BlockedRealmPrefixes: []netip.Prefix{},
	}
}

// credential implements auth.CredentialFunc. oras-go asks for the registry's
// own, never for that of a token service.
func (c *Client) credential(ctx context.Context, host string) (auth.Credential, error) {
	x, err := exchangeOf(ctx)
	if err != nil {
		return auth.EmptyCredential, err
	}
	cred, err := c.creds.lookup(ctx, host)
	if err != nil {
		return auth.EmptyCredential, lasting(reason.Unauthorized, x.object, "%w", err)
	}
	x.secrets = append(x.secrets, cred.Password, cred.IdentityToken, cred.RegistryToken)
	return auth.Credential{
		Username: cred.Username, Password: cred.Password,
		RefreshToken: cred.IdentityToken, AccessToken: cred.RegistryToken,
	}, nil
}

// tokenKey names what a token is for: the scopes that requests ask for, as
// oras-go has them, not those of the challenge, which some registries word
// differently each time.
type tokenKey struct {
	endpoint endpoint
	scopes   string
}

type token struct {
	scheme  auth.Scheme
	value   string
	expires time.Time // zero: never
}

// tokenCache implements auth.Cache. oras-go's own grows with whatever scopes a
// registry asks for, and knows nothing of time.
type tokenCache struct {
	client   *Client
	endpoint endpoint
}

func (t tokenCache) key(ctx context.Context, host string) tokenKey {
	return tokenKey{t.endpoint, strings.Join(auth.GetAllScopesForHost(ctx, host), " ")}
}

func (t tokenCache) get(ctx context.Context, host string) (tokenKey, token, bool) {
	key := t.key(ctx, host)
	kept, ok := t.client.tokens.get(key)
	if !ok || (!kept.expires.IsZero() && !t.client.opts.Now().Before(kept.expires)) {
		return key, token{}, false
	}
	return key, kept, true
}

// GetScheme implements auth.Cache.
func (t tokenCache) GetScheme(ctx context.Context, host string) (auth.Scheme, error) {
	_, kept, ok := t.get(ctx, host)
	if !ok {
		return auth.SchemeUnknown, errdef.ErrNotFound
	}
	return kept.scheme, nil
}

// GetToken implements auth.Cache.
func (t tokenCache) GetToken(ctx context.Context, host string, scheme auth.Scheme, scopes string) (string, error) {
	key, kept, ok := t.get(ctx, host)
	// With the scopes of a challenge it is asked for another one than was just
	// refused, and there is none.
	if !ok || kept.scheme != scheme || (scheme == auth.SchemeBearer && scopes != key.scopes) {
		return "", errdef.ErrNotFound
	}
	return kept.value, nil
}

// Set implements auth.Cache.
func (t tokenCache) Set(ctx context.Context, host string, scheme auth.Scheme, _ string, fetch func(context.Context) (string, error)) (string, error) {
	x, err := exchangeOf(ctx)
	if err != nil {
		return "", err
	}
	key := t.key(ctx, host)
	t.client.tokens.remove(key)
	value, err := fetch(ctx)
	if err != nil {
		return "", err
	}
	if len(value) > maxTokenBytes || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", passing(reason.Unauthorized, x.object, "the token of %s cannot be used in a header", cmp.Or(x.tokenHost, t.endpoint.host))
	}
	t.client.tokens.put(key, token{scheme: scheme, value: value, expires: x.tokenExpires})
	return value, nil
}

// authorizationSecrets are the parts of an Authorization header that must not
// be repeated anywhere.
func authorizationSecrets(value string) []string {
	scheme, secret, found := strings.Cut(value, " ")
	if !found {
		return nil
	}
	if scheme != "Basic" {
		return []string{secret}
	}
	secrets := []string{secret}
	if plain, err := base64.StdEncoding.DecodeString(secret); err == nil {
		_, password, _ := strings.Cut(string(plain), ":")
		secrets = append(secrets, string(plain), password)
	}
	return secrets
}

// readChallenge reduces the challenges of an answer to the one to be answered,
// in the one form that oras-go reads: it looks at the first scheme of the first
// header only. The token service is judged here already, where that can be said
// plainly.
func (x *exchange) readChallenge(resp *http.Response) error {
	challenges := parseChallenges(resp.Header.Values("Www-Authenticate"))
	resp.Header.Del("Www-Authenticate")
	params, ok := challenges["bearer"]
	if !ok {
		if _, ok := challenges["basic"]; ok {
			resp.Header.Set("Www-Authenticate", "Basic")
		}
		return nil
	}
	if realm := params["realm"]; realm != "" {
		u, err := url.Parse(realm)
		if err != nil || len(realm) > maxRealmBytes {
			return x.refusedService(errors.New("its address is no URL"))
		}
		if err := checkScheme(x.site.endpoint.scheme, u); err != nil {
			return x.refusedService(err)
		}
	}
	resp.Header.Set("Www-Authenticate", "Bearer realm="+strconv.Quote(params["realm"])+
		",service="+strconv.Quote(params["service"])+",scope="+strconv.Quote(boundedScopes(params["scope"])))
	return nil
}

// boundedScopes returns the scopes that are asked for besides our own, as some
// registries call the repository by another name there.
func boundedScopes(asked string) string {
	if len(asked) > maxScopeBytes {
		return ""
	}
	scopes := strings.Fields(asked)
	return strings.Join(scopes[:min(len(scopes), maxScopes-1)], " ")
}

func (x *exchange) refusedService(err error) error {
	return lasting(reason.Unauthorized, x.object, "the token service that %s names is refused: %w", x.site.endpoint.host, err)
}

// askTokenService sends a request for a token. The credential is the
// registry's own, and goes where the registry says over TLS, as the token
// specification has it; the service must lie where the registry may send us,
// and must not send it on.
func (x *exchange) askTokenService(req *http.Request) (*http.Response, error) {
	if err := checkScheme(x.site.endpoint.scheme, req.URL); err != nil {
		return nil, x.refusedService(err)
	}
	x.refused, x.tokenHost = nil, req.URL.Host
	// A state of its own: what the service's address is must not count for the
	// registry's.
	h := &hops{exchange: x, from: x.from, began: true}
	ctx, clone := req.Context(), req.Clone(req.Context())
	clone.Header.Set("User-Agent", x.client.opts.UserAgent)
	resp, err := h.roundTrip(ctx, clone)
	if err != nil {
		return nil, networkFailure(ctx, x.object, req.URL.Host, err)
	}
	resp.Body = pace(resp.Body, x.client.limits, x.cut)
	defer discard(resp.Body)
	if isRedirect(resp.StatusCode) {
		return nil, x.refusedService(errors.New("it redirects, and credentials are not sent on"))
	}
	if resp.StatusCode != http.StatusOK {
		f := statusFailure(resp, x.object, x.secrets, x.client.opts.Now())
		f.err.Detail = "token service " + req.URL.Host + ": " + f.err.Detail
		if f.err.Reason == reason.ArtifactNotFound {
			f.err.Reason = reason.Unauthorized // the service is missing, not the artifact
		}
		return nil, f
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer+1))
	if err != nil || len(data) > maxTokenAnswer {
		return nil, passing(reason.Unauthorized, x.object, "token service %s: its answer cannot be read", req.URL.Host)
	}
	x.tokenExpires = x.client.opts.Now().Add(tokenLife(data))
	replaceBody(resp, data)
	return resp, nil
}

// tokenLife reads for how long a token service's answer is used: oras-go reads
// the token only.
func tokenLife(answer []byte) time.Duration {
	var body struct {
		ExpiresIn json.Number `json:"expires_in"`
	}
	life := defaultTokenLife
	if json.Unmarshal(answer, &body) == nil {
		if seconds, err := strconv.ParseInt(body.ExpiresIn.String(), 10, 32); err == nil && seconds > 0 {
			life = min(time.Duration(seconds)*time.Second, maxTokenLife)
		}
	}
	return max(life-tokenMargin, life/2)
}
