package agent

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/node/intent"
	"github.com/confine-dev/confine/pkg/node/safedir"
)

// Puller pulls and judges artifacts; *artifact.Puller is one.
type Puller interface {
	Pull(ctx context.Context, from artifact.Fetcher, policies *trust.Policies, req artifact.Request) (*artifact.Artifact, error)
}

// Folders is the Source of standalone mode: one folder of SecurityProfiles and
// one of TrustPolicies.
type Folders struct {
	// Manifests and TrustDir are the folders.
	Manifests, TrustDir string
	// Puller judges.
	Puller Puller
}

// Profiles reads the folder of manifests.
func (f Folders) Profiles() (intent.Desired, error) { return intent.ReadProfiles(f.Manifests) }

// Trust reads the folder of policies, which nobody else may be able to change.
func (f Folders) Trust() (Trust, error) {
	if err := safedir.Check(f.TrustDir); err != nil {
		return nil, err
	}
	policies, err := intent.ReadPolicies(f.TrustDir)
	if err != nil {
		return nil, err
	}
	return NewTrust(f.Puller, policies), nil
}

// NewTrust returns a Trust that judges by compiled policies.
func NewTrust(puller Puller, policies *trust.Policies) Trust { return policyTrust{puller, policies} }

// policyTrust is a Trust of compiled policies.
type policyTrust struct {
	puller   Puller
	policies *trust.Policies
}

// Pull judges under the policies.
func (t policyTrust) Pull(ctx context.Context, from artifact.Fetcher, req artifact.Request) (*artifact.Artifact, error) {
	return t.puller.Pull(ctx, from, t.policies, req)
}

// Fingerprint is that of the matching policies.
func (t policyTrust) Fingerprint(repo reference.Repository, namespace string) (digest.Digest, error) {
	matched, err := t.policies.Matching(repo, namespace)
	if err != nil {
		return "", err
	}
	return matched.Fingerprint(), nil
}
