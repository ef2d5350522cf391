package profile_test

import (
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
)

func TestScope(t *testing.T) {
	web := profile.For(profile.Owner{Namespace: "web", Name: "nginx"})
	for name, tc := range map[string]struct {
		scope     profile.Scope
		namespace string
		want      bool
	}{
		"its own":            {web, "web", true},
		"a longer one":       {web, "webs", false},
		"a shorter one":      {web, "we", false},
		"in capitals":        {web, "Web", false},
		"its name":           {web, "nginx", false},
		"no namespace":       {web, "", false},
		"nobody's":           {profile.Scope{}, "web", false},
		"nobody's, none":     {profile.Scope{}, "", false},
		"an owner of no one": {profile.For(profile.Owner{Name: "web"}), "", false},
		"a star is a name":   {profile.For(profile.Owner{Namespace: "*"}), "web", false},
		"anyone's":           {profile.ForAnyone(), "web", true},
	} {
		if got := tc.scope.Holds(tc.namespace); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	for want, scope := range map[string]profile.Scope{"web": web, "NAMESPACE": profile.ForAnyone()} {
		if got := scope.Namespace(); got != want {
			t.Errorf("the namespace is %s, not %s", got, want)
		}
	}
}
