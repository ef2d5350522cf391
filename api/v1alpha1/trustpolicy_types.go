package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindTrustPolicy is the kind of a TrustPolicy manifest.
const KindTrustPolicy = "TrustPolicy"

// TrustPolicy says whose signatures are trusted for which source repositories
// and namespaces, and what a signed profile may contain. Without a matching
// policy nothing is trusted; where several match, every one of them must pass.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,categories=confine,shortName=trustpol
// +kubebuilder:printcolumn:name="Repositories",type=string,JSONPath=`.spec.repositories`,description="The source repositories it is about"
// +kubebuilder:printcolumn:name="Namespaces",type=string,JSONPath=`.spec.namespaces`,description="The namespaces that may use them"
// +kubebuilder:printcolumn:name="Threshold",type=integer,JSONPath=`.spec.threshold`,description="How many signers must have signed"
// +kubebuilder:printcolumn:name="Kinds",type=string,JSONPath=`.spec.allowedKinds`,priority=1,description="The kinds of profile an artifact may hold"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type TrustPolicy struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard metadata of an object.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is whom this policy trusts, where, and with what.
	//
	// +required
	Spec TrustPolicySpec `json:"spec,omitzero"`
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
//
// +kubebuilder:validation:XValidation:rule="self.threshold <= self.signers.size()",fieldPath=".threshold",message="threshold is more than there are signers, so nothing would ever be trusted: lower it, or add signers"
type TrustPolicySpec struct {
	// repositories are patterns of source repositories, such as
	// "registry.example.com/profiles/**". The host and the first path segment
	// are literal. "*" stands for one whole path segment, and "**" for one or
	// more at the end.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=512
	// +kubebuilder:validation:items:XValidation:rule=`self.matches('^((?i:localhost\\.?|\\[[0-9a-f:.]+\\]|[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+\\.?)(:[1-9][0-9]{0,4})?|(?i:[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)\\.?:[1-9][0-9]{0,4})/')`,message="a repository pattern begins with its registry's literal host, as in registry.example.com/profiles/**: without https://, with docker.io for Docker Hub, and with a port where the host has no dot"
	// +kubebuilder:validation:items:XValidation:rule=`self.matches('^[^/]*/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*(/([*]|[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*))*(/[*][*])?$')`,message="a repository pattern is HOST/PATH, as in registry.example.com/profiles/**: the path is lower case, its first segment is literal, since it would match a whole registry otherwise, '*' stands for one whole segment, and '**' for one or more at the end"
	// +listType=set
	// +required
	Repositories []string `json:"repositories,omitempty"`

	// namespaces are those that may use artifacts under this policy, by exact
	// name. The single entry "*" stands for all.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:XValidation:rule="self.size() == 1 || !('*' in self)",message="'*' stands for all namespaces, alone or not at all: remove it, or all the others"
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:items:XValidation:rule=`self == '*' || self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')`,message="a namespace is named exactly, as in web, and '*' alone stands for all: other patterns are not read"
	// +listType=set
	// +required
	Namespaces []string `json:"namespaces,omitempty"`

	// signers are the identities whose signatures count.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule="self.all(a, !has(a.key) || self.exists_one(b, has(b.key) && b.key.pem == a.key.pem))",message="two signers have the same key, but each credential counts once: remove one of them"
	// +listType=map
	// +listMapKey=name
	// +required
	Signers []Signer `json:"signers,omitempty"`

	// threshold is how many distinct credentials must have signed, from 1 to
	// the number of signers.
	//
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=32
	// +required
	Threshold int32 `json:"threshold,omitempty"`

	// allowedKinds are the kinds of profile an artifact may hold, such as
	// "seccomp". An artifact with any other kind is refused as a whole.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:items:Pattern=`^[a-z][a-z0-9-]*$`
	// +listType=set
	// +required
	AllowedKinds []string `json:"allowedKinds,omitempty"`

	// constraints bound what a signed profile may contain. What is absent
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

// Signer is one identity. Exactly one of its members beside the name is set.
//
// +kubebuilder:validation:XValidation:rule="has(self.key)",message="set exactly one kind of identity: key, with the public key in its pem"
type Signer struct {
	// name is how messages call this signer.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[\\pL\\pM\\pN\\pP\\pS ]+$') && !self.contains('/')`,message="a signer's name stands in messages: use printable characters and no slash"
	// +required
	Name string `json:"name,omitempty"`

	// key is a public key.
	//
	// +optional
	Key *KeySigner `json:"key,omitempty"`
}

// KeySigner is a public key and the time in which its signatures count.
//
// +kubebuilder:validation:XValidation:rule="!has(self.notBefore) || !has(self.notAfter) || self.notBefore < self.notAfter",fieldPath=".notAfter",message="notAfter is not after notBefore, so the key would never count"
type KeySigner struct {
	// pem is the public key in PEM (PKIX): ECDSA, RSA of at least 2048 bits, or Ed25519.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=8192
	// +kubebuilder:validation:XValidation:rule=`self.trim().matches('^-----BEGIN PUBLIC KEY-----[ \\t]*\\r?\\n[A-Za-z0-9+/=\\s]+-----END PUBLIC KEY-----$')`,message="pem is one whole public key from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----, as in the file cosign.pub: no private key, no certificate, nothing around it"
	// +required
	PEM string `json:"pem,omitempty"`

	// notBefore is the time from which the key counts; absent means from ever.
	//
	// +optional
	NotBefore *metav1.Time `json:"notBefore,omitempty"`

	// notAfter is the time from which the key no longer counts; absent means
	// for ever.
	//
	// +optional
	NotAfter *metav1.Time `json:"notAfter,omitempty"`
}

// Revoked lists what is refused whoever signed.
type Revoked struct {
	// digests are those of artifacts: the pinned digest, or that of an index's
	// child.
	//
	// +kubebuilder:validation:MaxItems=1024
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=71
	// +kubebuilder:validation:items:Pattern=`^sha256:[a-f0-9]{64}$`
	// +listType=set
	// +optional
	Digests []string `json:"digests,omitempty"`

	// keys are public keys by the SHA-256 of their DER SubjectPublicKeyInfo, as
	// "sha256:HEX".
	//
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=71
	// +kubebuilder:validation:items:Pattern=`^sha256:[a-f0-9]{64}$`
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
	// +kubebuilder:validation:XValidation:rule=`self.matches('^((?i:localhost\\.?|\\[[0-9a-f:.]+\\]|[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+\\.?)(:[1-9][0-9]{0,4})?|(?i:[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)\\.?:[1-9][0-9]{0,4})/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*(/([*]|[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*))*(/[*][*])?$')`,message="floor.repositories is one pattern as in spec.repositories: HOST/PATH, as in registry.example.com/profiles/**"
	// +required
	Repositories string `json:"repositories,omitempty"`

	// version is a semantic version without a leading v, such as "1.4.0".
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self.matches('^(0|[1-9][0-9]*)[.](0|[1-9][0-9]*)[.](0|[1-9][0-9]*)(-(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)([.](0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*)?([+][0-9a-zA-Z-]+([.][0-9a-zA-Z-]+)*)?$')`,message="version is a whole semantic version without a leading v, such as 1.4.0"
	// +required
	Version string `json:"version,omitempty"`
}

// Constraints bound what signed profiles may contain, by kind. The member
// names are the kinds' names: each is handed to its kind as it stands.
type Constraints struct {
	// seccomp bounds seccomp profiles.
	//
	// +optional
	Seccomp *SeccompConstraints `json:"seccomp,omitempty"`

	// apparmor bounds AppArmor profiles.
	//
	// +optional
	AppArmor *AppArmorConstraints `json:"apparmor,omitempty"`

	// selinux bounds SELinux modules.
	//
	// +optional
	SELinux *SELinuxConstraints `json:"selinux,omitempty"`
}

// SeccompConstraints bound seccomp profiles.
type SeccompConstraints struct {
	// baseline is what a profile may allow at most: RuntimeDefault, the
	// default, is what containerd's default profile allows; Unbounded sets no
	// such bound.
	//
	// +optional
	Baseline SeccompBaseline `json:"baseline,omitempty"`

	// allowedSyscalls may be allowed beyond the baseline.
	//
	// +kubebuilder:validation:MaxItems=512
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9_]+$`
	// +listType=set
	// +optional
	AllowedSyscalls []string `json:"allowedSyscalls,omitempty"`

	// deniedSyscalls may never be allowed, nor may their aliases and the
	// multiplexers that reach them.
	//
	// +kubebuilder:validation:MaxItems=512
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9_]+$`
	// +listType=set
	// +optional
	DeniedSyscalls []string `json:"deniedSyscalls,omitempty"`
}

// SeccompBaseline is what a seccomp profile may allow at most.
//
// +kubebuilder:validation:Enum=RuntimeDefault;Unbounded
type SeccompBaseline string

// The baselines.
const (
	SeccompBaselineRuntimeDefault SeccompBaseline = "RuntimeDefault"
	SeccompBaselineUnbounded      SeccompBaseline = "Unbounded"
)
