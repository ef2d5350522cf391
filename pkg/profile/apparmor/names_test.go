package apparmor_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/reason"
)

// TestNamesOfOthersAreTheirs tries to take what reads like the names of other
// tenants. wide is the widest policy that can be written: it gives none away.
func TestNamesOfOthersAreTheirs(t *testing.T) {
	const wide = `{"allowedNames":["con*","Con*","CON*","confin*","web*","shop*"],"allowedRules":["exec-other","attachment"]}`
	k := apparmor.NewKind()
	for name, tc := range map[string]struct {
		namespace, text string
		own             bool
	}{
		"its own":                    {"web", "profile confine.web.nginx {\n}\n", true},
		"its own, more labels":       {"web", "profile confine.web.nginx.worker {\n}\n", true},
		"its own, with hyphens":      {"shop-eu", "profile confine.shop-eu.web-1 {\n}\n", true},
		"its own, twice":             {"web", "profile confine.web.a {\n}\nprofile confine.web.b {\n}\n", true},
		"a child like another's":     {"web", "profile confine.web.a {\n  profile confine.shop.b {\n  }\n}\n", true},
		"quoted, its own":            {"web", "profile \"confine.web.nginx\" {\n}\n", true},
		"another's":                  {"web", "profile confine.shop.nginx {\n}\n", false},
		"its own and another's":      {"web", "profile confine.web.a {\n}\nprofile confine.shop.a {\n}\n", false},
		"of a longer namespace":      {"web", "profile confine.webs.nginx {\n}\n", false},
		"of a shorter namespace":     {"webs", "profile confine.web.nginx {\n}\n", false},
		"of a namespace with hyphen": {"web", "profile confine.web-eu.nginx {\n}\n", false},
		"the namespace second":       {"web", "profile confine.shop.web.nginx {\n}\n", false},
		"its name for its namespace": {"nginx", "profile confine.web.nginx {\n}\n", false},
		"no name":                    {"web", "profile confine.web {\n}\n", false},
		"no name and a dot":          {"web", "profile confine.web. {\n}\n", false},
		"an empty label":             {"web", "profile confine.web..nginx {\n}\n", false},
		"an empty namespace":         {"web", "profile confine..web.nginx {\n}\n", false},
		"a dot at its end":           {"web", "profile confine.web.nginx. {\n}\n", false},
		"a hyphen for the dot":       {"web", "profile confine.web-nginx {\n}\n", false},
		"a hyphen after the prefix":  {"web", "profile confine-web.nginx {\n}\n", false},
		"an underscore":              {"web", "profile confine.web_nginx.x {\n}\n", false},
		"a name in capitals":         {"web", "profile confine.web.Nginx {\n}\n", false},
		"the namespace in capitals":  {"web", "profile confine.Web.nginx {\n}\n", false},
		"the prefix in capitals":     {"web", "profile Confine.shop.nginx {\n}\n", false},
		"all in capitals":            {"web", "profile CONFINE.SHOP.NGINX {\n}\n", false},
		"a prefix with another end":  {"web", "profile confined.web.nginx {\n}\n", false},
		"the prefix alone":           {"web", "profile confine {\n}\n", false},
		"a letter of Cyrillic":       {"web", "profile \"confinе.shop.nginx\" {\n}\n", false},
		"a letter of no width":       {"web", "profile \"confine.\u2060shop.nginx\" {\n}\n", false},
		"a blank at the end":         {"web", "profile \"confine.web.nginx \" {\n}\n", false},
		"another's child":            {"web", "profile confine.shop.nginx//worker {\n}\n", false},
		"its own child's":            {"web", "profile confine.web.nginx//worker {\n}\n", false},
		"a stack":                    {"web", "profile confine.web.nginx//&confine.shop.nginx {\n}\n", false},
		"another policy namespace":   {"web", "profile :shop:confine.web.nginx {\n}\n", false},
		"a policy namespace, //":     {"web", "profile :shop://confine.web.nginx {\n}\n", false},
		"a variable":                 {"web", "@{NS} = shop\nprofile confine.@{NS}.nginx {\n}\n", false},
		"an alternation":             {"web", "profile confine.{web,shop}.nginx {\n}\n", false},
		"a hat at the top":           {"web", "profile confine.web.a {\n}\n^confine.shop.nginx {\n}\n", false},
		"no namespace":               {"", "profile confine.web.nginx {\n}\n", false},
		"every namespace":            {"*", "profile confine.web.nginx {\n}\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := k.Parse("p.aa", []byte(tc.text))
			if err != nil {
				if tc.own {
					t.Fatal(err)
				}
				if !errors.Is(err, reason.ProfileInvalid) {
					t.Errorf("got %v", err)
				}
				return
			}
			by := profile.For(profile.Owner{Namespace: tc.namespace, Name: "nginx"})
			var want error = reason.ProfileForbidden
			if tc.own {
				want = nil
			}
			for _, limits := range [][]profile.Limits{nil, raw(wide)} {
				if err := k.Constrain(p, by, limits); !errors.Is(err, want) {
					t.Errorf("under %q: got %v, want %v", limits, err, want)
				}
			}
		})
	}
	if err := k.Constrain(parse(t, "profile shop-x {\n}\n"), profile.Scope{}, raw(wide)); err != nil {
		t.Errorf("the widest policy admits nothing: %v", err)
	}
}

