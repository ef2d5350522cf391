// Package pack knows the manifests of profile artifacts: it builds them
// reproducibly and classifies foreign ones layer by layer. It works on bytes
// and speaks to no registry.
package pack

import (
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Confine's own artifacts and of KEP-6061
// (https://github.com/kubernetes/enhancements/issues/6061).
const (
	// ArtifactTypeSeccomp stands on both artifactType and config.mediaType.
	ArtifactTypeSeccomp = "application/vnd.cncf.seccomp-profile.config.v1+json"
	// ArtifactTypeBundle marks an artifact of one or more typed payloads.
	ArtifactTypeBundle = "application/vnd.confine.profiles.v1"
)

// Signed annotations on the manifest that trust policies read.
const (
	AnnotationName    = "dev.confine.name"
	AnnotationVersion = "dev.confine.version"
)

// Layer is one payload of an artifact, before its bytes are fetched.
type Layer struct {
	Descriptor ocispec.Descriptor
	// Kind is the kind's name, or empty where only the content can tell: then
	// Settle decides once the bytes are there.
	Kind string
	// File is the sanitized file name it is installed under, unique within
	// the artifact; empty until Settle where Kind is.
	File string
}
