package registry

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"

	"github.com/confine-dev/confine/pkg/reason"
)

var errProxy = errors.New("the proxy settings of the environment cannot be used")

// transport carries requests to registries and token services: it is below
// oras-go's client for authentication, which decides what a request carries,
// and decides itself where that may go. It needs an exchange in the context.
type transport struct{}

// RoundTrip implements http.RoundTripper.
func (transport) RoundTrip(req *http.Request) (*http.Response, error) {
	x, err := exchangeOf(req.Context())
	if err != nil {
		return nil, err
	}
	x.secrets = append(x.secrets, authorizationSecrets(req.Header.Get("Authorization"))...)
	var resp *http.Response
	if req.URL.String() == x.url.String() {
		resp, err = x.askRegistry(req)
	} else {
		resp, err = x.askTokenService(req)
	}
	if err != nil && req.Body != nil {
		_ = req.Body.Close()
	}
	return resp, err
}

// askRegistry sends a request to the registry, and where that redirects it.
func (x *exchange) askRegistry(req *http.Request) (*http.Response, error) {
	h := &hops{exchange: x}
	resp, err := h.send(req)
	if err != nil {
		return nil, err
	}
	x.from = h.from
	if resp.StatusCode == http.StatusUnauthorized {
		if h.left {
			resp.Header.Del("Www-Authenticate") // another host gets nothing by asking
		} else if err := x.readChallenge(resp); err != nil {
			discard(resp.Body)
			return nil, err
		}
	}
	if err := x.answered(req, resp); err != nil {
		discard(resp.Body)
		return nil, err
	}
	return resp, nil
}

// hops sends a request and follows redirects, and remembers where that led.
type hops struct {
	*exchange
	// left is set once a redirect led away from the registry: from then on no
	// credential is sent, also not after a way back.
	left bool
	// from is the reach of the least deep host on the way.
	from reach
	// began is set once from is known.
	began bool
}

// send sends req and follows redirects of GET and HEAD. The answer's body is
// paced.
func (h *hops) send(req *http.Request) (*http.Response, error) {
	ctx, u := req.Context(), req.URL
	for hop := 0; ; hop++ {
		// The clone is ours to change; its body is sent at most once, as only
		// requests without one are redirected.
		next := req.Clone(ctx)
		next.URL, next.Host = u, ""
		next.Header.Set("User-Agent", h.client.opts.UserAgent)
		if h.left {
			next.Header.Del("Authorization")
		}
		resp, err := h.roundTrip(ctx, next)
		if err != nil {
			return nil, networkFailure(ctx, h.object, u.Host, err)
		}
		// What follows the answer, such as an upload, asks for an authorization
		// of its own.
		resp.Request = next.Clone(ctx)
		resp.Request.Header.Del("Authorization")
		resp.Body = pace(resp.Body, h.client.limits, h.cut)
		if !isRedirect(resp.StatusCode) || (req.Method != http.MethodGet && req.Method != http.MethodHead) {
			return resp, nil
		}
		discard(resp.Body)
		if hop == h.client.limits.redirects {
			return nil, lasting(reason.RegistryUnavailable, h.object, "more than %d redirects", hop)
		}
		target, err := redirectTarget(u, resp.Header.Get("Location"))
		if err != nil {
			return nil, lasting(reason.RegistryUnavailable, h.object, "%s redirects in a way that is refused: %w", u.Host, err)
		}
		u = target
		h.left = h.left || !h.site.endpoint.has(u)
	}
}

// roundTrip sends one request under the rules for where it goes, and notes
// where the answer came from. It follows nothing and keeps no cookies.
func (h *hops) roundTrip(ctx context.Context, req *http.Request) (*http.Response, error) {
	t, err := h.client.transport(h.site, h.site.zoneOf(req.URL, h.from), req.URL)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	got := reachPublic
	direct := t.Proxy == nil
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if direct {
			mu.Lock()
			got = reachOf(info.Conn.RemoteAddr())
			mu.Unlock()
		}
	}}
	h.client.opts.OnRequest(req.Method, req.URL.Host, req.URL.Path)
	resp, err := t.RoundTrip(req.WithContext(httptrace.WithClientTrace(ctx, trace)))
	if err != nil {
		return nil, err
	}
	if h.site.endpoint.has(req.URL) {
		h.client.spokeTLS(h.site.endpoint)
	}
	mu.Lock()
	defer mu.Unlock()
	if !h.began || got < h.from {
		h.from = got
	}
	h.began = true
	return resp, nil
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// redirectTarget reads a Location header. Its text is not repeated in errors:
// signed URLs are secrets.
func redirectTarget(from *url.URL, location string) (*url.URL, error) {
	if location == "" || len(location) > 8<<10 {
		return nil, errors.New("without a usable Location")
	}
	u, err := from.Parse(location)
	if err != nil {
		return nil, errors.New("the Location is no URL")
	}
	if err := checkScheme(from.Scheme, u); err != nil {
		return nil, err
	}
	u.Fragment = ""
	return u, nil
}

// checkScheme refuses where neither a redirect nor a token realm may lead from
// a host that was reached by scheme.
func checkScheme(scheme string, u *url.URL) error {
	switch {
	case u.Host == "" || u.Hostname() == "":
		return errors.New("no host is named")
	case u.User != nil:
		return errors.New("the URL holds a user name")
	case u.Scheme == "https":
		return nil
	case u.Scheme != "http":
		return errors.New("neither https nor http")
	case scheme != "http":
		return errors.New("from https to http")
	case !literalLoopback(u.Hostname()):
		return errors.New("plain http to a host that is not loopback")
	}
	return nil
}
