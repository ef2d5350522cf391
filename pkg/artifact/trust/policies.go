package trust

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/semver"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/reason"
)

// Policies are compiled trust policies. They are immutable and safe for
// concurrent use. The zero value trusts nothing.
type Policies struct {
	all []*policy // sorted by name
}

// Matched are all policies that match one source repository and namespace;
// every one of them must pass. There is at least one. It is immutable and
// safe for concurrent use.
type Matched struct {
	repo      reference.Repository
	namespace string
	policies  []*policy // sorted by name
}

// Matching returns the policies for a source repository and a namespace, or
// NoTrustPolicy: then nothing of that source is trusted, and the registry need
// not be contacted. A policy for all namespaces matches the empty one too.
func (p *Policies) Matching(repo reference.Repository, namespace string) (*Matched, error) {
	matched := &Matched{repo: repo, namespace: namespace}
	for _, candidate := range p.policies() {
		if candidate.matches(repo, namespace) {
			matched.policies = append(matched.policies, candidate)
		}
	}
	if len(matched.policies) == 0 {
		return nil, reason.New(reason.NoTrustPolicy, repo.String(), "none of %d policies matches this repository in namespace %.80q", len(p.policies()), namespace)
	}
	return matched, nil
}

func (p *Policies) policies() []*policy {
	if p == nil {
		return nil
	}
	return p.all
}

func (p *policy) matches(repo reference.Repository, namespace string) bool {
	_, all := p.namespaces[anyNamespace]
	_, named := p.namespaces[namespace]
	return (all || named) && slices.ContainsFunc(p.repositories, func(pt pattern) bool { return pt.matches(repo) })
}

// Names returns the matching policies' names, sorted.
func (m *Matched) Names() []string {
	names := make([]string, 0, len(m.policies))
	for _, p := range m.policies {
		names = append(names, p.name)
	}
	return names
}

// meaning is everything about a policy that can change a verdict, in one order.
type meaning struct {
	Name           string
	Repositories   []string
	Namespaces     []string
	Signers        []signerMeaning
	Threshold      int
	Kinds          []string
	Limits         map[string]json.RawMessage // encoding/json sorts the keys
	RequireName    bool
	RevokedDigests []digest.Digest
	RevokedKeys    []string
	Floors         []string
}

type signerMeaning struct {
	Name, Key           string
	NotBefore, NotAfter time.Time
}

// Fingerprint is the same for the same meaning, however the policies were
// written, and changes whenever a verdict could.
func (m *Matched) Fingerprint() digest.Digest {
	meanings := make([]meaning, 0, len(m.policies))
	for _, p := range m.policies {
		meanings = append(meanings, p.meaning())
	}
	data, err := json.Marshal(meanings)
	if err != nil {
		// Compile has refused limits and times that do not fit JSON. Should one
		// slip through: never the same, so nothing is remembered by it.
		return digest.FromString(time.Now().String())
	}
	return digest.FromBytes(data)
}

