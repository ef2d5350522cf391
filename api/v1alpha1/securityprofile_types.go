package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindSecurityProfile is the kind of a SecurityProfile manifest.
const KindSecurityProfile = "SecurityProfile"

// SecurityProfile pins one artifact of security profiles by digest and wants
// it installed under its own namespace and name. It holds no profile content.
//
// +kubebuilder:object:root=true
type SecurityProfile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	Spec SecurityProfileSpec `json:"spec"`
}

// SecurityProfileSpec is what is wanted.
type SecurityProfileSpec struct {
	// artifact is REPOSITORY@sha256:HEX or REPOSITORY:TAG@sha256:HEX. The
	// digest is required and decides; a tag is only a label for people.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Artifact string `json:"artifact"`

	// kinds says what happens where a node does not support every kind of
	// profile in the artifact: Supported installs those it does, Required
	// installs all or nothing.
	//
	// +kubebuilder:validation:Enum=Supported;Required
	// +kubebuilder:default=Supported
	// +optional
	Kinds KindsPolicy `json:"kinds,omitempty"`
}

// KindsPolicy says whether every kind in an artifact must be supported.
type KindsPolicy string

// The kinds policies.
const (
	KindsSupported KindsPolicy = "Supported"
	KindsRequired  KindsPolicy = "Required"
)
