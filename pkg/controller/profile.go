package controller

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/controller/rollout"
	"github.com/confine-dev/confine/pkg/reason"
)

// profileInfo is one SecurityProfile, read. Its object is not written to.
type profileInfo struct {
	object *v1alpha1.SecurityProfile
	key    string
	// target is spec.artifact as REPOSITORY@DIGEST; empty where err is set.
	target string
	// nodes selects nodes; nil means all.
	nodes labels.Selector
	// canaries selects canaries; nil means none.
	canaries labels.Selector
	// err says why spec cannot be used. Nodes keep what they have then.
	err     *reason.Error
	written written
}

func readProfile(object *v1alpha1.SecurityProfile) *profileInfo {
	p := &profileInfo{object: object, key: profileKey(object.Namespace, object.Name)}
	if err := p.read(); err != nil {
		e, ok := reason.Of(err)
		if !ok {
			e = reason.New(reason.ProfileInvalid, "spec", "%w", err).WithAdvice("mend the spec; nodes keep what they have meanwhile")
		}
		p.err, p.target = e, ""
	}
	return p
}

func (p *profileInfo) read() error {
	spec := &p.object.Spec
	var err error
	if p.nodes, err = selector("spec.nodeSelector", spec.NodeSelector); err != nil {
		return err
	}
	if spec.Rollout != nil && spec.Rollout.Canary != nil {
		if p.canaries, err = selector("spec.rollout.canary.nodeSelector", spec.Rollout.Canary.NodeSelector); err != nil {
			return err
		}
	}
	ref, err := reference.ParsePinned(spec.Artifact)
	if err != nil {
		return err
	}
	// The tag is a label for people: the digest alone is assigned.
	p.target = intern(ref.Repository.Pinned(ref.Digest).String())
	return nil
}

// selector returns nil for an absent one, which the callers give its meaning.
func selector(field string, s *metav1.LabelSelector) (labels.Selector, error) {
	if s == nil {
		return nil, nil
	}
	read, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return read, nil
}

// selects reports whether the profile is for a node that has been assigned an
// artifact of it or not. One whose spec cannot be read is for those that have.
func (p *profileInfo) selects(node *nodeInfo, assigned bool) bool {
	if p.err != nil {
		return assigned
	}
	return p.nodes == nil || p.nodes.Matches(labels.Set(node.Labels))
}

func (p *profileInfo) isCanary(node *nodeInfo) bool {
	return p.canaries != nil && p.canaries.Matches(labels.Set(node.Labels))
}

// assignment is the entry of a node that is given an artifact of the profile.
func (p *profileInfo) assignment(artifact string) assignment {
	return assignment{
		key: p.key, uid: string(p.object.UID), artifact: artifact,
		kinds: string(p.object.Spec.Kinds), createdAt: seconds(p.object.CreationTimestamp),
	}
}

// status returns the profile's status, never nil.
func (p *profileInfo) status() *v1alpha1.SecurityProfileStatus {
	if p.object.Status == nil {
		return &v1alpha1.SecurityProfileStatus{}
	}
	return p.object.Status
}

// input is what the rollout is decided on.
func (p *profileInfo) input() rollout.Input {
	status := p.status()
	in := rollout.Input{
		UID: string(p.object.UID), Generation: p.object.Generation, Target: p.target, Spec: p.object.Spec.Rollout,
		Status: status.Rollout, History: status.History,
	}
	if status.Nodes != nil {
		in.Ready = status.Nodes.Ready
	}
	return in
}