func (p *policy) meaning() meaning {
	out := meaning{
		Name: p.name, Threshold: p.threshold, RequireName: p.requireName, Limits: p.limits,
		Namespaces:     slices.Sorted(maps.Keys(p.namespaces)),
		Kinds:          slices.Sorted(maps.Keys(p.kinds)),
		RevokedDigests: slices.Sorted(maps.Keys(p.revokedDigests)),
		RevokedKeys:    slices.Sorted(maps.Keys(p.revokedKeys)),
	}
	for _, r := range p.repositories {
		out.Repositories = append(out.Repositories, r.String())
	}
	for _, f := range p.floors {
		out.Floors = append(out.Floors, f.repositories.String()+" "+f.version)
	}
	for _, s := range p.signers {
		out.Signers = append(out.Signers, signerMeaning{s.name, s.credential.id, s.notBefore.UTC(), s.notAfter.UTC()})
	}
	slices.Sort(out.Repositories)
	slices.Sort(out.Floors)
	slices.SortFunc(out.Signers, func(a, b signerMeaning) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// CheckKind returns ProfileForbidden unless every matching policy allows kind.
func (m *Matched) CheckKind(kind string) error {
	if len(m.policies) == 0 {
		return m.noPolicy()
	}
	for _, p := range m.policies {
		if _, ok := p.kinds[kind]; !ok {
			return reason.New(reason.ProfileForbidden, m.repo.String(), "TrustPolicy %q does not allow the kind %.80q", p.name, kind).
				WithAdvice("leave the %.80q profile out, or add the kind to allowedKinds of TrustPolicy %q", kind, p.name)
		}
	}
	return nil
}

// Limits returns the constraints on kind, one entry a matching policy in the
// order of Names, nil where a policy states none.
func (m *Matched) Limits(kind string) []json.RawMessage {
	limits := make([]json.RawMessage, 0, len(m.policies))
	for _, p := range m.policies {
		limits = append(limits, bytes.Clone(p.limits[kind]))
	}
	return limits
}

// CheckRevoked returns Revoked where any matching policy revokes any of the
// digests: the pinned one, and that of an index's child.
func (m *Matched) CheckRevoked(digests ...digest.Digest) error {
	if len(m.policies) == 0 {
		return m.noPolicy()
	}
	for _, p := range m.policies {
		for _, d := range digests {
			if _, ok := p.revokedDigests[d]; ok {
				return reason.New(reason.Revoked, m.repo.String()+"@"+string(d), "TrustPolicy %q revokes this digest", p.name)
			}
		}
	}
	return nil
}

// CheckAnnotations judges the signed annotations of the manifest that sub
// names. A version that is missing, no semantic version or less than a floor
// is Revoked; a name that is missing or not the owner's is IdentityMismatch
// where a policy requires it.
func (m *Matched) CheckAnnotations(sub Subject, annotations map[string]string) error {
	if len(m.policies) == 0 {
		return m.noPolicy()
	}
	for _, p := range m.policies {
		if err := p.checkFloors(sub, annotations); err != nil {
			return err
		}
		if err := p.checkName(sub, annotations); err != nil {
			return err
		}
	}
	return nil
}

func (p *policy) checkFloors(sub Subject, annotations map[string]string) error {
	for _, f := range p.floors {
		if !f.repositories.matches(sub.Repository) {
			continue
		}
		text, present := annotations[pack.AnnotationVersion]
		version, ok := pack.ParseVersion(text)
		least := strings.TrimPrefix(f.version, "v")
		switch {
		case !present:
			return revokedVersion(sub, p, least, "the artifact has no %s annotation", pack.AnnotationVersion)
		case !ok:
			return revokedVersion(sub, p, least, "its %s annotation %.80q is no semantic version", pack.AnnotationVersion, text)
		case semver.Compare(version, f.version) < 0:
			return revokedVersion(sub, p, least, "its version is %s", text)
		}
	}
	return nil
}

func revokedVersion(sub Subject, p *policy, least, format string, args ...any) error {
	e := reason.New(reason.Revoked, sub.object(), format, args...)
	e.Detail = "TrustPolicy " + p.name + " demands at least version " + least + ": " + e.Detail
	return e.WithAdvice("reference a digest whose signed %s annotation is at least %s", pack.AnnotationVersion, least)
}

func (p *policy) checkName(sub Subject, annotations map[string]string) error {
	if !p.requireName {
		return nil
	}
	want := sub.Owner.String()
	got := annotations[pack.AnnotationName]
	if sub.Owner.Namespace != "" && sub.Owner.Name != "" && got == want {
		return nil
	}
	return reason.New(reason.IdentityMismatch, sub.object(), "TrustPolicy %q demands the signed %s annotation %q, it is %.80q", p.name, pack.AnnotationName, want, got).
		WithAdvice("push the artifact with the name %s and sign it, or use it under the name it was made for", want)
}

// noPolicy refuses for a Matched that Matching did not make.
func (m *Matched) noPolicy() error {
	return reason.New(reason.NoTrustPolicy, m.repo.String(), "no policy was matched")
}

func (s Subject) object() string { return s.Repository.String() + "@" + string(s.Digest) }
