package reference

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

const (
	dockerHub = "docker.io"
	// defaultPort is that of https. Port 80 is never removed: a registry is
	// reached by https there too, and is another one than that at port 443.
	defaultPort = "443"
	maxShown    = 200
)

var (
	// pathRegexp is the grammar of <name> in the OCI distribution
	// specification 1.1, "Pulling manifests".
	pathRegexp = regexp.MustCompile(`\A[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*\z`)
	// tagRegexp is the grammar of a tag in the same place.
	tagRegexp = regexp.MustCompile(`\A[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\z`)
	// labelRegexp is one DNS label of a host name (RFC 1123, section 2.1).
	labelRegexp  = regexp.MustCompile(`\A[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\z`)
	digestRegexp = regexp.MustCompile(`\A[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-fA-F]{32,128}\z`)
	shaRegexp    = regexp.MustCompile(`\Asha[0-9]+:[0-9a-zA-Z]*\z`)
	sha256Regexp = regexp.MustCompile(`\Asha256:[0-9a-f]{64}\z`)
	numberRegexp = regexp.MustCompile(`\A[0-9]+\z`)
	// numericRegexp matches labels that some resolvers read as a number.
	numericRegexp = regexp.MustCompile(`\A(?:[0-9]+|0x[0-9a-f]*)\z`)
)

// ParseHost returns the canonical spelling of a registry host with its
// optional port, as Parse applies it. Errors are UnsupportedArtifact.
func ParseHost(s string) (string, error) {
	switch {
	case len(s) > maxInputBytes:
		return "", refuse(s, "the host has %d bytes, at most %d are read", len(s), maxInputBytes)
	case strings.ContainsAny(s, "/@"):
		return "", refuse(s, "a host holds neither / nor @").WithAdvice("write HOST or HOST:PORT alone")
	}
	return canonicalHost(s, s)
}

// canonicalHost makes the one spelling of text; s is the whole name, for messages.
func canonicalHost(s, text string) (string, error) {
	text = strings.ToLower(text)
	name, port, err := splitPort(s, text)
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(name, "[") {
		if name, err = canonicalIPv6(s, name); err != nil {
			return "", err
		}
	} else {
		name = strings.TrimSuffix(name, ".")
		if err := checkHostName(s, name); err != nil {
			return "", err
		}
	}
	switch {
	case !strings.ContainsAny(name, ".:") && name != "localhost":
		// A name without a dot is known for a host by its port alone.
		if port == "" {
			return "", refuse(s, "the host %q has neither a dot nor a port", shown(name)).
				WithAdvice("write the registry with its domain or its port, such as %s:443", shown(name))
		}
	case port == defaultPort && !isLoopback(name):
		// Loopback registries may speak http, where the default is another.
		port = ""
	}
	if isDockerHub(name) && port == "" {
		return dockerHub, nil
	}
	if port != "" {
		return name + ":" + port, nil
	}
	return name, nil
}

// isDockerHub reports the names under which Docker Hub serves the same repositories.
func isDockerHub(name string) bool {
	return name == dockerHub || name == "index.docker.io" || name == "registry-1.docker.io"
}

// splitPort separates a port, which must be a plain decimal number.
func splitPort(s, text string) (name, port string, err error) {
	end := 0 // of a bracketed address
	if strings.HasPrefix(text, "[") {
		end = strings.IndexByte(text, ']') + 1
		if end == 0 {
			return "", "", refuse(s, "the bracket around the IPv6 address is not closed").
				WithAdvice("write it as [ADDRESS] or [ADDRESS]:PORT")
		}
	}
	rest := text[end:]
	i := strings.IndexByte(rest, ':')
	if i < 0 {
		return text, "", nil
	}
	name, port = text[:end+i], rest[i+1:]
	if strings.Contains(port, ":") {
		return "", "", refuse(s, "the host holds more than one colon").
			WithAdvice("write an IPv6 address in brackets, such as [2001:db8::1]:5000")
	}
	n, convErr := strconv.ParseUint(port, 10, 16)
	if convErr != nil || n == 0 || port[0] == '0' || !isNumber(port) {
		return "", "", refuse(s, "the port %q is no number from 1 to 65535", shown(port)).
			WithAdvice("write HOST:PORT with a plain decimal port, or leave the port out")
	}
	return name, port, nil
}

// canonicalIPv6 returns the RFC 5952 spelling in brackets.
func canonicalIPv6(s, name string) (string, error) {
	inner, closed := strings.CutSuffix(strings.TrimPrefix(name, "["), "]")
	addr, err := netip.ParseAddr(inner)
	if !closed || err != nil || !addr.Is6() || addr.Zone() != "" {
		return "", refuse(s, "%q is no IPv6 address in brackets without zone", shown(name)).
			WithAdvice("write it as [ADDRESS], such as [2001:db8::1]")
	}
	if addr.Is4In6() {
		return "", refuse(s, "%q is an IPv4 address in the guise of an IPv6 address", shown(name)).
			WithAdvice("write it as %s", addr.Unmap())
	}
	return "[" + addr.String() + "]", nil
}

