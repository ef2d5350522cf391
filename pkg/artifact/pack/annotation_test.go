package pack_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/reason"
)

// A version or name that no policy accepts must not be signed in the first place.
func TestBuildRefusesAnnotationsThatNoPolicyAccepts(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]pack.Options{
		"leading v":              {Version: "v1.4.0"},
		"short":                  {Version: "1.4"},
		"leading zero":           {Version: "01.4.0"},
		"white space":            {Version: "1.4.0\n"},
		"long":                   {Version: "1.4.0-" + strings.Repeat("a", 64)},
		"as free annotation":     {Annotations: map[string]string{pack.AnnotationVersion: "v1.4.0"}},
		"empty free annotation":  {Annotations: map[string]string{pack.AnnotationVersion: ""}},
		"no namespace":           {Name: "nginx"},
		"three parts":            {Name: "a/web/nginx"},
		"capitals":               {Name: "Web/nginx"},
		"empty name":             {Name: "web/"},
		"namespace with a dot":   {Name: "we.b/nginx"},
		"name with two dots":     {Name: "web/ng..inx"},
		"long namespace":         {Name: strings.Repeat("a", 64) + "/nginx"},
		"long name":              {Name: "web/" + strings.Repeat("a.", 130) + "a"},
		"name with a line break": {Name: "web/nginx\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := pack.Build(threeInputs(), testKinds(), opts); !errors.Is(err, reason.UnsupportedArtifact) {
				t.Errorf("error %v", err)
			}
		})
	}
	for _, opts := range []pack.Options{{Version: "1.4.0-rc.1+build.5"}, {Name: "web/nginx.v2"}, {}} {
		if _, err := pack.Build(threeInputs(), testKinds(), opts); err != nil {
			t.Errorf("%+v: %v", opts, err)
		}
	}
}
