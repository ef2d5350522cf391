//go:build lsm_apparmor

package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// onThisHost writes files below /etc/apparmor.d for one test.
func onThisHost(t *testing.T, files map[string]string) {
	t.Helper()
	for name, text := range files {
		name = filepath.Join("/etc/apparmor.d", name)
		must(t, os.MkdirAll(filepath.Dir(name), 0o755))
		must(t, os.WriteFile(name, []byte(text), 0o644))
		t.Cleanup(func() { _ = os.Remove(name) })
	}
}

// onlyGood installs a text between two good units, and holds that these alone
// are in the kernel afterwards. It returns the refusal.
func onlyGood(t *testing.T, h *Host, text string) error {
	t.Helper()
	good := func(name string) profile.Unit { return ofText(name, "profile confine.shop."+name+" {\n  file,\n}\n") }
	got := h.Install(t.Context(), []profile.Unit{good("before"), ofText("web", text), good("behind")})
	if got[0].Err != nil || got[2].Err != nil {
		t.Errorf("good units suffer: %v, %v", got[0].Err, got[2].Err)
	}
	loaded, err := h.Loaded(t.Context())
	must(t, err)
	if got[1].Err != nil && len(loaded) != 2 {
		t.Errorf("refused, and loaded is %v", loaded)
	}
	return got[1].Err
}

// TestNoNameComesInByTheHost: the names that come out of the parser are those
// that were approved, whatever the files of this host bring. Nothing here asks
// the constraints, which refuse some of it before.
func TestNoNameComesInByTheHost(t *testing.T) {
	onThisHost(t, map[string]string{
		"abstractions/vm-child":    "profile kid {\n  file,\n}\n",
		"abstractions/vm-hat":      "^hat {\n  file,\n}\n",
		"abstractions/vm-further":  "include <abstractions/vm-child>\n",
		"abstractions/vm-folder/a": "profile inner {\n}\n",
		"tunables/vm-profile":      "profile docker-default {\n  file,\n}\n",
		"tunables/vm-host":         "profile /usr/sbin/sshd {\n}\n",
		"tunables/vm-name":         "@{vm_name} = docker-default\n",
		"tunables/vm-alias":        "alias /srv/ -> /usr/sbin/,\n",
	})
	const plain = "profile confine.shop.web {\n  file,\n"
	for name, c := range map[string]struct {
		text string
		fine bool // what comes out are the approved names
	}{
		"a child of an abstraction":            {"include <tunables/global>\n" + plain + "include <abstractions/vm-child>\n}\n", false},
		"a hat of an abstraction":              {plain + "include <abstractions/vm-hat>\n}\n", false},
		"a child of an abstraction's":          {plain + "include <abstractions/vm-further>\n}\n", false},
		"a child, if it exists":                {plain + "include if exists <abstractions/vm-child>\n}\n", false},
		"a child in a hat":                     {plain + "^h {\ninclude <abstractions/vm-child>\n}\n}\n", false},
		"a folder of abstractions":             {plain + "include <abstractions/vm-folder>\n}\n", false},
		"a profile of a tunable":               {"include <tunables/vm-profile>\n" + plain + "}\n", false},
		"a path's profile of a tunable":        {"include <tunables/vm-host>\n" + plain + "}\n", false},
		"a profile behind ours":                {plain + "}\ninclude <tunables/vm-profile>\n", false},
		"a variable of the host in the name":   {"include <tunables/vm-name>\nprofile confine.shop.@{vm_name} {\n}\n", false},
		"a variable of the host in a child":    {"include <tunables/vm-name>\n" + plain + "profile @{vm_name} {\n}\n}\n", false},
		"a variable of its own in the name":    {"@{N} = docker-default\nprofile confine.shop.@{N} {\n}\n", false},
		"a child in a policy namespace":        {plain + "profile :other:kid {\n}\n}\n", false},
		"a namespace":                          {"profile :other:confine.shop.web {\n}\n", false},
		"an alias of the host for a name":      {"include <tunables/vm-alias>\nprofile confine.shop.web /srv/sshd {\n}\n", true},
		"a child that an abstraction has, too": {plain + "include <abstractions/vm-child>\nprofile kid {\n}\n}\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			h := realHost(t, Options{})
			err := onlyGood(t, h, c.text)
			switch {
			case c.fine && err != nil:
				t.Errorf("refused: %v", err)
			case !c.fine && !errors.Is(err, reason.ProfileInvalid) && !errors.Is(err, reason.InstallFailed):
				t.Errorf("not refused: %v", err)
			}
			loaded, err := h.Loaded(t.Context())
			must(t, err)
			for _, l := range loaded {
				if !strings.HasPrefix(l.Name, "confine.shop.") || strings.Contains(l.Name, "//") {
					t.Errorf("%s is loaded", l.Name)
				}
			}
			if spaces, err := os.ReadDir(filepath.Join(policyFolder, "namespaces")); err != nil || len(spaces) > 0 {
				t.Errorf("policy namespaces: %v, %v", spaces, err)
			}
		})
	}
}

// costly are texts that are small and take the parser long, or much memory.
func costly() map[string]string {
	in := func(preamble, rules string) string { return preamble + "profile confine.shop.web {\n" + rules + "}\n" }
	var overlapping, alternatives, many strings.Builder
	for i := range 80 {
		fmt.Fprintf(&overlapping, "  /**%c**%c**%c**%d** rw,\n", 'a'+i%26, 'a'+i*7%26, 'a'+i*11%26, i)
		fmt.Fprintf(&alternatives, "  /**%s%d r,\n", strings.Repeat("{a,b,ab,ba}*", 60), i)
	}
	for i := range 18_000 {
		fmt.Fprintf(&many, "  /srv/%d/**/x%d* rw,\n", i, i%7)
	}
	values := "@{V0} = a b c d e f g h i j\n"
	for i := 1; i < 9; i++ {
		values += fmt.Sprintf("@{V%d} = @{V%d}@{V%d} x%d y%d\n", i, i-1, i-1, i, i)
	}
	return map[string]string{
		"globs that overlap":         in("", overlapping.String()),
		"alternatives of each other": in("", alternatives.String()),
		"variables of variables":     in(values, "  /@{V8} r,\n"),
		"rules without end":          in("", many.String()),
	}
}

