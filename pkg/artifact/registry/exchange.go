package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	oras "oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/reason"
)

const (
	retryBase = 250 * time.Millisecond
	retryCap  = 10 * time.Second
)

// exchange is one attempt at one thing that is asked of a registry. oras-go
// builds its requests; it travels in their context, down to the transport,
// which notes what oras-go's errors do not tell.
type exchange struct {
	client *Client
	site   *site
	object string // what messages call it
	cut    context.CancelCauseFunc
	// consume, where set, reads and judges a good answer to a GET before
	// oras-go sees it, which then gets the bytes that were judged.
	consume func(*http.Response) ([]byte, error)

	// url is what the registry is asked for. A first request for anything else
	// is one for a token.
	url *url.URL
	// secrets are what the requests carried.
	secrets []string
	// from is the reach of the least deep host on the way to the last answer.
	from reach
	// status and header are of the registry's last answer, and refused is what
	// it means where it was no success.
	status  int
	header  http.Header
	refused *failure
	// tokenHost gave an answer of which nothing came yet, that is good until
	// tokenExpires.
	tokenHost    string
	tokenExpires time.Time
}

type exchangeKey struct{}

// exchangeOf returns the exchange that a request belongs to.
func exchangeOf(ctx context.Context) (*exchange, error) {
	if x, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		return x, nil
	}
	return nil, errors.New("a request outside an exchange")
}

// call does one thing with repo until that succeeds or trying again is
// pointless. do may be called several times; its errors are explained.
func (c *Client) call(ctx context.Context, repo reference.Repository, object string, do func(context.Context, *exchange) error) error {
	e, orPlain, err := c.endpoint(repo)
	if err != nil {
		return err
	}
	err = c.retry(ctx, object, e, func(ctx context.Context) error { return c.attempt(ctx, e, object, do) })
	if !orPlain || !errors.Is(err, errPlainHTTP) {
		return err
	}
	plain, may := c.plain(e)
	if !may {
		return err
	}
	return c.retry(ctx, object, plain, func(ctx context.Context) error { return c.attempt(ctx, plain, object, do) })
}

// retry calls try until it succeeds, fails for good, or the attempts are used
// up. It waits as long as the registry asked, or a random time that doubles.
// (oras-go's retry transport would wait by the real clock, without telling the
// caller, 3 seconds at most by default, and repeat requests, not uploads.)
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

// attempt does it once, within the bounds of one attempt.
func (c *Client) attempt(ctx context.Context, e endpoint, object string, do func(context.Context, *exchange) error) error {
	s := c.site(e)
	leave, err := c.enter(ctx, s)
	if err != nil {
		return err
	}
	defer leave()
	ctx, stop := context.WithTimeoutCause(ctx, c.opts.RequestTimeout, errAttemptTimeout)
	defer stop()
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	x := &exchange{client: c, site: s, object: object, cut: cut}
	return x.explain(do(context.WithValue(ctx, exchangeKey{}, x), x))
}

// repository returns oras-go's client for repo. It is made for one exchange:
// all that is worth remembering is in the Client, where it is bounded.
func (x *exchange) repository(repo reference.Repository) (*remote.Repository, error) {
	r := &remote.Repository{
		Client:             x,
		Reference:          x.reference(repo),
		PlainHTTP:          x.site.endpoint.scheme == "http", // literal loopback names alone, see endpointOf
		ManifestMediaTypes: manifestTypes(),
		MaxMetadataBytes:   artifact.MaxManifestBytes,
	}
	// Told so, it writes manifests and no list of referrers: listReferrer says why.
	return r, r.SetReferrersCapability(true)
}

// reference names repo as oras-go does.
func (x *exchange) reference(repo reference.Repository) oras.Reference {
	return oras.Reference{Registry: x.site.endpoint.host, Repository: repo.Path}
}

// Do implements remote.Client.
func (x *exchange) Do(req *http.Request) (*http.Response, error) {
	x.url = req.URL
	return x.site.auth.Do(req)
}

// explain turns an error of oras-go into ours. Its text may repeat foreign
// bytes and URLs, so that it is the last resort.
func (x *exchange) explain(err error) error {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if e, ok := reason.Of(err); ok {
		return e
	}
	switch {
	case x.refused != nil:
		return x.refused
	case x.tokenHost != "":
		return passing(reason.Unauthorized, x.object, "token service %s: its answer holds no token that can be used", x.tokenHost)
	}
	return lasting(reason.RegistryUnavailable, x.object, "the answer cannot be used: %s", clean(err.Error(), x.secrets))
}

// answered notes the registry's answer and what it means, and lets consume
// judge it where it is to be read whole.
func (x *exchange) answered(req *http.Request, resp *http.Response) error {
	x.refused, x.tokenHost = nil, ""
	defer func() { x.status, x.header = resp.StatusCode, resp.Header }()
	switch {
	case !isSuccess(req.Method, resp.StatusCode):
		x.refuse(req, resp)
	case req.Method == http.MethodPost:
		u, err := uploadURL(x.site.endpoint, req.URL, resp.Header.Get("Location"))
		if err != nil {
			return lasting(reason.RegistryUnavailable, x.object, "the address for the upload is refused: %w", err)
		}
		resp.Header.Set("Location", u.String())
	case req.Method == http.MethodPut:
		resp.StatusCode = http.StatusCreated // oras-go takes no other
	case req.Method == http.MethodGet && x.consume != nil:
		data, err := x.consume(resp)
		if err != nil {
			return err
		}
		replaceBody(resp, data)
		// Digests are computed from the bytes: a header is the word of the registry.
		resp.Header.Del("Docker-Content-Digest")
	}
	return nil
}

// refuse notes what an answer means that is no success. oras-go sees it too:
// it asks for a token, or knows that something is not there.
func (x *exchange) refuse(req *http.Request, resp *http.Response) {
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil {
		data = nil // the status says enough
	}
	replaceBody(resp, data)
	x.refused = statusFailure(resp, x.object, x.secrets, x.client.opts.Now())
	if req.Method == http.MethodPost || req.Method == http.MethodPut {
		notTaken(x.refused)
	}
	replaceBody(resp, data)
}

// isSuccess knows the statuses of the OCI distribution specification 1.1 for
// what is asked here, and those that older registries answer a PUT with.
func isSuccess(method string, status int) bool {
	switch method {
	case http.MethodPost:
		return status == http.StatusAccepted
	case http.MethodPut:
		return status == http.StatusCreated || status == http.StatusOK || status == http.StatusAccepted || status == http.StatusNoContent
	}
	return status == http.StatusOK
}

// replaceBody ends the body of resp, and holds data in its place.
func replaceBody(resp *http.Response, data []byte) {
	discard(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(data))
	resp.ContentLength = int64(len(data))
}
