//go:build e2e

package e2e_test

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/test/e2e/lab"
)

// denyMkdir and denyChmod name one system call under all its names.
func denyMkdir() []string { return []string{"mkdir", "mkdirat"} }
func denyChmod() []string { return []string{"chmod", "fchmod", "fchmodat", "fchmodat2"} }

// push pushes a profile without some syscalls and returns its reference.
func (s *scene) push(repository, signer string, denied []string, extra ...string) string {
	s.t.Helper()
	profile, err := s.Without(denied, extra...)
	s.must(err)
	reference, err := s.Push(s.ctx(), s.namespace+"-"+repository, signer, profile)
	s.must(err)
	return reference
}

// trustTeam lets the scene's namespace use seccomp profiles that the team signed.
func (s *scene) trustTeam() {
	s.t.Helper()
	s.trust("seccomp")
}

// trust is trustTeam for other kinds too.
func (s *scene) trust(kinds ...string) {
	s.t.Helper()
	pem, err := s.PublicKey(lab.Team)
	s.must(err)
	s.must(s.Client.Create(s.ctx(), &v1alpha1.TrustPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: s.namespace},
		Spec: v1alpha1.TrustPolicySpec{
			Repositories: []string{s.Repository("*")}, Namespaces: []string{s.namespace}, Threshold: 1,
			Signers:      []v1alpha1.Signer{{Name: lab.Team, Key: &v1alpha1.KeySigner{PEM: pem}}},
			AllowedKinds: kinds,
		},
	}))
}

// want makes a SecurityProfile.
func (s *scene) want(name, artifact string, rollout *v1alpha1.Rollout) {
	s.t.Helper()
	s.must(s.Client.Create(s.ctx(), &v1alpha1.SecurityProfile{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name},
		Spec:       v1alpha1.SecurityProfileSpec{Artifact: artifact, Rollout: rollout},
	}))
}

// change changes the spec of a SecurityProfile.
func (s *scene) change(name string, edit func(*v1alpha1.SecurityProfileSpec)) {
	s.t.Helper()
	p := s.profile(name)
	before := p.DeepCopy()
	edit(&p.Spec)
	s.must(s.Client.Patch(s.ctx(), p, client.MergeFrom(before)))
}

func (s *scene) profile(name string) *v1alpha1.SecurityProfile {
	s.t.Helper()
	p := &v1alpha1.SecurityProfile{}
	s.must(s.get(s.namespace, name, p))
	return p
}

// until waits until the status, which is of the current spec, satisfies check.
func (s *scene) until(what, name string, check func(*v1alpha1.SecurityProfileStatus) error) *v1alpha1.SecurityProfileStatus {
	s.t.Helper()
	p := &v1alpha1.SecurityProfile{}
	s.eventually(what, func() error {
		if err := s.get(s.namespace, name, p); err != nil {
			return err
		}
		if p.Status == nil || p.Status.ObservedGeneration != p.Generation {
			return fmt.Errorf("the status is not of generation %d: %+v", p.Generation, p.Status)
		}
		return check(p.Status)
	})
	return p.Status
}

// ready waits until every node has the artifact in force and says so.
func (s *scene) ready(name, artifact string, on int32) *v1alpha1.SecurityProfileStatus {
	s.t.Helper()
	return s.until(name+" to be ready", name, func(status *v1alpha1.SecurityProfileStatus) error {
		if !meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionReady) ||
			!meta.IsStatusConditionFalse(status.Conditions, v1alpha1.ConditionProgressing) ||
			status.Nodes == nil || status.Nodes.Ready != on ||
			status.Rollout == nil || status.Rollout.EffectiveDigest != digestOf(artifact) {
			return fmt.Errorf("nodes %+v, rollout %+v, conditions %+v", status.Nodes, status.Rollout, status.Conditions)
		}
		return nil
	})
}

// digestOf returns the digest of REPOSITORY@DIGEST.
func digestOf(artifact string) string {
	_, digest, _ := strings.Cut(artifact, "@")
	return digest
}
