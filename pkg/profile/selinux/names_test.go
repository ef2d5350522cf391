package selinux_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/selinux"
	"github.com/confine-dev/confine/pkg/reason"
)

func TestBlockName(t *testing.T) {
	for name, tc := range map[string]struct{ namespace, rest, want string }{
		"plain":              {"web", "nginx", "confine_web_nginx"},
		"a hyphen":           {"shop-eu", "web", "confine_shop__eu_web"},
		"two hyphens":        {"a--b", "c", "confine_a____b_c"},
		"underscores":        {"a", "b_c__d", "confine_a_b_c__d"},
		"digits":             {"1", "2", "confine_1_2"},
		"ends as types do":   {"x", "t", "confine_x_t"},
		"longest namespace":  {strings.Repeat("a", 63), "b", "confine_" + strings.Repeat("a", 63) + "_b"},
		"no namespace":       {"", "x", ""},
		"namespace too long": {strings.Repeat("a", 64), "b", ""},
		"an underscore":      {"a_b", "c", ""},
		"capitals":           {"Web", "c", ""},
		"a dot":              {"a.b", "c", ""},
		"hyphen first":       {"-a", "c", ""},
		"hyphen last":        {"a-", "c", ""},
		"no rest":            {"a", "", ""},
		"rest by underscore": {"a", "_b", ""},
		"rest with a hyphen": {"a", "b-c", ""},
		"rest with a dot":    {"a", "b.process", ""},
		"rest in capitals":   {"a", "B", ""},
		"rest too long":      {"a", strings.Repeat("b", 231), ""},
	} {
		block, processType, err := selinux.BlockName(tc.namespace, tc.rest)
		if block != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("%s: %q, %v, want %q", name, block, err, tc.want)
		}
		if err != nil {
			continue
		}
		if processType != tc.want+".process" {
			t.Errorf("%s: the process type is %s", name, processType)
		}
		if got, ok := selinux.NamespaceOf(block); !ok || got != tc.namespace {
			t.Errorf("%s: it reads back as %q, %v", name, got, ok)
		}
		p := parse(t, "(block "+block+" (blockinherit container))")
		if err := selinux.NewKind().Constrain(p, profile.ForAnyone(), nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNamespaceOfRefusesWhatNobodyMakes(t *testing.T) {
	for _, block := range []string{
		"", "confine_", "confine_web", "confine_web_", "confine__web_x", "confine_a___b", "confine_a___b_c", "confine_a__b",
		"confine_a__", "Confine_a_b", "confine_a_B", "confine_a_b.c", "web_a_b", "confine_" + strings.Repeat("a", 64) + "_b",
	} {
		if namespace, ok := selinux.NamespaceOf(block); ok {
			t.Errorf("%q is taken for one of %q", block, namespace)
		}
		p := parse(t, `(block "`+block+`" (blockinherit container))`)
		if err := selinux.NewKind().Constrain(p, profile.ForAnyone(), nil); !errors.Is(err, reason.ProfileForbidden) {
			t.Errorf("%q: %v", block, err)
		}
	}
}

// TestNamesOfOthersAreTheirs tries to take what reads like the names of other
// tenants. wide is the widest policy that can be written: it gives none away.
func TestNamesOfOthersAreTheirs(t *testing.T) {
	const wide = `{"allowedBlocks":["con*","conf*","confin*","shop*","web*"]}`
	for name, tc := range map[string]struct {
		namespace, block string
		own              bool
	}{
		"its own":                        {"web", "confine_web_nginx", true},
		"its own, more words":            {"web", "confine_web_nginx_a__b", true},
		"its own, by a hyphen":           {"shop-eu", "confine_shop__eu_web", true},
		"its own, by two hyphens":        {"a--b", "confine_a____b_c", true},
		"its own that reads like two":    {"shop", "confine_shop_eu_web", true},
		"another's":                      {"web", "confine_shop_nginx", false},
		"of a longer namespace":          {"web", "confine_webs_nginx", false},
		"of a shorter namespace":         {"webs", "confine_web_nginx", false},
		"a-b and c, for a":               {"a", "confine_a__b_c", false},
		"a and b_c, for a-b":             {"a-b", "confine_a_b_c", false},
		"a--b and c, for a-b":            {"a-b", "confine_a____b_c", false},
		"a-b and c, for a--b":            {"a--b", "confine_a__b_c", false},
		"a-b-c and d, for a-b":           {"a-b", "confine_a__b__c_d", false},
		"three underscores":              {"a", "confine_a___b", false},
		"three underscores, with hyphen": {"a-b", "confine_a___b_c", false},
		"no name":                        {"web", "confine_web_", false},
		"no name and no underscore":      {"web", "confine_web", false},
		"an underscore first":            {"web", "confine__web_x", false},
		"another in the middle":          {"web", "confine_shop_confine_web_x", false},
		"its name for its namespace":     {"nginx", "confine_web_nginx", false},
		"a word before":                  {"web", "xconfine_web_x", false},
		"the prefix with another end":    {"web", "confined_web_x", false},
		"the prefix alone":               {"web", "confine", false},
		"the prefix without underscore":  {"web", "confineweb_x", false},
		"in capitals":                    {"web", "Confine_web_x", false},
		"the namespace in capitals":      {"web", "confine_Web_x", false},
		"a hyphen as it is":              {"shop-eu", "confine_shop-eu_web", false},
		"a dot":                          {"web", "confine_web.x", false},
		"quoted":                         {"web", `"confine_web_x"`, false},
		"no namespace":                   {"", "confine_web_x", false},
		"every namespace":                {"*", "confine_web_x", false},
	} {
		t.Run(name, func(t *testing.T) {
			p := parse(t, "(block "+tc.block+" (blockinherit container))")
			by := profile.For(profile.Owner{Namespace: tc.namespace, Name: "nginx"})
			var want error = reason.ProfileForbidden
			if tc.own {
				want = nil
			}
			for _, limits := range [][]profile.Limits{nil, {profile.Limits(wide)}} {
				if err := selinux.NewKind().Constrain(p, by, limits); !errors.Is(err, want) {
					t.Errorf("under %q: got %v, want %v", limits, err, want)
				}
			}
		})
	}
	listed := parse(t, "(block shop_x (blockinherit container))")
	if err := selinux.NewKind().Constrain(listed, profile.Scope{}, []profile.Limits{profile.Limits(wide)}); err != nil {
		t.Errorf("the widest policy admits nothing: %v", err)
	}
}

// TestNoTwoNamespacesShareAName makes all short namespaces and names.
func TestNoTwoNamespacesShareAName(t *testing.T) {
	words := []string{"a", "b", "ab"}
	for range 2 {
		for _, w := range slices.Clone(words) {
			words = append(words, "a-"+w, "b--"+w, w+"b")
		}
	}
	owners := map[string]string{}
	for _, namespace := range words {
		for _, w := range words {
			block, _, err := selinux.BlockName(namespace, strings.ReplaceAll(w, "-", "_"))
			if err != nil {
				t.Fatal(err)
			}
			if other, taken := owners[block]; taken && other != namespace {
				t.Errorf("%s belongs to %s and to %s", block, other, namespace)
			}
			owners[block] = namespace
		}
	}
}

func TestLimitsRelax(t *testing.T) {
	const everything = `{"allowedBlocks":["my_*"],"allowedTemplates":["home_rw_container","acme_container"],
		"allowedTypes":["mysqld_port_t","var_spool_t"],"allowedPermissions":[{"class":"process","permissions":["execmem"]},{"class":"bpf","permissions":["map_create"]}]}`
	acme := "(block my_x (blockinherit container) (blockinherit acme_container) (allow process self (process (execmem))) (allow process self (bpf (map_create))))"
	for name, tc := range map[string]struct {
		text   string
		limits []string // empty: nil
		want   error
	}{
		"all relaxed":              {reaching, []string{everything}, nil},
		"all relaxed, twice":       {reaching, []string{everything, everything}, nil},
		"a second without":         {reaching, []string{everything, ""}, reason.ProfileForbidden},
		"a first without":          {reaching, []string{"null", everything}, reason.ProfileForbidden},
		"half of it each":          {reaching, []string{`{"allowedBlocks":["my_*"],"allowedTypes":["mysqld_port_t","var_spool_t"]}`, `{"allowedTemplates":["home_rw_container"]}`}, reason.ProfileForbidden},
		"a template of one's own":  {acme, []string{everything}, nil},
		"block by its name":        {"(block web (blockinherit container))", []string{`{"allowedBlocks":["web"]}`}, nil},
		"block beyond its name":    {"(block webs (blockinherit container))", []string{`{"allowedBlocks":["web"]}`}, reason.ProfileForbidden},
		"block of a template":      {"(block net_container (blockinherit container))", []string{`{"allowedBlocks":["net_*"]}`}, reason.ProfileForbidden},
		"block of a listed one":    {"(block acme_container (blockinherit container))", []string{`{"allowedBlocks":["acme_*"],"allowedTemplates":["acme_container"]}`}, reason.ProfileForbidden},
		"block of a type":          {"(block acme_t (blockinherit container))", []string{`{"allowedBlocks":["acme_*"]}`}, reason.ProfileForbidden},
		"block in capitals":        {"(block acme_X (blockinherit container))", []string{`{"allowedBlocks":["acme_*"]}`}, reason.ProfileForbidden},
		"no base template":         {"(block my_x (blockinherit acme_container))", []string{everything}, reason.ProfileForbidden},
		"defaults stay":            {serving, []string{everything}, nil},
		"an empty object":          {serving, []string{"{}"}, nil},
		"null":                     {serving, []string{"null"}, nil},
		"null fields":              {serving, []string{`{"allowedBlocks":null,"allowedPermissions":null}`}, nil},
		"an unknown field":         {serving, []string{`{"allowedClasses":[]}`}, reason.TrustPolicyInvalid},
		"a field in another case":  {serving, []string{`{"AllowedBlocks":[]}`}, reason.TrustPolicyInvalid},
		"a field twice":            {serving, []string{`{"allowedBlocks":[],"allowedBlocks":[]}`}, reason.TrustPolicyInvalid},
		"a class twice":            {serving, []string{`{"allowedPermissions":[{"class":"a","permissions":["b"]},{"class":"a","permissions":["c"]}]}`}, reason.TrustPolicyInvalid},
		"every block":              {serving, []string{`{"allowedBlocks":["*"]}`}, reason.TrustPolicyInvalid},
		"nearly every block":       {serving, []string{`{"allowedBlocks":["ab*"]}`}, reason.TrustPolicyInvalid},
		"a star inside":            {serving, []string{`{"allowedBlocks":["abc*d"]}`}, reason.TrustPolicyInvalid},
		"a template as a block":    {serving, []string{`{"allowedBlocks":["container"]}`}, reason.TrustPolicyInvalid},
		"a dot in a type":          {serving, []string{`{"allowedTypes":["a.b"]}`}, reason.TrustPolicyInvalid},
		"a star as a type":         {serving, []string{`{"allowedTypes":["*"]}`}, reason.TrustPolicyInvalid},
		"notself as a type":        {serving, []string{`{"allowedTypes":["notself"]}`}, reason.TrustPolicyInvalid},
		"all as a permission":      {serving, []string{`{"allowedPermissions":[{"class":"file","permissions":["all"]}]}`}, reason.TrustPolicyInvalid},
		"not as a permission":      {serving, []string{`{"allowedPermissions":[{"class":"file","permissions":["not"]}]}`}, reason.TrustPolicyInvalid},
		"what no policy can admit": {serving, []string{`{"allowedPermissions":[{"class":"security","permissions":["setenforce"]}]}`}, reason.TrustPolicyInvalid},
		"relabelling":              {serving, []string{`{"allowedPermissions":[{"class":"acme","permissions":["relabelto"]}]}`}, reason.TrustPolicyInvalid},
		"a number as a name":       {serving, []string{`{"allowedTypes":[1]}`}, reason.TrustPolicyInvalid},
		"an object of classes":     {serving, []string{`{"allowedPermissions":{"file":["read"]}}`}, reason.TrustPolicyInvalid},
		"null as a class":          {serving, []string{`{"allowedPermissions":[null]}`}, reason.TrustPolicyInvalid},
		"a class alone":            {serving, []string{`{"allowedPermissions":[{"class":"file"}]}`}, reason.TrustPolicyInvalid},
		"a class with none":        {serving, []string{`{"allowedPermissions":[{"class":"file","permissions":[]}]}`}, reason.TrustPolicyInvalid},
		"permissions alone":        {serving, []string{`{"allowedPermissions":[{"permissions":["read"]}]}`}, reason.TrustPolicyInvalid},
		"an unknown field of one":  {serving, []string{`{"allowedPermissions":[{"class":"file","permissions":["read"],"types":["a"]}]}`}, reason.TrustPolicyInvalid},
		"a class with a dot":       {serving, []string{`{"allowedPermissions":[{"class":"a.b","permissions":["read"]}]}`}, reason.TrustPolicyInvalid},
		"Confine's own blocks":     {serving, []string{`{"allowedBlocks":["confine_*"]}`}, reason.TrustPolicyInvalid},
		"a tenant's block":         {serving, []string{`{"allowedBlocks":["confine_shop_web"]}`}, reason.TrustPolicyInvalid},
		"blocks like Confine's":    {serving, []string{`{"allowedBlocks":["confined_*"]}`}, reason.TrustPolicyInvalid},
		"permissions, no list":     {serving, []string{`{"allowedPermissions":[{"class":"file","permissions":"read"}]}`}, reason.TrustPolicyInvalid},
		"cut":                      {serving, []string{`{"allowedTypes":["a"`}, reason.TrustPolicyInvalid},
		"more behind it":           {serving, []string{`{} {}`}, reason.TrustPolicyInvalid},
		"too many names":           {serving, []string{`{"allowedTypes":["a"` + strings.Repeat(`,"a"`, 512) + `]}`}, reason.TrustPolicyInvalid},
		"too large":                {serving, []string{strings.Repeat(" ", 256<<10) + "{}"}, reason.TrustPolicyInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			var limits []profile.Limits
			for _, text := range tc.limits {
				if text == "" {
					limits = append(limits, nil)
				} else {
					limits = append(limits, profile.Limits(text))
				}
			}
			if err := selinux.NewKind().Constrain(parse(t, tc.text), profile.ForAnyone(), limits); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// TestTheTablesHoldTogether: what no policy can admit is in no default.
func TestTheTablesHoldTogether(t *testing.T) {
	for class, permissions := range selinux.DefaultPermissions() {
		seen := map[string]bool{}
		for _, p := range permissions {
			if why := selinux.NeverPermitted(class, p); why != "" || seen[p] {
				t.Errorf("%s %s: %s, twice %v", class, p, why, seen[p])
			}
			seen[p] = true
		}
	}
	byDefault, listed := selinux.DefaultTemplates()
	for _, name := range listed {
		p := parse(t, block("(blockinherit "+name+")"))
		if err := selinux.NewKind().Constrain(p, profile.ForAnyone(), nil); !errors.Is(err, reason.ProfileForbidden) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range byDefault {
		text := block("(blockinherit " + name + ")")
		if name == "container" {
			text = block("")
		}
		if err := selinux.NewKind().Constrain(parse(t, text), profile.ForAnyone(), nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