// TestCostlyTextsAreRefusedInTime: what cannot be compiled within the limits is
// refused, and the units beside it are installed.
func TestCostlyTextsAreRefusedInTime(t *testing.T) {
	const limit = 4 * time.Second
	for name, text := range costly() {
		t.Run(name, func(t *testing.T) {
			h := realHost(t, Options{ParserTime: limit, ParserMemory: 192 << 20})
			start := time.Now()
			err := onlyGood(t, h, text)
			if !errors.Is(err, reason.ProfileInvalid) && !errors.Is(err, reason.InstallFailed) {
				t.Errorf("not refused: %v", err)
			}
			told, ok := reason.Of(err)
			if !ok || told.Advice == "" || len(err.Error()) > 1000 {
				t.Errorf("what to do is not said: %v", err)
			}
			// Three units, each with a run of the parser, on an emulated processor.
			if spent := time.Since(start); spent > 5*limit {
				t.Errorf("it took %s", spent)
			}
			t.Logf("%s: %v", time.Since(start), err)
		})
	}
}

// TestIncludesDoNotTellWhatFilesHold: no content of a file of the host is in
// what is said about a text that includes it.
func TestIncludesDoNotTellWhatFilesHold(t *testing.T) {
	const secret = "hunter2-password"
	must(t, os.WriteFile("/srv/secret", []byte(secret+" x,\n"), 0o600))
	must(t, os.WriteFile("/srv/open", []byte("}\n"+secret+" x,\n"), 0o644))
	for link, to := range map[string]string{"vm-secret": "/srv/secret", "vm-linked": "/srv"} {
		link = filepath.Join("/etc/apparmor.d/abstractions", link)
		must(t, os.Symlink(to, link))
		t.Cleanup(func() { _ = os.Remove(link) })
	}
	for _, include := range []string{
		`include "/srv/secret"`, `#include "/srv/secret"`, "include /srv/secret", "include if exists \"/srv/secret\"", "#include <../../srv/secret>",
		"include if exists <../../srv/secret>", "include <abstractions/../../../srv/secret>", "include <abstractions/vm-secret>",
		"include if exists <abstractions/vm-secret>", "include <abstractions/vm-linked>", "include <abstractions/vm-linked/secret>",
		`include "/srv/open"`, "include <../../srv/open>", `abi "/srv/secret",`, `abi "/srv/open",`, "abi <../../srv/secret>,",
	} {
		t.Run(include, func(t *testing.T) {
			h := realHost(t, Options{})
			err := onlyGood(t, h, "profile confine.shop.web {\n  "+include+"\n  /x r,\n}\n")
			said := fmt.Sprint(err)
			if failed, ok := errors.AsType[*ParserError](err); ok {
				said += failed.Log
			}
			if strings.Contains(said, secret) {
				t.Errorf("it is told: %s", said)
			}
			if err == nil && strings.HasPrefix(include, "include") && strings.Contains(include, "open") {
				t.Error("installed with text of the host in it")
			}
		})
	}
}

// TestOddNames: names come out as they went in, or not at all.
func TestOddNames(t *testing.T) {
	for _, name := range []string{
		"confine.shop.web", "confine.shop.web.", "confine.shop.-", `"confine.shop.web x"`, `"confine.shop.web (complain)"`, "confine.shop.w*b",
		"confine.shop.{a,b}", "confine.shop.ж", "confine.shop.%s%n", "confine.shop.$(id)", "confine.shop.web//a", "confine.shop.&x", `confine.shop.a\,b`,
		"confine.shop." + strings.Repeat("a", 180), "confine.shop." + strings.Repeat("a", 230), "confine.shop." + strings.Repeat("a", 250), "confine.shop." + strings.Repeat("a", 3000),
		"confine.shop.web {\n  profile " + strings.Repeat("a", 250) + " {\n    file,\n  }\n}\nprofile confine.shop.api", `"confine.shop.web//&unconfined"`, "confine.shop.@{x}", "confine.shop.a^b",
	} {
		t.Run(name, func(t *testing.T) {
			h := realHost(t, Options{})
			u := ofText("web", "profile "+name+" {\n  file,\n}\n")
			got := h.Install(t.Context(), []profile.Unit{u})[0]
			loaded, err := h.Loaded(t.Context())
			must(t, err)
			if got.Err != nil {
				if !errors.Is(got.Err, reason.ProfileInvalid) && !errors.Is(got.Err, reason.InstallFailed) || len(loaded) > 0 {
					t.Errorf("refused with %v, and loaded is %v", got.Err, loaded)
				}
				return
			}
			if want := strings.ReplaceAll(strings.Trim(name, `"`), `\,`, ","); len(loaded) != 1 || loaded[0].Name != want && loaded[0].Name != strings.Trim(name, `"`) {
				t.Errorf("loaded is %v", loaded)
			}
			must(t, h.Remove(t.Context(), []profile.Owner{u.Owner})[0].Err)
		})
	}
	// Some kernels load nothing any more after a name that is too long.
	h := realHost(t, Options{})
	must(t, h.Install(t.Context(), []profile.Unit{ofText("web", "profile confine.shop.web {\n  file,\n}\n")})[0].Err)
}
