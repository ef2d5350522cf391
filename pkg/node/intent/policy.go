package intent

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/reason"
)

// DecodePolicies reads the TrustPolicies of one file. One that cannot be read
// makes the whole file TrustPolicyInvalid: the others never suffice.
func DecodePolicies(file string, data []byte) ([]trust.Policy, error) {
	docs, err := documents(file, data)
	if err != nil {
		return nil, policyInvalid(file, err)
	}
	policies := make([]trust.Policy, 0, len(docs))
	for _, doc := range docs {
		policy, err := decodePolicy(doc)
		if err != nil {
			return nil, policyInvalid(doc.origin, err)
		}
		policies = append(policies, policy)
	}
	return policies, nil
}

func decodePolicy(doc document) (trust.Policy, error) {
	if err := doc.expect(v1alpha1.KindTrustPolicy); err != nil {
		return trust.Policy{}, err
	}
	var object v1alpha1.TrustPolicy
	if err := doc.decodeStrict(&object); err != nil {
		return trust.Policy{}, err
	}
	if err := doc.checkNoEmptyField(); err != nil {
		return trust.Policy{}, err
	}
	if object.Namespace != "" {
		return trust.Policy{}, errors.New("metadata.namespace is set, but a TrustPolicy has no namespace")
	}
	return PolicyOf(&object)
}

// PolicyOf turns a TrustPolicy into plain terms. trust.Compile judges it.
func PolicyOf(object *v1alpha1.TrustPolicy) (trust.Policy, error) {
	spec := object.Spec
	policy := trust.Policy{
		Name:         object.Name,
		Repositories: spec.Repositories,
		Namespaces:   spec.Namespaces,
		Threshold:    int(spec.Threshold),
		AllowedKinds: spec.AllowedKinds,
		RequireName:  spec.RequireName,
	}
	for _, s := range spec.Signers {
		signer, err := signerOf(s)
		if err != nil {
			return trust.Policy{}, err
		}
		policy.Signers = append(policy.Signers, signer)
	}
	if spec.Revoked != nil {
		for _, d := range spec.Revoked.Digests {
			policy.RevokedDigests = append(policy.RevokedDigests, digest.Digest(d))
		}
		policy.RevokedKeys = spec.Revoked.Keys
	}
	for _, f := range spec.Floor {
		policy.Floors = append(policy.Floors, trust.Floor{Repositories: f.Repositories, Version: f.Version})
	}
	if spec.Constraints != nil {
		limits, err := limitsOf(spec.Constraints)
		if err != nil {
			return trust.Policy{}, err
		}
		policy.Limits = limits
	}
	return policy, nil
}

func signerOf(s v1alpha1.Signer) (trust.Signer, error) {
	if s.Key == nil {
		return trust.Signer{}, fmt.Errorf("signer %.63q: no key is given", s.Name)
	}
	signer := trust.Signer{Name: s.Name, KeyPEM: []byte(s.Key.PEM)}
	for _, bound := range []struct {
		from *metav1.Time
		to   func(metav1.Time)
	}{
		{s.Key.NotBefore, func(t metav1.Time) { signer.NotBefore = t.Time }},
		{s.Key.NotAfter, func(t metav1.Time) { signer.NotAfter = t.Time }},
	} {
		if bound.from == nil {
			continue
		}
		if bound.from.IsZero() {
			return trust.Signer{}, fmt.Errorf("signer %.63q: a time of its validity is empty", s.Name)
		}
		bound.to(*bound.from)
	}
	return signer, nil
}

// limitsOf hands each kind its constraints as they stand, by the kind's name,
// so that nothing here knows the kinds.
func limitsOf(constraints *v1alpha1.Constraints) (map[string]json.RawMessage, error) {
	raw, err := json.Marshal(constraints)
	if err != nil {
		return nil, fmt.Errorf("constraints: %w", err)
	}
	limits := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &limits); err != nil {
		return nil, fmt.Errorf("constraints: %w", err)
	}
	return limits, nil
}

func policyInvalid(origin string, err error) *reason.Error {
	return reason.New(reason.TrustPolicyInvalid, origin, "%w", err)
}
