package registry

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// reach says how far into the local network an address lies. A host may send
// us at most as deep as it lies itself.
type reach int

const (
	reachPublic reach = iota
	reachPrivate
	reachLoopback
)

// zone is the rule under which a connection is opened. Connections of
// different zones are never shared: the check happens at dial time, and a
// pooled connection is not dialed again.
type zone int

const (
	// zoneNamed: the registry that the reference names; public or private.
	zoneNamed zone = iota
	// zoneNamedLoopback: the reference names loopback literally; that alone.
	zoneNamedLoopback
	// zonePublic: a host that a public registry sent us to.
	zonePublic
	// zonePrivate: a host that a private registry sent us to.
	zonePrivate
	// zoneLoopback: a host that a loopback registry sent us to.
	zoneLoopback
)

// addressError is a connection refused by our own rules.
type addressError struct {
	host string
	addr netip.Addr
	rule string
}

func (e *addressError) Error() string {
	if e.host == e.addr.String() {
		return fmt.Sprintf("address %s is refused: %s", e.addr, e.rule)
	}
	return fmt.Sprintf("address %s of %s is refused: %s", e.addr, e.host, e.rule)
}

// prefixRule refuses a range of addresses always.
type prefixRule struct {
	prefix netip.Prefix
	rule   string
}

// refusedPrefixes lists what no registry, storage or token service has any
// business on. Cloud metadata addresses: AWS, GCP and Azure document
// 169.254.169.254; AWS fd00:ec2::254 and ::23; GCP fd20:ce::254; Alibaba
// 100.100.100.200; Azure's wire server 168.63.129.16; Oracle 192.0.0.192.
func refusedPrefixes() []prefixRule {
	const metadata = "cloud metadata service"
	rule := func(prefix, text string) prefixRule { return prefixRule{netip.MustParsePrefix(prefix), text} }
	return []prefixRule{
		rule("169.254.169.254/32", metadata),
		rule("fd00:ec2::254/128", metadata),
		rule("fd00:ec2::23/128", metadata),
		rule("fd20:ce::254/128", metadata),
		rule("100.100.100.200/32", metadata),
		rule("168.63.129.16/32", metadata),
		rule("192.0.0.0/24", metadata),
		rule("169.254.0.0/16", "link-local address"),
		rule("fe80::/10", "link-local address"),
		rule("fec0::/10", "site-local address"),
		rule("0.0.0.0/8", "unspecified address"),
		rule("::/128", "unspecified address"),
		rule("224.0.0.0/4", "multicast address"),
		rule("ff00::/8", "multicast address"),
		rule("255.255.255.255/32", "broadcast address"),
		rule("240.0.0.0/4", "reserved address"),
		rule("2001::/32", "Teredo address"),
		rule("64:ff9b:1::/48", "local-use translation address"),
	}
}

// unwrap returns the IPv4 address inside an IPv6 one, if there is one:
// IPv4-mapped, IPv4-compatible and IPv4-translated (RFC 4291, RFC 2765),
// NAT64 (RFC 6052) and 6to4 (RFC 3056).
func unwrap(ip netip.Addr) netip.Addr {
	ip = ip.WithZone("").Unmap()
	if !ip.Is6() {
		return ip
	}
	b := ip.As16()
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(ip),
		netip.MustParsePrefix("::ffff:0:0:0/96").Contains(ip):
		return netip.AddrFrom4([4]byte(b[12:16]))
	case netip.MustParsePrefix("2002::/16").Contains(ip):
		return netip.AddrFrom4([4]byte(b[2:6]))
	case netip.MustParsePrefix("::/96").Contains(ip) && !ip.IsUnspecified() && !ip.IsLoopback():
		return netip.AddrFrom4([4]byte(b[12:16]))
	}
	return ip
}

// classify says how far ip reaches, or the rule by which it is always refused.
func classify(ip netip.Addr) (reach, string) {
	inner := unwrap(ip)
	for _, refused := range refusedPrefixes() {
		if refused.prefix.Contains(inner) {
			return reachPublic, refused.rule
		}
	}
	switch {
	case !inner.IsValid():
		return reachPublic, "not an IP address"
	case inner.IsLoopback():
		return reachLoopback, ""
	case inner.IsPrivate(),
		netip.MustParsePrefix("100.64.0.0/10").Contains(inner),
		netip.MustParsePrefix("198.18.0.0/15").Contains(inner):
		return reachPrivate, ""
	}
	return reachPublic, ""
}

// judge decides whether a connection to ip, to which host was resolved, may be
// opened in z.
func (z zone) judge(host string, ip netip.Addr) error {
	refuse := func(rule string) error { return &addressError{host: host, addr: ip, rule: rule} }
	r, rule := classify(ip)
	switch {
	case rule != "":
		return refuse(rule)
	case literalLoopback(host) && r != reachLoopback:
		return refuse("the name means loopback, the address is another machine's")
	case r == reachLoopback && z != zoneNamedLoopback && z != zoneLoopback:
		return refuse("loopback address, and the reference does not name loopback")
	case r == reachPrivate && z == zonePublic:
		return refuse("private address, and the registry that sent us there is not private itself")
	}
	return nil
}

// sentBy is the zone of hosts that a host of the given reach sends us to.
func sentBy(r reach) zone {
	switch r {
	case reachLoopback:
		return zoneLoopback
	case reachPrivate:
		return zonePrivate
	default:
		return zonePublic
	}
}

// reachOf classifies the far end of an open connection; what is no IP address
// counts as public, the strictest.
func reachOf(addr net.Addr) reach {
	if addr == nil {
		return reachPublic
	}
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return reachPublic
	}
	r, rule := classify(ap.Addr())
	if rule != "" {
		return reachPublic
	}
	return r
}

// literalLoopback reports whether a host name, without port, means loopback by
// its spelling alone: localhost, 127.x.y.z or ::1.
func literalLoopback(hostname string) bool {
	hostname = strings.TrimSuffix(strings.TrimPrefix(hostname, "["), "]")
	if strings.EqualFold(hostname, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(hostname)
	return err == nil && ip.IsLoopback()
}
