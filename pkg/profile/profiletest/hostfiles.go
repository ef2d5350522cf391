package profiletest

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile"
)

// wantReferencesByFile expects each file of the unit with its references, which
// are together those of the whole.
func wantReferencesByFile(t *testing.T, in profile.Installed, units []profile.Unit) {
	t.Helper()
	var names, wantNames, references []string
	for _, f := range in.Files {
		names = append(names, f.Name)
		references = append(references, f.References...)
	}
	for _, u := range units {
		if u.Owner != in.Owner {
			continue
		}
		for _, f := range u.Files {
			wantNames = append(wantNames, f.Name)
		}
	}
	slices.Sort(wantNames)
	if diff := cmp.Diff(wantNames, names); diff != "" {
		t.Errorf("%s: files in force (-want +got):\n%s", in.Owner, diff)
	}
	slices.Sort(references)
	if diff := cmp.Diff(in.References, references); diff != "" {
		t.Errorf("%s: the references of the files are not those of the unit (-unit +files):\n%s", in.Owner, diff)
	}
}
