package fleet

import (
	"fmt"
	"strings"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/artifact/reference"
)

// minPrefix is how many hex digits of a digest must be given at least.
const minPrefix = 7

// UndoTarget picks the artifact that an undo goes back to: with an empty digest
// the newest one in the history that spec does not name, else the one whose
// digest begins as given. Only what every node had stands in the history.
func UndoTarget(p *v1alpha1.SecurityProfile, digest string) (string, error) {
	var history []v1alpha1.HistoryEntry
	if p.Status != nil {
		history = p.Status.History
	}
	current := canonical(p.Spec.Artifact)
	if digest != "" {
		return historic(p, history, current, digest)
	}
	for _, entry := range history {
		if canonical(entry.Artifact) != current {
			return entry.Artifact, nil
		}
	}
	return "", &Refusal{
		What:   fmt.Sprintf("%s has no earlier artifact: every node ever had at most the one that spec names", KeyOf(p)),
		Advice: "set spec.artifact to the REPOSITORY@DIGEST that you want",
	}
}

func historic(p *v1alpha1.SecurityProfile, history []v1alpha1.HistoryEntry, current, digest string) (string, error) {
	_, hex, _ := strings.Cut(digest, "@")
	if hex == "" {
		hex = digest
	}
	hex = strings.TrimPrefix(hex, "sha256:")
	if len(hex) < minPrefix {
		return "", &Refusal{What: fmt.Sprintf("--to %s: give at least %d hex digits of the digest", digest, minPrefix), Advice: known(history)}
	}
	found := map[string]bool{}
	match := ""
	for _, entry := range history {
		if strings.HasPrefix(strings.TrimPrefix(digestOf(entry.Artifact), "sha256:"), hex) && !found[entry.Artifact] {
			found[entry.Artifact] = true
			match = entry.Artifact
		}
	}
	switch {
	case len(found) == 0:
		return "", &Refusal{What: fmt.Sprintf("--to %s: the history of %s has no such digest", digest, KeyOf(p)), Advice: known(history)}
	case len(found) > 1:
		return "", &Refusal{What: fmt.Sprintf("--to %s: the history of %s has several such artifacts", digest, KeyOf(p)), Advice: known(history)}
	case canonical(match) == current:
		return "", &Refusal{What: fmt.Sprintf("--to %s: spec names that artifact already", digest), Advice: "confine rollout status shows how far it is"}
	}
	return match, nil
}

func known(history []v1alpha1.HistoryEntry) string {
	if len(history) == 0 {
		return "set spec.artifact to the REPOSITORY@DIGEST that you want: the history is empty"
	}
	digests := make([]string, 0, len(history))
	for _, entry := range history {
		digests = append(digests, short(digestOf(entry.Artifact)))
	}
	return "choose one of " + strings.Join(digests, ", ")
}

// canonical drops the tag, which is only a label.
func canonical(artifact string) string {
	ref, err := reference.ParsePinned(artifact)
	if err != nil {
		return artifact
	}
	return ref.Repository.Pinned(ref.Digest).String()
}
