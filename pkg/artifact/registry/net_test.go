package registry

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confine-dev/confine/pkg/artifact/reference"
)

// fakeNet is a network of TLS hosts with addresses of our choice. The rules
// and everything above them are the real ones; only the last step, connecting
// to the address that was allowed, leads to a server on loopback instead.
type fakeNet struct {
	t      *testing.T
	caFile string
	cert   tls.Certificate
	hosts  map[string]fakeHost // by "name:port"
	// dialed are the addresses that were really contacted.
	dialed []string
}

type fakeHost struct {
	ips    []string
	server string
}

func newFakeNet(t *testing.T, names ...string) *fakeNet {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	for _, name := range names {
		if ip, err := netip.ParseAddr(name); err == nil {
			template.IPAddresses = append(template.IPAddresses, ip.AsSlice())
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	n := &fakeNet{
		t: t, caFile: filepath.Join(t.TempDir(), "ca.pem"), hosts: map[string]fakeHost{},
		cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
	}
	if err := os.WriteFile(n.caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return n
}

// host serves handler over TLS as name, at port 443 unless name has a port,
// and resolves it to ips.
func (n *fakeNet) host(name string, handler http.Handler, ips ...string) {
	n.t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // some tests refuse its certificate
	server.TLS = &tls.Config{Certificates: []tls.Certificate{n.cert}}
	server.StartTLS()
	n.t.Cleanup(server.Close)
	if !strings.Contains(name, ":") {
		name += ":443"
	}
	n.hosts[name] = fakeHost{ips: ips, server: strings.TrimPrefix(server.URL, "https://")}
}

func (n *fakeNet) options(o *Options) {
	o.CAFile, o.dial = n.caFile, n.dial
}

func (n *fakeNet) dial(ctx context.Context, network, addr string, allow func(string) error) (net.Conn, error) {
	host, ok := n.hosts[addr]
	if !ok {
		name, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		if _, err := netip.ParseAddr(name); err == nil {
			if err := allow(net.JoinHostPort(name, port)); err != nil {
				return nil, err
			}
		}
		return nil, &net.DNSError{Name: name, Err: "no such host", IsNotFound: true}
	}
	var refused error
	for _, ip := range host.ips {
		_, port, _ := net.SplitHostPort(addr)
		ipPort := net.JoinHostPort(ip, port)
		if err := allow(ipPort); err != nil {
			refused = err
			continue
		}
		n.dialed = append(n.dialed, ipPort)
		conn, err := (&net.Dialer{}).DialContext(ctx, network, host.server)
		if err != nil {
			return nil, err
		}
		return &fakeConn{Conn: conn, remote: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(ipPort))}, nil
	}
	return nil, refused
}

type fakeConn struct {
	net.Conn
	remote net.Addr
}

func (c *fakeConn) RemoteAddr() net.Addr { return c.remote }

// pipeNet is a network of pipes, which live in a synctest bubble where time
// passes at once.
type pipeNet struct {
	accept chan net.Conn
	closed chan struct{}
}

// servePipes starts handler on a pipeNet and returns a repository there and a
// client that uses the default limits and the bubble's clock.
func servePipes(t *testing.T, handler http.Handler) (*Client, reference.Repository) {
	t.Helper()
	n := &pipeNet{accept: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{ReadHeaderTimeout: time.Hour, Handler: handler}
	done := make(chan error)
	go func() { done <- server.Serve(n) }()
	c := newTestClient(t, func(o *Options) {
		o.Now, o.Sleep = nil, nil
		o.dial = func(ctx context.Context, _, _ string, _ func(string) error) (net.Conn, error) {
			near, far := net.Pipe()
			select {
			case n.accept <- far:
				return near, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	})
	t.Cleanup(func() {
		c.CloseIdleConnections()
		// It waits for the handlers, which see that their client has gone.
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		<-done
	})
	return c, reference.Repository{Host: "localhost:5000", Path: "team/web"}
}

func (n *pipeNet) Accept() (net.Conn, error) {
	select {
	case c := <-n.accept:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *pipeNet) Close() error   { close(n.closed); return nil }
func (n *pipeNet) Addr() net.Addr { return &net.TCPAddr{} }
