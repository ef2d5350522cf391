package apparmor_test

import (
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/profile/apparmor/internal/corpus"
)

// TestHarmlessProfilesPass: a judge that refuses everything would be no use.
func TestHarmlessProfilesPass(t *testing.T) {
	for name, text := range corpus.Harmless() {
		t.Run(name, func(t *testing.T) {
			owner := profile.Owner{Namespace: "web", Name: "any"}
			if err := apparmor.NewKind().Constrain(parse(t, text), profile.For(owner), nil); err != nil {
				t.Error(err)
			}
			readAgain(t, parse(t, text).(*apparmor.Profile))
		})
	}
}
