package registry

import (
	"crypto/tls"
	"errors"
	"time"

	"github.com/confine-dev/confine/pkg/artifact/reference"
)

// A registry that is named literally as loopback is reached by http, as all
// clients do it. Where a CA file is given, one may speak TLS as well: then
// https is tried first, and http only once the server there answered the
// handshake in plain HTTP. Any other failure, such as a certificate that is not
// accepted, stays one, and a host that spoke TLS once is never asked by http.

// plainFor is how long a loopback registry counts as one that speaks no TLS.
const plainFor = time.Hour

// errPlainHTTP says that a server answered a TLS handshake in plain HTTP.
var errPlainHTTP = errors.New("it answers in plain HTTP, not TLS")

// isPlainHTTP reports whether err is such an answer (http.Client would call it
// http.ErrSchemeMismatch; a transport does not).
func isPlainHTTP(err error) bool {
	var header tls.RecordHeaderError
	return errors.As(err, &header) && string(header.RecordHeader[:]) == "HTTP/"
}

// loopbackScheme is what is known of a loopback registry.
type loopbackScheme struct {
	tls        bool
	plainUntil time.Time
}

// endpoint returns where to reach repo now, and whether plain may know of
// another way there.
func (c *Client) endpoint(repo reference.Repository) (e endpoint, orPlain bool, err error) {
	e, err = endpointOf(repo)
	if err != nil || !e.loopback || c.opts.CAFile == "" {
		return e, false, err
	}
	known, _ := c.loopback.get(e.host)
	if c.opts.Now().Before(known.plainUntil) {
		return e, false, nil
	}
	e.scheme = "https"
	return e, true, nil
}

// spokeTLS remembers that e answered.
func (c *Client) spokeTLS(e endpoint) {
	if e.loopback && e.scheme == "https" {
		c.loopback.put(e.host, loopbackScheme{tls: true})
	}
}

// plain returns e without TLS, and remembers that it has none, unless it ever
// spoke TLS.
func (c *Client) plain(e endpoint) (endpoint, bool) {
	if known, _ := c.loopback.get(e.host); known.tls {
		return endpoint{}, false
	}
	c.loopback.put(e.host, loopbackScheme{plainUntil: c.opts.Now().Add(plainFor)})
	e.scheme = "http"
	return e, true
}
