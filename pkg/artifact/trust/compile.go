package trust

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/reason"
)

// Bounds on one policy, the same as those of the API type.
const (
	maxRepositories   = 64
	maxNamespaces     = 256
	maxSigners        = 32
	maxKinds          = 16
	maxFloors         = 64
	maxRevokedDigests = 1024
	maxRevokedKeys    = 256
	maxPolicyName     = 253
	maxSignerName     = 63
	maxLimitsBytes    = 256 << 10
)

// anyNamespace is the single entry that stands for all namespaces.
const anyNamespace = "*"

var (
	// dnsLabelRegexp is RFC 1123, section 2.1, as Kubernetes names namespaces.
	dnsLabelRegexp = regexp.MustCompile(`\A[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\z`)
	kindRegexp     = regexp.MustCompile(`\A[a-z][a-z0-9-]{0,62}\z`)
	sha256Regexp   = regexp.MustCompile(`\Asha256:[0-9a-f]{64}\z`)
)

// policy is one compiled policy. It is never changed after Compile.
type policy struct {
	name           string
	repositories   []pattern
	namespaces     map[string]struct{}
	signers        []signer
	threshold      int
	kinds          map[string]struct{}
	limits         map[string]json.RawMessage
	requireName    bool
	revokedDigests map[digest.Digest]struct{}
	revokedKeys    map[string]struct{}
	floors         []floor
}

type signer struct {
	name                string
	credential          *credential
	notBefore, notAfter time.Time
}

type floor struct {
	repositories pattern
	version      string
}

// label is how messages call a signer.
func (p *policy) label(s signer) string { return p.name + "/" + s.name }

// compiler shares credentials between the policies that name the same key.
type compiler struct {
	credentials map[string]*credential
}

