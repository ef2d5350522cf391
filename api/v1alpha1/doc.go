// Package v1alpha1 holds the API of Confine: the resources that people write
// and that nodes report into. The same types are read from a cluster and, in
// standalone mode, from a folder of manifests.
//
// +kubebuilder:object:generate=true
// +kubebuilder:ac:generate=true
// +kubebuilder:ac:output:package="../applyconfiguration"
// +groupName=confine.dev
package v1alpha1
