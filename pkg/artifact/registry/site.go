package registry

import (
	"context"
	"net/http"
	"net/url"
	"sync"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/reason"
)

// dockerHubHost serves what references call docker.io.
const dockerHubHost = "registry-1.docker.io"

// endpoint is where a registry is reached.
type endpoint struct {
	scheme   string
	host     string // as in URLs, with a port where the reference has one
	loopback bool   // named literally as loopback
}

// endpointOf returns the endpoint of a repository, which must be canonical.
func endpointOf(repo reference.Repository) (endpoint, error) {
	canonical, err := reference.ParseRepository(repo.String())
	if err != nil {
		return endpoint{}, err
	}
	if canonical != repo {
		return endpoint{}, reason.New(reason.UnsupportedArtifact, canonical.String(), "the name of the repository is not in its canonical spelling")
	}
	e := endpoint{scheme: "https", host: repo.Host, loopback: repo.Loopback()}
	if e.loopback {
		e.scheme = "http"
	}
	if e.host == "docker.io" {
		e.host = dockerHubHost
	}
	return e, nil
}

// url returns the URL of a path below /v2/. All parts of it were validated, so
// that nothing in it needs escaping.
func (e endpoint) url(path string) *url.URL {
	return &url.URL{Scheme: e.scheme, Host: e.host, Path: path}
}

// has reports whether u lies on the endpoint itself: same scheme, host and port.
func (e endpoint) has(u *url.URL) bool {
	return u.Scheme == e.scheme && hostPort(u) == hostPort(e.url("/"))
}

// hostPort returns host and port of u, the default port written out.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "443"
		if u.Scheme == "http" {
			port = "80"
		}
	}
	return u.Hostname() + ":" + port
}

// site is what a Client holds for one registry: its connections, those to the
// hosts it sends us to, and how often it may be asked.
type site struct {
	endpoint endpoint
	auth     *auth.Client // answers its challenges
	slots    chan struct{}

	mu         sync.Mutex
	closedTill time.Time
	transports map[transportKey]*http.Transport
}

// transportKey separates connections that were opened under different rules.
type transportKey struct {
	zone  zone
	proxy string // empty: direct
}

func (c *Client) site(e endpoint) *site {
	return c.sites.getOrPut(e.scheme+"://"+e.host, func() *site {
		return &site{
			endpoint:   e,
			auth:       c.newAuth(e),
			slots:      make(chan struct{}, c.limits.perHost),
			transports: map[transportKey]*http.Transport{},
		}
	}, false)
}

// zoneOf returns the rule for connecting to u, sent there by hosts of which
// the least deep one lies at from.
func (s *site) zoneOf(u *url.URL, from reach) zone {
	switch {
	case s.endpoint.has(u) && s.endpoint.loopback:
		return zoneNamedLoopback
	case s.endpoint.has(u):
		return zoneNamed
	default:
		return sentBy(from)
	}
}

// transport returns the transport for u in z.
func (c *Client) transport(s *site, z zone, u *url.URL) (*http.Transport, error) {
	proxy, err := c.opts.proxy(&http.Request{URL: u})
	if err != nil {
		return nil, errProxy
	}
	key := transportKey{zone: z}
	if proxy != nil {
		key.proxy = proxy.String()
		if err := z.judgeProxied(u.Hostname()); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.transports[key]
	if ok {
		return t, nil
	}
	if proxy != nil {
		t = c.proxyTransport(proxy)
	} else {
		t = c.directTransport(z)
	}
	s.transports[key] = t
	return t, nil
}

func (s *site) closeIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.transports {
		t.CloseIdleConnections()
	}
}

// close keeps requests away from the registry until t, as it asked.
func (s *site) close(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.After(s.closedTill) {
		s.closedTill = t
	}
}

func (s *site) wait(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closedTill.Sub(now)
}

// enter waits until the registry may be asked and a slot is free.
func (c *Client) enter(ctx context.Context, s *site) (leave func(), err error) {
	if d := s.wait(c.opts.Now()); d > 0 {
		if err := c.opts.Sleep(ctx, d); err != nil {
			return nil, err
		}
	}
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
