package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"time"

	"github.com/confine-dev/confine/pkg/reason"
)

var errProxy = errors.New("the proxy settings of the environment cannot be used")

const (
	retryBase = 250 * time.Millisecond
	retryCap  = 10 * time.Second
)

// request is one request to a registry, which can be sent any number of times.
type request struct {
	method   string
	endpoint endpoint
	url      *url.URL
	accept   string
	// contentType and body are of PUT requests.
	contentType string
	body        []byte
	// scope is what a token must allow.
	scope scope
	// object is what messages call it.
	object string
}

// answer is a response whose body is paced, with what is needed to explain it.
type answer struct {
	*http.Response
	// secrets are what the requests carried.
	secrets []string
}

// do sends r until consume accepts an answer or trying again is pointless.
// consume sees every answer, whatever its status; what it returns is either a
// *failure or final.
func (c *Client) do(ctx context.Context, r *request, consume func(*answer) error) error {
	return c.retry(ctx, r.object, r.endpoint, func(ctx context.Context) error {
		return c.attempt(ctx, r, consume)
	})
}

// retry calls try until it succeeds, fails for good, or the attempts are used
// up. It waits as long as the registry asked, or a random time that doubles.
func (c *Client) retry(ctx context.Context, object string, e endpoint, try func(context.Context) error) error {
	for n := 1; ; n++ {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return canceled(ctx, object)
		}
		f := asFailure(object, err)
		if !f.transient || n >= c.opts.MaxAttempts {
			return f
		}
		asked := f.err.RetryAfter
		if asked > c.opts.MaxRetryAfter {
			return f
		}
		if f.status == http.StatusTooManyRequests {
			c.site(e).close(c.opts.Now().Add(asked))
		}
		wait := asked + c.opts.jitter(min(retryBase<<min(n-1, 10), retryCap))
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
			return f
		}
		if c.opts.Sleep(ctx, wait) != nil {
			return canceled(ctx, object)
		}
	}
}

// attempt sends r once, with one more time where the registry demands a
// credential first.
func (c *Client) attempt(ctx context.Context, r *request, consume func(*answer) error) error {
	s := c.site(r.endpoint)
	leave, err := c.enter(ctx, s)
	if err != nil {
		return err
	}
	defer leave()
	ctx, stop := context.WithTimeoutCause(ctx, c.opts.RequestTimeout, errAttemptTimeout)
	defer stop()
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)

	h := &hops{client: c, site: s, object: r.object, cut: cut}
	key := tokenKey{endpoint: r.endpoint, scope: r.scope}
	h.setAuthorization(c.cachedToken(key))
	resp, err := h.send(ctx, r)
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusUnauthorized && !h.left {
		resp, err = c.authorize(ctx, h, r, key, resp)
		if err != nil {
			return err
		}
	}
	defer discard(resp.Body)
	return consume(&answer{Response: resp, secrets: h.secrets})
}

// hops sends requests and follows redirects, and remembers where that led.
type hops struct {
	client *Client
	site   *site
	object string
	cut    context.CancelCauseFunc

	authorization string
	secrets       []string
	// left is set once a redirect led away from the registry: from then on no
	// credential is sent, also not after a way back.
	left bool
	// from is the reach of the least deep host on the way.
	from reach
	// began is set once from is known.
	began bool
}

func (h *hops) setAuthorization(value string, secrets ...string) {
	h.authorization = value
	h.secrets = append(h.secrets, secrets...)
	h.secrets = append(h.secrets, authorizationSecrets(value)...)
}

// send sends r and follows redirects of GET and HEAD. The answer's body is
// paced.
func (h *hops) send(ctx context.Context, r *request) (*http.Response, error) {
	h.left, h.began = false, false
	u := r.url
	for hop := 0; ; hop++ {
		req, err := h.newRequest(ctx, r, u)
		if err != nil {
			return nil, err
		}
		resp, err := h.roundTrip(ctx, req)
		if err != nil {
			return nil, networkFailure(ctx, h.object, u.Host, err)
		}
		resp.Body = pace(resp.Body, h.client.limits, h.cut)
		if !isRedirect(resp.StatusCode) || (r.method != http.MethodGet && r.method != http.MethodHead) {
			return resp, nil
		}
		discard(resp.Body)
		if hop == h.client.limits.redirects {
			return nil, lasting(reason.RegistryUnavailable, h.object, "more than %d redirects", hop)
		}
		next, err := redirectTarget(u, resp.Header.Get("Location"))
		if err != nil {
			return nil, lasting(reason.RegistryUnavailable, h.object, "%s redirects in a way that is refused: %w", u.Host, err)
		}
		u = next
		h.left = h.left || !h.site.endpoint.has(u)
	}
}

func (h *hops) newRequest(ctx context.Context, r *request, u *url.URL) (*http.Request, error) {
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), body)
	if err != nil {
		return nil, lasting(reason.RegistryUnavailable, h.object, "the address of the request cannot be used")
	}
	req.Header.Set("User-Agent", h.client.opts.UserAgent)
	if r.accept != "" {
		req.Header.Set("Accept", r.accept)
	}
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	if h.authorization != "" && !h.left {
		req.Header.Set("Authorization", h.authorization)
	}
	return req, nil
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

// discard drains a little of body, so that the connection can be used again,
// and closes it.
func discard(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, maxErrorBody)
	_ = body.Close()
}

// pacedBody cuts a request off whose answer makes no progress: fewer than min
// bytes within a window, unless it ends.
type pacedBody struct {
	io.ReadCloser
	window time.Duration
	min    int64
	cut    context.CancelCauseFunc

	mu     sync.Mutex
	read   int64
	closed bool
	timer  *time.Timer
}

func pace(body io.ReadCloser, l limits, cut context.CancelCauseFunc) io.ReadCloser {
	p := &pacedBody{ReadCloser: body, window: l.window, min: l.windowMin, cut: cut}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(p.window, p.check)
	return p
}

func (p *pacedBody) check() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	if p.read < p.min {
		p.cut(errTrickle)
		return
	}
	p.read = 0
	p.timer.Reset(p.window)
}

// Read implements io.Reader.
func (p *pacedBody) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.read += int64(n)
	return n, err
}

// Close implements io.Closer.
func (p *pacedBody) Close() error {
	p.mu.Lock()
	p.closed = true
	p.timer.Stop()
	p.mu.Unlock()
	return p.ReadCloser.Close()
}
