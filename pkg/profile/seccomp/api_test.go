package seccomp_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/reason"
)

// TestLimitsAreTheAPIType sets every field of the API's constraints in turn:
// what an administrator can write must be read, and must have an effect.
func TestLimitsAreTheAPIType(t *testing.T) {
	k := seccomp.New(seccomp.Options{})
	parse := func(name string) profile.Profile {
		p, err := k.Parse("p.json", []byte(on("X86_64", rule("ALLOW", name))))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	mount, read := parse("mount"), parse("read")
	values := map[string]struct {
		constraints v1alpha1.SeccompConstraints
		mount, read error
	}{
		"baseline":        {v1alpha1.SeccompConstraints{Baseline: v1alpha1.SeccompBaselineUnbounded}, nil, nil},
		"allowedSyscalls": {v1alpha1.SeccompConstraints{AllowedSyscalls: []string{"mount"}}, nil, nil},
		"deniedSyscalls":  {v1alpha1.SeccompConstraints{DeniedSyscalls: []string{"read"}}, reason.ProfileForbidden, reason.ProfileForbidden},
	}
	for field := range reflect.TypeFor[v1alpha1.SeccompConstraints]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		tc, ok := values[name]
		if !ok {
			t.Errorf("the seccomp kind knows nothing of the field %s", name)
			continue
		}
		data, err := json.Marshal(tc.constraints)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(data), name) {
			t.Errorf("%s is not set in %s", name, data)
		}
		if err := k.Constrain(mount, profile.ForAnyone(), []profile.Limits{data}); !errors.Is(err, tc.mount) {
			t.Errorf("%s: mount: %v", data, err)
		}
		if err := k.Constrain(read, profile.ForAnyone(), []profile.Limits{data}); !errors.Is(err, tc.read) {
			t.Errorf("%s: read: %v", data, err)
		}
	}
	for _, b := range []v1alpha1.SeccompBaseline{v1alpha1.SeccompBaselineRuntimeDefault, v1alpha1.SeccompBaselineUnbounded, ""} {
		data, err := json.Marshal(v1alpha1.SeccompConstraints{Baseline: b})
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Constrain(read, profile.ForAnyone(), []profile.Limits{data}); err != nil {
			t.Errorf("baseline %q: %v", b, err)
		}
	}
}
