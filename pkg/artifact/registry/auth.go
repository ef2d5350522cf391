package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/confine-dev/confine/pkg/reason"
)

const (
	maxTokenAnswer = 64 << 10
	maxTokenBytes  = 16 << 10
	maxScopes      = 4
	// defaultTokenLife is what the token specification says where the answer
	// does not (https://distribution.github.io/distribution/spec/auth/token/).
	defaultTokenLife = time.Minute
	maxTokenLife     = time.Hour
	tokenMargin      = 10 * time.Second
)

// scope is what a token must allow: actions on one repository.
type scope struct {
	path  string
	write bool
}

// String renders the scope as token services read it.
func (s scope) String() string {
	if s.write {
		return "repository:" + s.path + ":pull,push"
	}
	return "repository:" + s.path + ":pull"
}

type tokenKey struct {
	endpoint endpoint
	scope    scope
}

// token is an Authorization header that a registry accepted the challenge for.
type token struct {
	authorization string
	expires       time.Time // zero: never
}

func (c *Client) cachedToken(key tokenKey) string {
	t, ok := c.tokens.get(key)
	if !ok || (!t.expires.IsZero() && !c.opts.Now().Before(t.expires)) {
		return ""
	}
	return t.authorization
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

// authorize answers the challenge of resp, which came from the registry
// itself, and sends r again. Where it has nothing to answer with, resp is
// returned as it is.
func (c *Client) authorize(ctx context.Context, h *hops, r *request, key tokenKey, resp *http.Response) (*http.Response, error) {
	c.tokens.remove(key)
	challenges := parseChallenges(resp.Header.Values("Www-Authenticate"))
	t, err := c.answerChallenges(ctx, h, r, challenges)
	if err != nil {
		discard(resp.Body)
		return nil, err
	}
	if t.authorization == "" {
		return resp, nil
	}
	discard(resp.Body)
	h.setAuthorization(t.authorization)
	again, err := h.send(ctx, r)
	if err != nil {
		return nil, err
	}
	if again.StatusCode != http.StatusUnauthorized {
		c.tokens.put(key, t)
	}
	return again, nil
}

func (c *Client) answerChallenges(ctx context.Context, h *hops, r *request, challenges map[string]map[string]string) (token, error) {
	cred, err := c.creds.lookup(ctx, r.endpoint.host)
	if err != nil {
		return token{}, lasting(reason.Unauthorized, r.object, "%w", err)
	}
	h.secrets = append(h.secrets, cred.Password, cred.IdentityToken, cred.RegistryToken)
	if params, ok := challenges["bearer"]; ok {
		if cred.RegistryToken != "" {
			return bearer(cred.RegistryToken, time.Time{})
		}
		return c.fetchToken(ctx, h, r, params, cred)
	}
	if _, ok := challenges["basic"]; ok && cred.Username != "" {
		plain := cred.Username + ":" + cred.Password
		return token{authorization: "Basic " + base64.StdEncoding.EncodeToString([]byte(plain))}, nil
	}
	return token{}, nil
}

func bearer(value string, expires time.Time) (token, error) {
	if len(value) > maxTokenBytes || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return token{}, errors.New("the token cannot be used in a header")
	}
	return token{authorization: "Bearer " + value, expires: expires}, nil
}