// TestARefusalSaysWhatToWrite holds what people get to read.
func TestARefusalSaysWhatToWrite(t *testing.T) {
	web := profile.For(profile.Owner{Namespace: "web", Name: "nginx"})
	for name, tc := range map[string]struct {
		by     profile.Scope
		text   string
		detail string
		advice string
	}{
		"another's": {
			web, "profile confine.shop.nginx {\n}\n", `the name "confine.shop.nginx" belongs to the namespace shop`,
			"name the profile confine.web.NAME, or create the SecurityProfile in the namespace that the name says",
		},
		"no one's": {
			web, "profile nginx {\n}\n", `the profile's name "nginx" is not confine.web.NAME of DNS labels`,
			"name the profile confine.web.NAME, or let allowedNames of every matching TrustPolicy name it",
		},
		"for anyone": {
			profile.ForAnyone(), "profile nginx {\n}\n", `the profile's name "nginx" is not confine.NAMESPACE.NAME of DNS labels`,
			"name the profile confine.NAMESPACE.NAME, or let allowedNames of every matching TrustPolicy name it",
		},
	} {
		e, ok := reason.Of(apparmor.NewKind().Constrain(parse(t, tc.text), tc.by, nil))
		if !ok || e.Object != "p.aa:1:1" || e.Detail != tc.detail || e.Advice != tc.advice {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// TestNamesThatAreTooLong: a kernel can be left unable to load anything by one.
func TestNamesThatAreTooLong(t *testing.T) {
	const wide = `{"allowedNames":["web*"]}`
	k := apparmor.NewKind()
	for _, prefix := range []string{"confine.shop.", "web-"} {
		for bytes, want := range map[int]reason.Reason{apparmor.MaxNameBytes: "", apparmor.MaxNameBytes + 1: reason.ProfileForbidden} {
			name := prefix + strings.Repeat("a.", apparmor.MaxNameBytes)[:bytes-len(prefix)-1] + "a"
			p, err := k.Parse("p.aa", []byte("profile "+name+" {\n}\n"))
			if err != nil {
				t.Fatal(err)
			}
			err = k.Constrain(p, profile.For(profile.Owner{Namespace: "shop", Name: "web"}), []profile.Limits{profile.Limits(wide)})
			if got, _ := reason.Of(err); want == "" && err != nil || want != "" && (got == nil || got.Reason != want) {
				t.Errorf("%d bytes: %v, want %q", len(name), err, want)
			}
		}
	}
}