// checkHostName accepts DNS names and IPv4 addresses in dotted decimal.
func checkHostName(s, name string) error {
	if len(name) > 253 {
		return refuse(s, "the host has %d characters, DNS allows 253", len(name)).WithAdvice("use a shorter host name")
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if !labelRegexp.MatchString(label) {
			return refuse(s, "%q is no host name: the label %q does not fit RFC 1123", shown(name), shown(label)).
				WithAdvice("write letters, digits and inner hyphens, at most 63 a label; internationalized names in punycode")
		}
	}
	// Resolvers read 127.1, 0x7f.1 and 2130706433 as addresses. Only one
	// spelling of an address may pass.
	if numericRegexp.MatchString(labels[len(labels)-1]) {
		if addr, err := netip.ParseAddr(name); err != nil || !addr.Is4() {
			return refuse(s, "the host %q ends in a number but is no IPv4 address in dotted decimal", shown(name)).
				WithAdvice("write four decimal numbers, such as 192.0.2.1")
		}
	}
	return nil
}

func newRepository(s, host, path string) (Repository, error) {
	if !pathRegexp.MatchString(path) {
		e := refuse(s, "the path %q does not fit the OCI grammar", shown(path))
		if lower := strings.ToLower(path); lower != path && pathRegexp.MatchString(lower) {
			return Repository{}, e.WithAdvice("repository paths are lower case: write %s/%s", shown(host), shown(lower))
		}
		return Repository{}, e.WithAdvice("write lower-case letters and digits, with single . _ __ or hyphens between them, and / between segments")
	}
	if host == dockerHub && !strings.Contains(path, "/") {
		// Docker Hub's official images; docker reads it so too.
		path = "library/" + path
	}
	r := Repository{Host: host, Path: path}
	if n := len(r.String()); n > MaxRepositoryBytes {
		return Repository{}, refuse(s, "host and path have %d bytes, at most %d are allowed", n, MaxRepositoryBytes).
			WithAdvice("use a shorter repository name")
	}
	return r, nil
}

func checkTag(s, tag string) error {
	if tagRegexp.MatchString(tag) {
		return nil
	}
	return refuse(s, "the tag %q does not fit the OCI grammar", shown(tag)).
		WithAdvice("write 1 to %d letters, digits, dots, hyphens and underscores, not beginning with a dot or hyphen", MaxTagBytes)
}

func parseDigest(s, text string) (digest.Digest, error) {
	if sha256Regexp.MatchString(text) {
		return digest.Digest(text), nil
	}
	algorithm, hex, _ := strings.Cut(text, ":")
	switch {
	case algorithm == "sha256" && sha256Regexp.MatchString(strings.ToLower(text)):
		return "", refuse(s, "the digest is written with capital letters").
			WithAdvice("write it in lower case: %s", strings.ToLower(text))
	case algorithm == "sha256":
		return "", refuse(s, "the digest has %d characters after sha256:, or others than 64 of 0-9 a-f", len(hex)).
			WithAdvice("write sha256: and 64 hexadecimal digits; `confine resolve REPO:TAG` prints the digest")
	default:
		return "", refuse(s, "the digest is not sha256").
			WithAdvice("use the sha256 digest; `confine resolve REPO:TAG` prints it")
	}
}

// digestLike tells a digest, be it a supported one or not, from a host.
func digestLike(s string) bool {
	return digestRegexp.MatchString(s) || shaRegexp.MatchString(s)
}

func isNumber(s string) bool { return numberRegexp.MatchString(s) }

// hostOnly returns the canonical host without its port.
func hostOnly(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		return host[:i]
	}
	return host
}

// isLoopback judges a canonical host without port.
func isLoopback(name string) bool {
	if name == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(name, "["), "]"))
	return err == nil && addr.IsLoopback()
}

// shown makes foreign text fit for a message: no credentials, one line, short.
func shown(s string) string {
	if i := strings.LastIndexByte(s, '@'); i >= 0 && !digestLike(s[i+1:]) {
		s = "[removed]" + s[i:]
	} else if j := strings.IndexByte(s, '@'); j >= 0 && j != i {
		s = "[removed]" + s[i:]
	}
	quoted := strconv.QuoteToASCII(s)
	s = quoted[1 : len(quoted)-1]
	if len(s) > maxShown {
		s = s[:maxShown] + "…"
	}
	return s
}
