// Package fleet turns the objects of a cluster into what a person asks about
// them: how profiles and nodes are, how far a rollout is, who owns a field, and
// why a profile is not in force. It is pure: objects in, answers out. The JSON
// names of its types are the stable output of the command line.
package fleet

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/confine-dev/confine/api/v1alpha1"
)

// Refusal says why something is not done, and what to do instead.
type Refusal struct{ What, Advice string }

// Error renders what is refused.
func (r *Refusal) Error() string { return r.What }

// WhatToDo says what to do instead.
func (r *Refusal) WhatToDo() string { return r.Advice }

// KeyOf is the namespace and name of a SecurityProfile.
func KeyOf(p *v1alpha1.SecurityProfile) types.NamespacedName {
	return types.NamespacedName{Namespace: p.Namespace, Name: p.Name}
}

// digestOf cuts the digest off REPOSITORY@sha256:HEX.
func digestOf(artifact string) string {
	_, digest, _ := strings.Cut(artifact, "@")
	return digest
}

// short is enough of a digest for a line of text.
func short(digest string) string {
	const keep = len("sha256:") + 12
	if len(digest) <= keep {
		return digest
	}
	return digest[:keep]
}

// condition returns the condition of that type; Unknown where it is not stated.
func condition(p *v1alpha1.SecurityProfile, kind string) metav1.Condition {
	if p.Status != nil {
		for _, c := range p.Status.Conditions {
			if c.Type == kind {
				return c
			}
		}
	}
	return metav1.Condition{Type: kind, Status: metav1.ConditionUnknown}
}

// observed reports whether the status is about the spec as it is now.
func observed(p *v1alpha1.SecurityProfile) bool {
	return p.Status != nil && p.Status.ObservedGeneration >= p.Generation
}

// stopped returns why the rollout of the spec as it is now failed.
func stopped(p *v1alpha1.SecurityProfile) string {
	if p.Status == nil || p.Status.Rollout == nil || p.Status.Rollout.StoppedGeneration != p.Generation {
		return ""
	}
	return p.Status.Rollout.Stopped
}

func counts(p *v1alpha1.SecurityProfile) v1alpha1.NodeCounts {
	if p.Status == nil || p.Status.Nodes == nil {
		return v1alpha1.NodeCounts{}
	}
	return *p.Status.Nodes
}
