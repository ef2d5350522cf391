package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of every resource of Confine.
const GroupName = "confine.dev"

// SchemeGroupVersion returns the group and version of this package.
func SchemeGroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: GroupName, Version: "v1alpha1"}
}

// AddToScheme makes a scheme know the resources of this package.
func AddToScheme(scheme *runtime.Scheme) error {
	version := SchemeGroupVersion()
	scheme.AddKnownTypes(version,
		&SecurityProfile{}, &SecurityProfileList{},
		&TrustPolicy{}, &TrustPolicyList{},
		&ProfileNode{}, &ProfileNodeList{},
	)
	metav1.AddToGroupVersion(scheme, version)
	return nil
}
