package registry

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/reason"
)

func TestAddressRules(t *testing.T) {
	const always = "" // refused in every zone
	tests := map[string]string{
		"169.254.169.254": always, "fd00:ec2::254": always, "100.100.100.200": always, "168.63.129.16": always,
		"192.0.0.192": always, "fd20:ce::254": always,
		"169.254.1.1": always, "fe80::1": always, "fe80::1%eth0": always, "fec0::1": always,
		"0.0.0.0": always, "0.1.2.3": always, "::": always,
		"224.0.0.1": always, "239.1.1.1": always, "ff02::1": always, "255.255.255.255": always, "250.0.0.1": always,
		"2001::1": always, "64:ff9b:1::a9fe:a9fe": always,
		"::ffff:169.254.169.254": always, "64:ff9b::169.254.169.254": always, "2002:a9fe:a9fe::1": always,
		"::ffff:0:169.254.169.254": always, "::169.254.169.254": always, "64:ff9b::0.0.0.0": always,
		"127.0.0.1": "loopback", "127.255.0.3": "loopback", "::1": "loopback", "::ffff:127.0.0.1": "loopback",
		"64:ff9b::127.0.0.1": "loopback", "2002:7f00:1::": "loopback", "::127.0.0.1": "loopback",
		"10.0.0.1": "private", "172.16.0.1": "private", "172.31.255.255": "private", "192.168.1.1": "private",
		"fd12::1": "private", "100.64.0.1": "private", "100.127.255.255": "private", "198.18.0.1": "private",
		"::ffff:10.0.0.1": "private", "64:ff9b::10.0.0.1": "private", "2002:a00:1::": "private",
		"8.8.8.8": "public", "172.32.0.1": "public", "100.128.0.1": "public", "2606:4700::1": "public",
		"64:ff9b::8.8.8.8": "public", "2002:808:808::1": "public",
	}
	allowed := map[zone]string{
		zoneNamed:         "public private",
		zoneNamedLoopback: "public private loopback", // what is not loopback fails by its name, see below
		zonePublic:        "public",
		zonePrivate:       "public private",
		zoneLoopback:      "public private loopback",
	}
	for address, class := range tests {
		for z, classes := range allowed {
			want := class != always && strings.Contains(classes, class)
			err := z.judge("registry.test", netip.MustParseAddr(address))
			if got := err == nil; got != want {
				t.Errorf("zone %d, %s: %v, want allowed = %v", z, address, err, want)
			}
		}
		literal := zoneNamedLoopback.judge("localhost", netip.MustParseAddr(address)) == nil
		if want := class == "loopback"; literal != want {
			t.Errorf("localhost at %s: allowed = %v, want %v", address, literal, want)
		}
	}
	if err := zoneNamed.judge("x", netip.Addr{}); err == nil {
		t.Error("the invalid address is allowed")
	}
}

// dnsResolver answers every question for an A record with the next of ips, so
// that a name means something else each time it is asked for.
func dnsResolver(t *testing.T, ips ...string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for n := 0; ; {
			size, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:size]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Header.Response, m.Additionals = true, nil
			if q.Type == dnsmessage.TypeA {
				ip := netip.MustParseAddr(ips[min(n, len(ips)-1)])
				n++
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
					Body:   &dnsmessage.AResource{A: ip.As4()},
				}}
			}
			if packed, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(packed, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// These connect, or would, through the real dialer.
func TestDialRefusals(t *testing.T) {
	_, desc, _ := testArtifact("{}")
	reached := false
	loopback := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	_, port, _ := net.SplitHostPort(loopback.Host)
	tests := map[string]struct {
		host string
		ips  []string
		rule string
	}{
		"a name for loopback":           {"registry.test:" + port, []string{"127.0.0.1"}, "loopback"},
		"a name for metadata":           {"registry.test", []string{"169.254.169.254"}, "metadata"},
		"metadata by its address":       {"169.254.169.254", nil, "metadata"},
		"metadata in NAT64":             {"[64:ff9b::a9fe:a9fe]", nil, "metadata"},
		"unspecified":                   {"0.0.0.0:" + port, nil, "unspecified"},
		"a name under localhost":        {"a.localhost:" + port, []string{"127.0.0.1"}, "loopback"},
		"rebinding to loopback at once": {"registry.test:" + port, []string{"127.0.0.1", "8.8.8.8"}, "loopback"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := newTestClient(t, func(o *Options) { o.resolver = dnsResolver(t, append(test.ips, "192.0.2.1")...) })
			_, err := c.Manifest(t.Context(), reference.Repository{Host: test.host, Path: "a"}, desc.Digest)
			if !errors.Is(err, reason.RegistryUnavailable) || err == nil || !strings.Contains(err.Error(), test.rule) {
				t.Errorf("got %v, want RegistryUnavailable naming the rule %q", err, test.rule)
			}
			if e, _ := reason.Of(err); e == nil || !strings.Contains(e.WhatToDo(), "address") {
				t.Errorf("the advice of %v says nothing about addresses", err)
			}
		})
	}
	if reached {
		t.Error("a refused address was contacted")
	}
}

func TestProxy(t *testing.T) {
	_, desc, _ := testArtifact("{}")
	var asked []string
	proxy := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.Host)
		w.WriteHeader(http.StatusBadGateway)
	}))
	// The operator named the proxy, which lies on loopback here.
	c := newTestClient(t, func(o *Options) {
		o.MaxAttempts = 1
		o.proxy = func(*http.Request) (*url.URL, error) { return url.Parse("http://user:pw@" + proxy.Host) }
	})
	_, err := c.Manifest(t.Context(), reference.Repository{Host: "registry.test", Path: "a"}, desc.Digest)
	if !errors.Is(err, reason.RegistryUnavailable) || strings.Contains(err.Error(), "pw") {
		t.Errorf("got %v, want RegistryUnavailable without the proxy's password", err)
	}
	if len(asked) != 1 || asked[0] != "CONNECT registry.test:443" {
		t.Errorf("the proxy was asked for %q, want the registry", asked)
	}
	for _, host := range []string{"169.254.169.254", "[fd00:ec2::254]", "0.0.0.0:1"} {
		asked = nil
		_, err = c.Manifest(t.Context(), reference.Repository{Host: host, Path: "a"}, desc.Digest)
		if !errors.Is(err, reason.RegistryUnavailable) || len(asked) != 0 {
			t.Errorf("%s through the proxy: %v, asked %q, want it refused", host, err, asked)
		}
	}
}

func TestPlainNames(t *testing.T) {
	_, desc, _ := testArtifact("{}")
	var log requestLog
	c := newTestClient(t, withLog(&log))
	for _, repo := range []reference.Repository{
		{}, {Host: "registry.test"}, {Host: "Registry.test", Path: "a"}, {Host: "registry.test", Path: "a/../b"},
		{Host: "registry.test", Path: "a?x=y"}, {Host: "user@registry.test", Path: "a"}, {Host: "registry.test:443", Path: "a"},
		{Host: "registry.test/x", Path: "A"}, {Host: "registry.test", Path: "a\r\nX: y"},
	} {
		if _, err := c.Manifest(t.Context(), repo, desc.Digest); !errors.Is(err, reason.UnsupportedArtifact) {
			t.Errorf("%q: %v, want UnsupportedArtifact", repo, err)
		}
	}
	if got := log.take(); len(got) != 0 {
		t.Errorf("requests were sent: %q", got)
	}
}
