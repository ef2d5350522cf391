package registry

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

// dialFunc opens a connection to addr ("host:port"). It calls allow with every
// resolved "ip:port" before it contacts it, and gives up on what allow refuses.
type dialFunc func(ctx context.Context, network, addr string, allow func(ipPort string) error) (net.Conn, error)

// netDial is the dialFunc of the real network. The check runs on the socket's
// own address right before connect(2), so that a name which resolves
// differently a moment later gains nothing.
func netDial(timeout time.Duration, resolver *net.Resolver) dialFunc {
	return func(ctx context.Context, network, addr string, allow func(string) error) (net.Conn, error) {
		d := net.Dialer{
			Timeout:   timeout,
			KeepAlive: 30 * time.Second,
			Resolver:  resolver,
			ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
				return allow(address)
			},
		}
		return d.DialContext(ctx, network, addr)
	}
}

// directTransport connects straight to hosts, under the rule of z.
func (c *Client) directTransport(z zone) *http.Transport {
	t := c.bareTransport()
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, errors.New("the address has no port")
		}
		return c.dial(ctx, network, addr, func(ipPort string) error {
			ap, err := netip.ParseAddrPort(ipPort)
			if err != nil {
				return &addressError{host: host, rule: "not an IP address"}
			}
			return z.judge(host, ap.Addr())
		})
	}
	return t
}

// proxyTransport connects through proxy, and to nothing else. The operator
// named the proxy, so that it may lie anywhere.
func (c *Client) proxyTransport(proxy *url.URL) *http.Transport {
	t := c.bareTransport()
	t.Proxy = http.ProxyURL(proxy)
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return c.dial(ctx, network, addr, func(string) error { return nil })
	}
	return t
}

func (c *Client) bareTransport() *http.Transport {
	return &http.Transport{
		TLSClientConfig:        c.tls.Clone(),
		TLSHandshakeTimeout:    c.limits.dial,
		ResponseHeaderTimeout:  c.limits.header,
		IdleConnTimeout:        time.Minute,
		MaxIdleConnsPerHost:    c.limits.perHost,
		MaxConnsPerHost:        c.limits.perHost,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // bodies are compared byte by byte with their digest
		ForceAttemptHTTP2:      true,
	}
}

// judgeProxied applies the rules to what a proxy is asked for, as far as the
// name alone tells: the proxy resolves names, not we.
func (z zone) judgeProxied(hostname string) error {
	if literalLoopback(hostname) {
		return z.judge(hostname, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	if ip, err := netip.ParseAddr(hostname); err == nil {
		return z.judge(hostname, ip)
	}
	return nil
}
