package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/confine-dev/confine/pkg/reason"
)

// Options configure a Client. The zero value is safe: anonymous, system roots,
// proxy from the environment.
type Options struct {
	// Credentials returns the credential for a registry; nil means none. It is
	// asked only after the registry demanded one.
	Credentials CredentialFunc
	// DockerConfig is the path of a docker config file, for registries of
	// which Credentials knows nothing; empty means none. It is read again
	// whenever a registry demands a credential.
	DockerConfig string
	// CAFile is a PEM file of roots that are accepted besides the system's;
	// empty means none. Where it is given, registries on loopback may speak TLS
	// too: https is tried first, and http where there is none.
	CAFile string
	// ReadFile reads DockerConfig and CAFile, at most 4 MiB of each; nil means
	// from the file system. It is for a process that was handed the open files
	// and could not open them itself.
	ReadFile func(name string) ([]byte, error)
	// UserAgent is sent with every request; empty means "confine".
	UserAgent string
	// Log receives what is worth knowing and is no error; nil means nowhere.
	Log *slog.Logger

	// MaxAttempts of one request, the first included; 0 means 4.
	MaxAttempts int
	// PerHost bounds the requests at one time to one registry; 0 means 8.
	PerHost int
	// RequestTimeout bounds one attempt, its redirects, token and body
	// included; 0 means 1 minute.
	RequestTimeout time.Duration
	// MaxRetryAfter is the longest pause that a registry may ask for within a
	// call; beyond it the call returns RateLimited or RegistryUnavailable with
	// RetryAfter set. 0 means 30 seconds.
	MaxRetryAfter time.Duration
	// WalkTimeout bounds the time one walk over signatures spends reading; 0
	// means 2 minutes.
	WalkTimeout time.Duration

	// OnRequest is told of every HTTP request before it is sent: method, host
	// and path, never the query. It may be nil.
	OnRequest func(method, host, path string)
	// Now and Sleep are the clock; nil means the real one.
	Now   func() time.Time
	Sleep func(ctx context.Context, d time.Duration) error

	// The network, which tests of this package replace.
	dial     dialFunc
	resolver *net.Resolver
	proxy    func(*http.Request) (*url.URL, error)
	jitter   func(time.Duration) time.Duration
	limits   limits
}

// limits are the bounds that are no options.
type limits struct {
	dial      time.Duration // connecting, and the TLS handshake
	header    time.Duration // until the answer's header
	window    time.Duration // in which a body must progress by windowMin
	windowMin int64         // bytes
	perHost   int
	redirects int
	pages     int   // of a referrers list
	listBytes int64 // of a referrers list, all pages
}

func defaultLimits() limits {
	return limits{
		dial:      10 * time.Second,
		header:    20 * time.Second,
		window:    10 * time.Second,
		windowMin: 16 << 10,
		redirects: 5,
		pages:     64,
		listBytes: 8 << 20,
	}
}

// Bounds on what a Client remembers; what is forgotten costs a request more.
const (
	maxSites        = 64
	maxTokens       = 1024
	maxCapabilities = 4096
	maxPassedOver   = 16384
	maxFileBytes    = 4 << 20 // CA file, docker config file
)

// Client speaks to registries. It implements artifact.Fetcher and
// artifact.Pusher. It is safe for concurrent use, and meant to be used for
// long: connections, tokens and what registries can do are remembered.
type Client struct {
	opts   Options
	limits limits
	tls    *tls.Config
	dial   dialFunc
	creds  *credentialSource

	sites  *bounded[string, *site]
	tokens *bounded[tokenKey, token]
	// withoutReferrers remembers until when the referrers API of a repository
	// counts as missing.
	withoutReferrers *bounded[string, time.Time]
	// loopback remembers which loopback registries speak TLS.
	loopback *bounded[string, loopbackScheme]
	// passedOver remembers, by what was passed over, until when.
	passedOver *bounded[passedOverKey, time.Time]
	// indexing is held while an index under a tag is rewritten: registries have
	// no conditional writes, so that at least our own must not overtake each other.
	indexing chan struct{}
}

// New returns a Client, or InstallFailed where a file that opts name cannot be
// read.
func New(opts Options) (*Client, error) {
	opts = withDefaults(opts)
	roots, err := loadRoots(opts)
	if err != nil {
		return nil, err
	}
	creds, err := newCredentialSource(opts)
	if err != nil {
		return nil, err
	}
	c := &Client{
		opts:   opts,
		limits: opts.limits,
		tls:    &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		dial:   opts.dial,
		creds:  creds,

		indexing: make(chan struct{}, 1),
	}
	c.limits.perHost = opts.PerHost
	c.sites = newBounded[string](maxSites, (*site).closeIdle)
	c.tokens = newBounded[tokenKey, token](maxTokens, nil)
	c.withoutReferrers = newBounded[string, time.Time](maxCapabilities, nil)
	c.loopback = newBounded[string, loopbackScheme](maxSites, nil)
	c.passedOver = newBounded[passedOverKey, time.Time](maxPassedOver, nil)
	return c, nil
}

// CloseIdleConnections closes connections that are not in use.
func (c *Client) CloseIdleConnections() {
	for _, s := range c.sites.values() {
		s.closeIdle()
	}
}

func withDefaults(opts Options) Options {
	orDefault := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	orDefault(&opts.RequestTimeout, time.Minute)
	orDefault(&opts.MaxRetryAfter, 30*time.Second)
	orDefault(&opts.WalkTimeout, 2*time.Minute)
	if opts.MaxAttempts <= 0 {
		opts.MaxAttempts = 4
	}
	if opts.PerHost <= 0 {
		opts.PerHost = 8
	}
	if opts.UserAgent == "" {
		opts.UserAgent = "confine"
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.ReadFile == nil {
		opts.ReadFile = readFile
	}
	if opts.OnRequest == nil {
		opts.OnRequest = func(string, string, string) {}
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Sleep == nil {
		opts.Sleep = sleep
	}
	if opts.limits == (limits{}) {
		opts.limits = defaultLimits()
	}
	if opts.dial == nil {
		opts.dial = netDial(opts.limits.dial, opts.resolver)
	}
	if opts.proxy == nil {
		opts.proxy = http.ProxyFromEnvironment
	}
	if opts.jitter == nil {
		opts.jitter = fullJitter
	}
	return opts
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// fullJitter returns a random duration below d: clients that failed together
// do not come back together.
func fullJitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d) //nolint:gosec // it spreads requests and guards nothing
}

// loadRoots returns the system's roots and those of opts.CAFile.
func loadRoots(opts Options) (*x509.CertPool, error) {
	file := opts.CAFile
	if file == "" {
		return nil, nil // the system's, chosen by crypto/tls
	}
	data, err := opts.ReadFile(file)
	if err != nil {
		return nil, reason.New(reason.InstallFailed, file, "the CA file cannot be read: %w", err).
			WithAdvice("name a readable PEM file of certificates")
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(data) {
		return nil, reason.New(reason.InstallFailed, file, "the CA file holds no certificate").
			WithAdvice("name a PEM file of certificates")
	}
	return roots, nil
}

// readFile reads a configuration file of bounded size.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFileBytes {
		return nil, errors.New("the file is too large")
	}
	return data, nil
}

// pathless renders a file error without the path, which the message names.
func pathless(err error) string {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}
