package kinds_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/kinds"
)

func names(all []profile.Kind) []string {
	var out []string
	for _, k := range all {
		out = append(out, k.Name())
	}
	return out
}

func TestAllKindsAreFoundByTheirLabels(t *testing.T) {
	set := kinds.All(nil)
	if diff := cmp.Diff([]string{"seccomp", "apparmor", "selinux"}, set.Names()); diff != "" {
		t.Error(diff)
	}
	for _, k := range set.All() {
		byName, _ := set.ByName(k.Name())
		byType, _ := set.ByMediaType(k.Format().MediaType)
		byTitle, _ := set.ByTitle("dir/" + k.Format().DefaultFile)
		for how, found := range map[string]profile.Kind{"name": byName, "media type": byType, "title": byTitle} {
			if found == nil || found.Name() != k.Name() {
				t.Errorf("%s by %s: found %v", k.Name(), how, found)
			}
		}
	}
}

func TestContentOfOneKindIsNotTakenForAnother(t *testing.T) {
	for want, data := range map[string]string{
		"seccomp":  "{\n \"defaultAction\": \"SCMP_ACT_ERRNO\"\n}\n",
		"apparmor": "profile confine.web.x {\n}\n",
		"selinux":  "(block web (blockinherit container))\n",
	} {
		if diff := cmp.Diff([]string{want}, names(kinds.All(nil).BySniff([]byte(data)))); diff != "" {
			t.Errorf("%s:\n%s", want, diff)
		}
	}
	if found := kinds.All(nil).BySniff([]byte("hello")); len(found) > 0 {
		t.Errorf("plain text is taken for %v", names(found))
	}
}
