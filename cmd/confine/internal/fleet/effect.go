package fleet

import (
	"slices"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/profile/selinux"
)

// Effect says what a new digest means for what runs already, by the kind of
// profile; empty for a kind that is not known here.
func Effect(kind string) string {
	switch kind {
	case seccomp.Name:
		return "containers that run keep the filter they started with; restart them for the new one"
	case apparmor.Name:
		return "processes that run are under the new profile at once"
	case selinux.Name:
		return "processes that run are under the new policy at once"
	}
	return ""
}

// KindsOf are the kinds of references, each once, in their order.
func KindsOf(references []v1alpha1.PayloadReference) []string {
	var kinds []string
	for _, r := range references {
		if !slices.Contains(kinds, r.Kind) {
			kinds = append(kinds, r.Kind)
		}
	}
	return kinds
}
