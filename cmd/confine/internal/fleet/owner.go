package fleet

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/confine-dev/confine/api/v1alpha1"
)

// A Field is a path below a SecurityProfile, such as spec, artifact.
type Field []string

// FieldArtifact and FieldPaused are what the rollout commands change.
func FieldArtifact() Field { return Field{"spec", "artifact"} }

// FieldPaused is spec.rollout.paused.
func FieldPaused() Field { return Field{"spec", "rollout", "paused"} }

// String renders the path with dots.
func (f Field) String() string { return strings.Join(f, ".") }

// CheckOwner refuses a change of a field that somebody else would set back: a
// manager that applies the object from elsewhere. Managers by which people
// change an object by hand, once, do not set it back.
func CheckOwner(p *v1alpha1.SecurityProfile, field Field) error {
	for _, entry := range p.ManagedFields {
		if entry.Subresource != "" || byHand(entry) || !owns(entry, field) {
			continue
		}
		return &Refusal{
			What: fmt.Sprintf("%s of %s belongs to %s, which would set it back", field, KeyOf(p), called(entry.Manager)),
			Advice: fmt.Sprintf("change it at its source (%s), or use --force to change it here all the same",
				sourceOf(entry.Manager)),
		}
	}
	return nil
}

// byHand reports whether the manager changes objects only when a person says so.
func byHand(entry metav1.ManagedFieldsEntry) bool {
	return entry.Operation == metav1.ManagedFieldsOperationUpdate &&
		slices.Contains([]string{"confine", "kubectl-create", "kubectl-edit", "kubectl-patch"}, entry.Manager)
}

// owns reports whether an entry has the field, or all of something above it. An
// entry that cannot be read owns everything.
func owns(entry metav1.ManagedFieldsEntry, field Field) bool {
	if entry.FieldsV1 == nil {
		return true
	}
	var set map[string]json.RawMessage
	raw := json.RawMessage(entry.FieldsV1.GetRawBytes())
	for _, segment := range field {
		set = nil
		if err := json.Unmarshal(raw, &set); err != nil {
			return true
		}
		next, ok := set["f:"+segment]
		if !ok {
			return false
		}
		raw = next
		if strings.TrimSpace(string(raw)) == "{}" {
			return true
		}
	}
	return true
}

type tool struct{ manager, name, source string }

// tools are the managers that people know by another name.
func tools() []tool {
	return []tool{
		{"argocd-controller", "Argo CD", "the git repository that Argo CD applies"},
		{"argocd-application-controller", "Argo CD", "the git repository that Argo CD applies"},
		{"kustomize-controller", "Flux", "the git repository that Flux applies"},
		{"helm-controller", "Flux", "the chart or values that Flux applies"},
		{"helm", "Helm", "the chart or its values"},
		{"kubectl-client-side-apply", "kubectl apply", "the manifest, and kubectl apply it"},
		{"kubectl", "kubectl apply", "the manifest, and kubectl apply it"},
	}
}

func called(manager string) string {
	for _, t := range tools() {
		if t.manager == manager {
			return fmt.Sprintf("%s (field manager %q)", t.name, manager)
		}
	}
	return fmt.Sprintf("the field manager %q", manager)
}

func sourceOf(manager string) string {
	for _, t := range tools() {
		if t.manager == manager {
			return t.source
		}
	}
	return "where " + manager + " takes it from, such as git"
}

// Tracked names the tool whose marks the object carries, so that a change here
// may be undone even though the tool does not own the field now; empty for none.
func Tracked(p *v1alpha1.SecurityProfile) string {
	for _, mark := range []struct {
		in        map[string]string
		key, name string
	}{
		{p.Annotations, "argocd.argoproj.io/tracking-id", "Argo CD"},
		{p.Labels, "kustomize.toolkit.fluxcd.io/name", "Flux"},
		{p.Labels, "helm.toolkit.fluxcd.io/name", "Flux"},
		{p.Annotations, "meta.helm.sh/release-name", "Helm"},
	} {
		if mark.in[mark.key] != "" {
			return mark.name
		}
	}
	return ""
}
