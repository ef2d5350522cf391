package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindTrustPolicy is the kind of a TrustPolicy manifest.
const KindTrustPolicy = "TrustPolicy"

// TrustPolicy says whose signatures are trusted for which source repositories
// and namespaces, and what a signed profile may contain. Without a matching
// policy nothing is trusted; where several match, every one of them must pass.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,categories=confine
type TrustPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is whom this policy trusts, where, and with what.
	Spec TrustPolicySpec `json:"spec"`
}

// TrustPolicyList is a list of TrustPolicies.
//
// +kubebuilder:object:root=true
type TrustPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []TrustPolicy `json:"items"`
}

// TrustPolicySpec is whom a policy trusts, where, and with what.
type TrustPolicySpec struct {
	// repositories are patterns of source repositories, such as
	// "registry.example.com/profiles/**". The host is literal; "*" stands for
	// one whole path segment, "**" for one or more, and only at the end.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +listType=set
	Repositories []string `json:"repositories"`

	// namespaces that may use artifacts under this policy, by exact name; the
	// single entry "*" stands for all.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +listType=set
	Namespaces []string `json:"namespaces"`

	// signers are the identities whose signatures count.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=name
	Signers []Signer `json:"signers"`

	// threshold is how many distinct credentials must have signed, from 1 to
	// the number of signers.
	//
	// +kubebuilder:validation:Minimum=1
	Threshold int32 `json:"threshold"`

	// allowedKinds are the kinds of profile an artifact may hold, such as
	// "seccomp". An artifact with any other kind is refused as a whole.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +listType=set
	AllowedKinds []string `json:"allowedKinds"`

	// constraints bound what a signed profile may contain; what is absent
	// stands for the safe default.
	//
	// +optional
	Constraints *Constraints `json:"constraints,omitempty"`

	// requireName demands that the signed dev.confine.name annotation equals
	// NAMESPACE/NAME of the SecurityProfile.
	//
	// +optional
	RequireName bool `json:"requireName,omitempty"`

	// revoked are digests and keys that are refused whoever signed.
	//
	// +optional
	Revoked *Revoked `json:"revoked,omitempty"`

	// floor is the least signed dev.confine.version annotation per source.
	//
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=repositories
	// +optional
	Floor []Floor `json:"floor,omitempty"`
}

// Signer is one identity. Exactly one of its members is set.
type Signer struct {
	// name is how messages call this signer.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// key is a public key.
	//
	// +optional
	Key *KeySigner `json:"key,omitempty"`
}

// KeySigner is a public key and the time in which its signatures count.
type KeySigner struct {
	// pem is the public key in PEM (PKIX): ECDSA, RSA of at least 2048 bits, or Ed25519.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=8192
	PEM string `json:"pem"`

	// notBefore, where set, is the time from which the key counts.
	//
	// +optional
	NotBefore *metav1.Time `json:"notBefore,omitempty"`

	// notAfter, where set, is the time from which the key no longer counts.
	//
	// +optional
	NotAfter *metav1.Time `json:"notAfter,omitempty"`
}

// Revoked lists what is refused whoever signed.
type Revoked struct {
	// digests of artifacts: the pinned digest, or that of an index's child.
	//
	// +kubebuilder:validation:MaxItems=1024
	// +listType=set
	// +optional
	Digests []string `json:"digests,omitempty"`

	// keys by the SHA-256 of their DER SubjectPublicKeyInfo, as "sha256:HEX".
	//
	// +kubebuilder:validation:MaxItems=256
	// +listType=set
	// +optional
	Keys []string `json:"keys,omitempty"`
}

// Floor is the least version accepted from repositories.
type Floor struct {
	// repositories is a pattern as in spec.repositories.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Repositories string `json:"repositories"`

	// version is a semantic version without a leading v, such as "1.4.0".
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Version string `json:"version"`
}

// Constraints bound what signed profiles may contain, by kind. The member
// names are the kinds' names: each is handed to its kind as it stands.
type Constraints struct {
	// seccomp bounds seccomp profiles.
	//
	// +optional
	Seccomp *SeccompConstraints `json:"seccomp,omitempty"`
}

// SeccompConstraints bound seccomp profiles.
type SeccompConstraints struct {
	// baseline is what a profile may allow at most: RuntimeDefault, the
	// default, is what containerd's default profile allows; Unbounded sets no
	// such bound.
	//
	// +kubebuilder:validation:Enum=RuntimeDefault;Unbounded
	// +optional
	Baseline SeccompBaseline `json:"baseline,omitempty"`

	// allowedSyscalls may be allowed beyond the baseline.
	//
	// +kubebuilder:validation:MaxItems=512
	// +listType=set
	// +optional
	AllowedSyscalls []string `json:"allowedSyscalls,omitempty"`

	// deniedSyscalls may never be allowed, nor may their aliases and the
	// multiplexers that reach them.
	//
	// +kubebuilder:validation:MaxItems=512
	// +listType=set
	// +optional
	DeniedSyscalls []string `json:"deniedSyscalls,omitempty"`
}

// SeccompBaseline is what a seccomp profile may allow at most.
type SeccompBaseline string

// The baselines.
const (
	SeccompBaselineRuntimeDefault SeccompBaseline = "RuntimeDefault"
	SeccompBaselineUnbounded      SeccompBaseline = "Unbounded"
)