func (c *compiler) policy(in Policy) (*policy, error) {
	if err := checkLabel(in.Name, maxPolicyName); err != nil {
		return nil, fmt.Errorf("name: %w", err)
	}
	p := &policy{name: in.Name, threshold: in.Threshold, requireName: in.RequireName}
	steps := []func(Policy) error{
		p.setRepositories, p.setNamespaces, func(in Policy) error { return c.setSigners(p, in) },
		p.setKinds, p.setLimits, p.setRevoked, p.setFloors,
	}
	for _, step := range steps {
		if err := step(in); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *policy) setRepositories(in Policy) error {
	if err := checkCount("repositories", len(in.Repositories), 1, maxRepositories); err != nil {
		return err
	}
	for i, text := range in.Repositories {
		parsed, err := parsePattern(text)
		if err != nil {
			return fmt.Errorf("repositories[%d]: %w", i, err)
		}
		p.repositories = append(p.repositories, parsed)
	}
	return nil
}

func (p *policy) setNamespaces(in Policy) error {
	if err := checkCount("namespaces", len(in.Namespaces), 1, maxNamespaces); err != nil {
		return err
	}
	p.namespaces = make(map[string]struct{}, len(in.Namespaces))
	for i, namespace := range in.Namespaces {
		switch {
		case namespace == anyNamespace && len(in.Namespaces) != 1:
			return fmt.Errorf("namespaces[%d]: * stands alone or not at all", i)
		case namespace != anyNamespace && !dnsLabelRegexp.MatchString(namespace):
			return fmt.Errorf("namespaces[%d]: %.80q is no namespace name", i, namespace)
		}
		p.namespaces[namespace] = struct{}{}
	}
	return nil
}

func (c *compiler) setSigners(p *policy, in Policy) error {
	if err := checkCount("signers", len(in.Signers), 1, maxSigners); err != nil {
		return err
	}
	if in.Threshold < 1 || in.Threshold > len(in.Signers) {
		return fmt.Errorf("threshold: it is %d, and must be from 1 to the number of signers, %d", in.Threshold, len(in.Signers))
	}
	for i, s := range in.Signers {
		compiled, err := c.signer(s)
		if err != nil {
			return fmt.Errorf("signers[%d].%w", i, err)
		}
		for _, other := range p.signers {
			switch {
			case other.name == compiled.name:
				return fmt.Errorf("signers[%d].name: %.80q is the name of another signer", i, s.Name)
			case other.credential.id == compiled.credential.id:
				return fmt.Errorf("signers[%d].key: signer %.80q has the same key", i, other.name)
			}
		}
		p.signers = append(p.signers, compiled)
	}
	return nil
}

func (c *compiler) signer(in Signer) (signer, error) {
	if err := checkLabel(in.Name, maxSignerName); err != nil {
		return signer{}, fmt.Errorf("name: %w", err)
	}
	for field, at := range map[string]time.Time{"notBefore": in.NotBefore, "notAfter": in.NotAfter} {
		if year := at.UTC().Year(); year < 1 || year > 9999 { // RFC 3339
			return signer{}, fmt.Errorf("%s: the year %d is out of range", field, year)
		}
	}
	if !in.NotBefore.IsZero() && !in.NotAfter.IsZero() && !in.NotBefore.Before(in.NotAfter) {
		return signer{}, errors.New("notAfter: it is not after notBefore, so the key would never count")
	}
	cred, err := newCredential(in.KeyPEM)
	if err != nil {
		return signer{}, fmt.Errorf("key.pem: %w", err)
	}
	if shared, ok := c.credentials[cred.id]; ok {
		cred = shared
	} else {
		c.credentials[cred.id] = cred
	}
	return signer{name: in.Name, credential: cred, notBefore: in.NotBefore, notAfter: in.NotAfter}, nil
}

func (p *policy) setKinds(in Policy) error {
	if err := checkCount("allowedKinds", len(in.AllowedKinds), 1, maxKinds); err != nil {
		return err
	}
	p.kinds = make(map[string]struct{}, len(in.AllowedKinds))
	for i, kind := range in.AllowedKinds {
		if !kindRegexp.MatchString(kind) {
			return fmt.Errorf("allowedKinds[%d]: %.80q is no name of a kind", i, kind)
		}
		p.kinds[kind] = struct{}{}
	}
	return nil
}

func (p *policy) setLimits(in Policy) error {
	if err := checkCount("constraints", len(in.Limits), 0, maxKinds); err != nil {
		return err
	}
	p.limits = make(map[string]json.RawMessage, len(in.Limits))
	for kind, limits := range in.Limits {
		var compact bytes.Buffer
		switch {
		case !kindRegexp.MatchString(kind):
			return fmt.Errorf("constraints: %.80q is no name of a kind", kind)
		case len(limits) > maxLimitsBytes:
			return fmt.Errorf("constraints.%s: it has %d bytes, at most %d are allowed", kind, len(limits), maxLimitsBytes)
		case len(limits) == 0 || string(bytes.TrimSpace(limits)) == "null":
			continue // as if absent: the safe default
		case json.Compact(&compact, limits) != nil:
			return fmt.Errorf("constraints.%s: it is not JSON", kind)
		}
		p.limits[kind] = compact.Bytes()
	}
	return nil
}

func (p *policy) setRevoked(in Policy) error {
	if err := checkCount("revoked.digests", len(in.RevokedDigests), 0, maxRevokedDigests); err != nil {
		return err
	}
	if err := checkCount("revoked.keys", len(in.RevokedKeys), 0, maxRevokedKeys); err != nil {
		return err
	}
	p.revokedDigests = make(map[digest.Digest]struct{}, len(in.RevokedDigests))
	for i, d := range in.RevokedDigests {
		if !sha256Regexp.MatchString(string(d)) {
			return fmt.Errorf("revoked.digests[%d]: %.80q is not sha256: and 64 lower-case hexadecimal digits", i, d)
		}
		p.revokedDigests[d] = struct{}{}
	}
	p.revokedKeys = make(map[string]struct{}, len(in.RevokedKeys))
	for i, id := range in.RevokedKeys {
		if !sha256Regexp.MatchString(id) {
			return fmt.Errorf("revoked.keys[%d]: %.80q is not sha256: and 64 lower-case hexadecimal digits", i, id)
		}
		p.revokedKeys[id] = struct{}{}
	}
	return nil
}

func (p *policy) setFloors(in Policy) error {
	if err := checkCount("floor", len(in.Floors), 0, maxFloors); err != nil {
		return err
	}
	for i, f := range in.Floors {
		repositories, err := parsePattern(f.Repositories)
		if err != nil {
			return fmt.Errorf("floor[%d].repositories: %w", i, err)
		}
		version, ok := pack.ParseVersion(f.Version)
		if !ok {
			return fmt.Errorf("floor[%d].version: %.80q is no semantic version such as 1.4.0", i, f.Version)
		}
		p.floors = append(p.floors, floor{repositories: repositories, version: version})
	}
	return nil
}

func checkCount(field string, n, least, most int) error {
	switch {
	case n < least:
		return fmt.Errorf("%s: it is empty", field)
	case n > most:
		return fmt.Errorf("%s: it has %d entries, at most %d are allowed", field, n, most)
	}
	return nil
}

// checkLabel bounds names that messages repeat.
func checkLabel(name string, most int) error {
	odd := func(r rune) bool { return r == '/' || !unicode.IsPrint(r) }
	switch {
	case name == "":
		return errors.New("it is empty")
	case len(name) > most:
		return fmt.Errorf("it has %d bytes, at most %d are allowed", len(name), most)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, odd):
		return errors.New("it holds a slash or a character that cannot be printed")
	}
	return nil
}

// Compile validates policies as a whole. One that is not valid makes all of
// them unusable: were it left out, the others might admit what it refuses.
// Errors are TrustPolicyInvalid and name policy and field.
func Compile(policies []Policy) (*Policies, error) {
	c := &compiler{credentials: make(map[string]*credential)}
	compiled := &Policies{}
	for i, in := range policies {
		object := fmt.Sprintf("TrustPolicy %.80q", in.Name)
		if slices.ContainsFunc(policies[:i], func(other Policy) bool { return other.Name == in.Name }) {
			return nil, reason.New(reason.TrustPolicyInvalid, object, "name: another policy has the same name")
		}
		p, err := c.policy(in)
		if err != nil {
			return nil, reason.New(reason.TrustPolicyInvalid, object, "%s", err.Error())
		}
		compiled.all = append(compiled.all, p)
	}
	slices.SortFunc(compiled.all, func(a, b *policy) int { return strings.Compare(a.name, b.name) })
	return compiled, nil
}
