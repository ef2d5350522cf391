package pack_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/kinds"
)

// TestBoundsAgree holds two packages that cannot share a constant, since one
// imports the other, to one set of bounds.
func TestBoundsAgree(t *testing.T) {
	t.Parallel()
	for name, pair := range map[string][2]int64{
		"manifest": {pack.MaxManifestBytes, artifact.MaxManifestBytes},
		"layers":   {pack.MaxLayers, artifact.MaxLayers},
		"payloads": {pack.MaxArtifactBytes, artifact.MaxArtifactBytes},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: pack allows %d, artifact %d", name, pair[0], pair[1])
		}
	}
}

// TestKindsThatConfineShips packs one file of each real kind; the one that has
// a KEP-6061 form must get it.
func TestKindsThatConfineShips(t *testing.T) {
	t.Parallel()
	set := kinds.All(nil)
	var inputs []pack.Input
	forms := map[pack.Form]int{}
	for _, k := range set.All() {
		in := pack.Input{File: "web" + k.Format().Extensions[0], Data: []byte("x")}
		inputs = append(inputs, in)
		packed, err := pack.Build([]pack.Input{in}, set, pack.Options{})
		if err != nil {
			t.Fatal(err)
		}
		m, err := pack.Parse(packed.Manifest, set)
		if err != nil {
			t.Fatal(err)
		}
		if m.Layers[0].Kind != k.Name() || m.Form != packed.Form {
			t.Errorf("%s came back as %s in the form %s", k.Name(), m.Layers[0].Kind, m.Form)
		}
		forms[packed.Form]++
	}
	if forms[pack.FormKEP6061] != 1 || len(forms) != 2 {
		t.Errorf("forms %v: exactly one kind has a KEP-6061 form", forms)
	}
	packed, err := pack.Build(inputs, set, pack.Options{})
	if err != nil || packed.Form != pack.FormBundle || len(packed.Blobs) != 1+len(inputs) {
		t.Errorf("all kinds together: %+v, %v", packed, err)
	}
}

// TestDocumentSaysWhatHolds compares the tables of the specification with the
// kinds and bounds in the code.
func TestDocumentSaysWhatHolds(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/artifact-format.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{
		fmt.Sprintf("| manifest or index | %d MiB | TooLarge |", pack.MaxManifestBytes>>20),
		fmt.Sprintf("| one payload | %d MiB | TooLarge |", profile.MaxPayloadBytes>>20),
		fmt.Sprintf("| all payloads of an artifact | %d MiB | TooLarge |", pack.MaxArtifactBytes>>20),
		fmt.Sprintf("| layers | %d | TooLarge |", pack.MaxLayers),
		fmt.Sprintf("| manifests in an index | %d | TooLarge |", pack.MaxChildren),
	}
	for _, k := range kinds.All(nil).All() {
		f := k.Format()
		lines = append(lines, fmt.Sprintf("| %s | `%s` | `%s` | `%s` |",
			k.Name(), f.MediaType, strings.Join(f.Extensions, "`, `"), f.DefaultFile))
	}
	for _, line := range lines {
		if !strings.Contains(string(text), line+"\n") {
			t.Errorf("docs/artifact-format.md lacks the line %s", line)
		}
	}
}
