package profile_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile"
)

// labelled is a kind that has labels and reads nothing.
type labelled struct {
	profile.Kind
	name   string
	format profile.Format
}

func (k labelled) Name() string           { return k.name }
func (k labelled) Format() profile.Format { return k.format }
func (k labelled) Sniff(data []byte) bool { return string(data) == k.name }

func kind(name, mediaType string, extensions ...string) profile.Kind {
	return labelled{name: name, format: profile.Format{
		MediaType: mediaType, Extensions: extensions, DefaultFile: "profile" + extensions[0],
	}}
}

func TestSet(t *testing.T) {
	set := profile.NewSet(kind("one", "application/one", ".one", ".1"), kind("two", "application/two", ".two"))
	if diff := cmp.Diff([]string{"one", "two"}, set.Names()); diff != "" {
		t.Error(diff)
	}
	tests := map[string]struct {
		find func(string) (profile.Kind, bool)
		hits map[string]string // label to kind; "" where none
	}{
		"by name":       {set.ByName, map[string]string{"one": "one", "two": "two", "One": "", "": "", "three": ""}},
		"by media type": {set.ByMediaType, map[string]string{"application/two": "two", "application/Two": "", "": ""}},
		"by title": {set.ByTitle, map[string]string{
			"a.one": "one", "a.1": "one", "A.TWO": "two", "dir.one/a": "", "a.one.two": "two", ".one": "one", "one": "", "a.": "", "": "",
		}},
	}
	for how, tc := range tests {
		for label, want := range tc.hits {
			k, ok := tc.find(label)
			got := ""
			if ok {
				got = k.Name()
			}
			if got != want {
				t.Errorf("%s %q: got %q, want %q", how, label, got, want)
			}
		}
	}
	if found := set.BySniff([]byte("two")); len(found) != 1 || found[0].Name() != "two" {
		t.Errorf("by content: %v", found)
	}
}

func TestSetsDoNotShareTheirList(t *testing.T) {
	list := []profile.Kind{kind("one", "application/one", ".one")}
	set := profile.NewSet(list...)
	list[0] = kind("two", "application/two", ".two")
	set.All()[0] = list[0]
	if diff := cmp.Diff([]string{"one"}, set.Names()); diff != "" {
		t.Error(diff)
	}
}
