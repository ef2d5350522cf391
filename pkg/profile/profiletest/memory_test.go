package profiletest_test

import (
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/reason"
)

func TestMemoryHost(t *testing.T) {
	profiletest.RunHost(t, profiletest.HostCase{
		Machine: func(*testing.T) profiletest.Machine {
			h := profiletest.NewMemoryHost("seccomp")
			return profiletest.Machine{
				Open: func(before func() error) (profile.Host, error) {
					h.SetBefore(before)
					return h, nil
				},
				Unsupported: func() (profile.Host, error) {
					h.SetUnsupported(true)
					return h, nil
				},
				State: h.State,
				Drift: map[string]func(profile.Installed) error{
					"changed bytes":  func(in profile.Installed) error { h.Damage(in.Owner); return nil },
					"a missing unit": func(in profile.Installed) error { h.Forget(in.Owner); return nil },
				},
			}
		},
		Files: func(v profiletest.Variant) []profile.File {
			a, b := profile.File{Name: "a", Data: []byte(v)}, profile.File{Name: "b", Data: []byte("b" + v)}
			if v == profiletest.Fewer {
				return []profile.File{{Name: "a", Data: []byte(profiletest.First)}}
			}
			return []profile.File{a, b}
		},
	})
}

func TestMemoryHostFailsOnDemand(t *testing.T) {
	h := profiletest.NewMemoryHost("seccomp")
	u := profile.Unit{Owner: profile.Owner{Namespace: "shop", Name: "web"}, Digest: digest.FromString("x"),
		Files: []profile.File{{Name: "a", Data: []byte("a")}}}
	h.FailFor(u.Owner, reason.New(reason.NoSpace, "shop/web", "no room"))
	if got := h.Install(t.Context(), []profile.Unit{u})[0]; !errors.Is(got.Err, reason.NoSpace) || got.Changed {
		t.Errorf("Install: %+v", got)
	}
	if _, ok := h.Files(u.Owner); ok {
		t.Error("a failed install left something in force")
	}
	h.FailFor(u.Owner, nil)
	if got := h.Install(t.Context(), []profile.Unit{u})[0]; got.Err != nil || !got.Changed {
		t.Errorf("Install: %+v", got)
	}
	broken := errors.New("unreadable")
	h.FailInstalled(broken)
	if _, err := h.Installed(t.Context()); !errors.Is(err, broken) {
		t.Errorf("Installed: %v", err)
	}
	if got := h.Installs(); got != 2 {
		t.Errorf("Installs = %d", got)
	}
}