// fetchToken asks the token service that the challenge names. The credential
// is the registry's own, and goes where the registry says over TLS, as the
// token specification has it; the service must lie where the registry may send
// us, and must not send it on.
func (c *Client) fetchToken(ctx context.Context, h *hops, r *request, params map[string]string, cred Credential) (token, error) {
	refuse := func(err error) (token, error) {
		return token{}, lasting(reason.Unauthorized, r.object, "the token service that %s names is refused: %w", r.endpoint.host, err)
	}
	realm, err := url.Parse(params["realm"])
	if err != nil || len(params["realm"]) > 2<<10 {
		return refuse(errors.New("its address is no URL"))
	}
	if err := checkScheme(r.endpoint.scheme, realm); err != nil {
		return refuse(err)
	}
	realm.Fragment = ""
	req, err := tokenRequest(ctx, realm, params["service"], tokenScopes(r.scope, params["scope"]), cred)
	if err != nil {
		return refuse(errors.New("its address cannot be used"))
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	// A state of its own: what the service's address is must not count for the
	// registry's, and its answer is never followed elsewhere.
	inner := &hops{client: c, site: h.site, object: r.object, cut: h.cut, from: h.from, began: true}
	resp, err := inner.roundTrip(ctx, req)
	if err != nil {
		return token{}, networkFailure(ctx, r.object, realm.Host, err)
	}
	resp.Body = pace(resp.Body, c.limits, h.cut)
	defer discard(resp.Body)
	if isRedirect(resp.StatusCode) {
		return refuse(errors.New("it redirects, and credentials are not sent on"))
	}
	if resp.StatusCode != http.StatusOK {
		f := statusFailure(resp, r.object, h.secrets, c.opts.Now())
		f.err.Detail = "token service " + realm.Host + ": " + f.err.Detail
		if f.err.Reason == reason.ArtifactNotFound {
			f.err.Reason = reason.Unauthorized // the service is missing, not the artifact
		}
		return token{}, f
	}
	t, err := c.readToken(resp.Body)
	if err != nil {
		return token{}, passing(reason.Unauthorized, r.object, "token service %s: %w", realm.Host, err)
	}
	return t, nil
}

// tokenRequest is a GET as the token specification has it, or a POST with an
// identity token as its OAuth 2 variant has it
// (https://distribution.github.io/distribution/spec/auth/oauth/).
func tokenRequest(ctx context.Context, realm *url.URL, service string, scopes []string, cred Credential) (*http.Request, error) {
	if cred.IdentityToken != "" {
		form := url.Values{
			"grant_type": {"refresh_token"}, "refresh_token": {cred.IdentityToken},
			"service": {service}, "client_id": {"confine"}, "scope": {strings.Join(scopes, " ")},
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return req, nil
	}
	u := *realm
	query := u.Query()
	if service != "" {
		query.Set("service", service)
	}
	for _, s := range scopes {
		query.Add("scope", s)
	}
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if cred.Username != "" {
		req.SetBasicAuth(cred.Username, cred.Password)
	}
	return req, nil
}

// tokenScopes are our own scope and those the challenge asks for besides, as
// some registries call the repository by another name there.
func tokenScopes(own scope, asked string) []string {
	scopes := []string{own.String()}
	if len(asked) > 1<<10 {
		return scopes
	}
	for _, s := range strings.Fields(asked) {
		if s != scopes[0] && len(scopes) < maxScopes {
			scopes = append(scopes, s)
		}
	}
	return scopes
}

func (c *Client) readToken(body io.Reader) (token, error) {
	data, err := io.ReadAll(io.LimitReader(body, maxTokenAnswer+1))
	if err != nil || len(data) > maxTokenAnswer {
		return token{}, errors.New("its answer cannot be read")
	}
	var answer struct {
		Token       string      `json:"token"`
		AccessToken string      `json:"access_token"`
		ExpiresIn   json.Number `json:"expires_in"`
	}
	if json.Unmarshal(data, &answer) != nil {
		return token{}, errors.New("its answer is no token")
	}
	value := answer.Token
	if value == "" {
		value = answer.AccessToken
	}
	if value == "" {
		return token{}, errors.New("its answer holds no token")
	}
	life := defaultTokenLife
	if seconds, err := strconv.ParseInt(answer.ExpiresIn.String(), 10, 32); err == nil && seconds > 0 {
		life = min(time.Duration(seconds)*time.Second, maxTokenLife)
	}
	return bearer(value, c.opts.Now().Add(max(life-tokenMargin, life/2)))
}
