package api_test

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/node/intent"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/profile/apparmor/policy"
	"github.com/confine-dev/confine/pkg/profile/kinds"
	"github.com/confine-dev/confine/pkg/reason"
)

// constraintRefusals are the constraints of AppArmor and SELinux that the
// server refuses.
func constraintRefusals() map[string]refusal {
	list := func(field string) func(value, want string) refusal {
		return func(value, want string) refusal {
			return refusal{change{"spec.constraints." + field: []any{value}}, want}
		}
	}
	names, flags := list("apparmor.allowedNames"), list("apparmor.allowedFlags")
	capabilities, rules := list("apparmor.allowedCapabilities"), list("apparmor.allowedRules")
	blocks, templates, types := list("selinux.allowedBlocks"), list("selinux.allowedTemplates"), list("selinux.allowedTypes")
	permissions := func(class, permission, want string) refusal {
		return refusal{change{"spec.constraints.selinux.allowedPermissions": []any{permit(class, permission)}}, want}
	}
	return map[string]refusal{
		"names: everything":             names("***", plainNames),
		"names: nearly everything":      names("ab*", plainNames),
		"names: an end":                 names("*web", plainNames),
		"names: a path":                 names("/usr/bin/*", plainNames),
		"names: an expression":          names("web(.*)", plainNames),
		"names: a namespace of policy":  names(":web:x", plainNames),
		"names: a line after it":        names("web.*\n", plainNames),
		"names: Confine's":              names("confine.*", confinesNames),
		"names: another tenant's":       names("confine.shop.web", confinesNames),
		"names: Confine's, in capitals": names("CONFINE.shop.*", confinesNames),
		"names: like Confine's":         names("confined*", confinesNames),
		"names: the same twice":         {change{"spec.constraints.apparmor.allowedNames": []any{"web", "web"}}, "Duplicate value"},
		"flags: an unknown one":         flags("quiet", "Unsupported value"),
		"flags: with a value":           flags("attach_disconnected.path=/x", "Unsupported value"),
		"capabilities: by its C name":   capabilities("CAP_SYS_ADMIN", "Unsupported value"),
		"capabilities: all":             capabilities("*", "Unsupported value"),
		"rules: an unknown class":       rules("everything", "Unsupported value"),
		"rules: what is never allowed":  rules("stacking", "Unsupported value"),
		"apparmor: an unknown field":    {change{"spec.constraints.apparmor.allowedAll": []any{"x"}}, `unknown field "spec.constraints.apparmor.allowedAll"`},
		"apparmor: no list":             {change{"spec.constraints.apparmor.allowedNames": "web"}, "spec.constraints.apparmor.allowedNames"},
		"blocks: everything":            blocks("***", plainBlocks),
		"blocks: nearly everything":     blocks("ab*", plainBlocks),
		"blocks: a star inside":         blocks("abc*d", plainBlocks),
		"blocks: in capitals":           blocks("Web_x", plainBlocks),
		"blocks: a dot":                 blocks("web.x", plainBlocks),
		"blocks: Confine's":             blocks("confine_*", confinesBlocks),
		"blocks: another tenant's":      blocks("confine_shop_web", confinesBlocks),
		"blocks: a type":                blocks("sshd_t", typesBlocks),
		"templates: a star":             templates("log_*", plainTemplate),
		"templates: a keyword":          templates("all", plainTemplate),
		"types: every one":              types("*", plainTypes),
		"types: of another block":       types("confine_shop_web.process", plainTypes),
		"types: all but one's own":      types("notself", plainTypes),
		"permissions: no class":         {change{"spec.constraints.selinux.allowedPermissions[0].class": nil}, "allowedPermissions[0].class: Required value"},
		"permissions: a class of two":   permissions("file dir", "read", plainClass),
		"permissions: a keyword":        permissions("file", "all", plainPermission),
		"permissions: an expression":    permissions("file", "(not (read))", plainPermission),
		"permissions: a class twice": {
			change{"spec.constraints.selinux.allowedPermissions": []any{permit("file", "read"), permit("file", "write")}}, "Duplicate value",
		},
		"never: SELinux itself":        permissions("security", "setenforce", neverPermitted),
		"never: the kernel's label":    permissions("kernel_service", "use_as_override", neverPermitted),
		"never: leaving, unprivileged": permissions("process2", "nnp_transition", neverPermitted),
		"never: low memory":            permissions("memprotect", "mmap_zero", neverPermitted),
		"never: relabelling from":      permissions("file", "relabelfrom", neverPermitted),
		"never: relabelling to":        permissions("acme", "relabelto", neverPermitted),
		"never: a way in":              permissions("file", "entrypoint", neverPermitted),
		"never: leaving":               permissions("process", "transition", neverPermitted),
		"never: leaving while running": permissions("process", "dyntransition", neverPermitted),
		"never: another current type":  permissions("process", "setcurrent", neverPermitted),
		"never: above policy":          permissions("capability2", "mac_admin", neverPermitted),
		"never: above policy, again":   permissions("cap2_userns", "mac_override", neverPermitted),
		"never: modules":               permissions("capability", "sys_module", neverPermitted),
		"never: modules, in a userns":  permissions("cap_userns", "sys_module", neverPermitted),
		"never: modules, loaded":       permissions("system", "module_load", neverPermitted),
		"selinux: an unknown field":    {change{"spec.constraints.selinux.allowedClasses": []any{"x"}}, `unknown field "spec.constraints.selinux.allowedClasses"`},
	}
}

func permit(class string, permissions ...string) map[string]any {
	list := []any{}
	for _, p := range permissions {
		list = append(list, p)
	}
	return map[string]any{"class": class, "permissions": list}
}

// Server and kinds differ here, each for its reason; all else is judged alike.

func onlyKindRefuses() map[string]string {
	return map[string]string{
		"a block of a template": "which blocks are templates stands in the kind alone",
		"a block process":       "which words the grammar takes stands in the kind alone",
	}
}

func onlyServerRefusesConstraint() map[string]string {
	const sets = "lists are sets there, so that several managers can each own entries"
	return map[string]string{
		"names: the same twice": sets, "a flag twice": sets, "65 permissions of a class": "no class of the kernel has as many",
		"129 classes": "the kernel has fewer",
	}
}

// TestServerAndKindsJudgeConstraintsAlike: what the server takes, every node
// can read, or all artifacts of the policy would wait.
func TestServerAndKindsJudgeConstraintsAlike(t *testing.T) {
	in := func(path string, value ...any) change { return change{"spec.constraints." + path: value} }
	many := func(n int, of func(i int) any) []any {
		var list []any
		for i := range n {
			list = append(list, of(i))
		}
		return list
	}
	word := func(i int) any { return "web" + strings.Repeat("x", i) }
	variants := map[string]change{
		"as it is":                  {},
		"no constraints":            {"spec.constraints.apparmor": map[string]any{}, "spec.constraints.selinux": map[string]any{}},
		"empty lists":               {"spec.constraints.apparmor.allowedNames": []any{}, "spec.constraints.selinux.allowedBlocks": []any{}},
		"names of every shape":      in("apparmor.allowedNames", "web", "Web.x_y-1*", "a--*", "con*", "9.9*z*"),
		"a long name":               in("apparmor.allowedNames", strings.Repeat("a", 253)),
		"a name of 254":             in("apparmor.allowedNames", strings.Repeat("a", 254)),
		"a name of two":             in("apparmor.allowedNames", "ab"),
		"250 names":                 in("apparmor.allowedNames", many(250, word)...),
		"513 names":                 in("apparmor.allowedNames", many(513, func(i int) any { return "web" + string(rune('a'+i%26)) + strings.Repeat("x", i/26) })...),
		"a flag twice":              in("apparmor.allowedFlags", "complain", "complain"),
		"blocks of every shape":     in("selinux.allowedBlocks", "web", "web_*", "a__", "con*", "web_t*"),
		"a block of 241":            in("selinux.allowedBlocks", strings.Repeat("a", 241)),
		"a block of two":            in("selinux.allowedBlocks", "ab"),
		"a block of a template":     in("selinux.allowedBlocks", "net_container"),
		"a block process":           in("selinux.allowedBlocks", "process"),
		"a template of one's own":   in("selinux.allowedTemplates", "Acme_container"),
		"a name of 129":             in("selinux.allowedTypes", strings.Repeat("a", 129)),
		"a name of 128":             in("selinux.allowedTypes", strings.Repeat("a", 128)),
		"an underscore first":       in("selinux.allowedTypes", "_a"),
		"several classes":           in("selinux.allowedPermissions", permit("process", "execmem", "ptrace"), permit("bpf", "map_create")),
		"65 permissions of a class": in("selinux.allowedPermissions", map[string]any{"class": "file", "permissions": many(65, word)}),
		"129 classes":               in("selinux.allowedPermissions", many(129, func(i int) any { return permit("c"+strings.Repeat("x", i%100)+strings.Repeat("y", i/100), "read") })...),
		"a class without any":       in("selinux.allowedPermissions", permit("process")),
	}
	for name, tc := range constraintRefusals() {
		variants[name] = tc.set
	}
	compareVerdicts(t, onlyKindRefuses(), onlyServerRefusesConstraint(), variants,
		func(change change) *unstructured.Unstructured { return change.of(t, trustPolicy()) }, readable)
}

// readable holds the constraints of a policy against every kind's own reader.
func readable(data []byte) error {
	policies, err := intent.DecodePolicies("policy.json", data)
	if err == nil {
		_, err = trust.Compile(policies)
	}
	if err != nil {
		return err
	}
	for kind, text := range map[string]string{
		"seccomp": `{"defaultAction":"SCMP_ACT_ERRNO"}`, apparmor.Name: "profile confine.web.x {\n}\n", "selinux": "(block confine_web_x (blockinherit container))",
	} {
		k, _ := kinds.All(nil).ByName(kind)
		p, err := k.Parse("x", []byte(text))
		if err != nil {
			return err
		}
		err = k.Constrain(p, profile.ForAnyone(), []profile.Limits{policies[0].Limits[kind]})
		if err != nil && !errors.Is(err, reason.TrustPolicyInvalid) {
			return errors.New("the sample is forbidden: " + err.Error())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// TestEnumerationsAreTheReaders: each word that the server takes is one that
// the reader knows, and the other way round.
func TestEnumerationsAreTheReaders(t *testing.T) {
	for path, tc := range map[string]struct {
		known func(string) bool
		count int
	}{
		"spec.constraints.apparmor.allowedFlags[0]":        {policy.IsFlag, 23},
		"spec.constraints.apparmor.allowedCapabilities[0]": {policy.IsCapability, 41},
		"spec.constraints.apparmor.allowedRules[0]": {
			func(word string) bool { return slices.Contains(apparmor.RuleClasses(), apparmor.RuleClass(word)) }, len(apparmor.RuleClasses()),
		},
	} {
		var words []string
		for _, p := range schemas(t, "TrustPolicy") {
			if p.path != path {
				continue
			}
			raw, _ := json.Marshal(p.schema["enum"])
			if err := json.Unmarshal(raw, &words); err != nil {
				t.Fatal(err)
			}
		}
		if len(words) != tc.count {
			t.Errorf("%s has %d words, and the reader %d", path, len(words), tc.count)
		}
		for _, word := range words {
			if !tc.known(word) {
				t.Errorf("%s: the reader does not know %s", path, word)
			}
		}
	}
}

// TestEveryKindHasConstraints: a kind whose limits no policy can state could
// only be allowed or refused as a whole.
func TestEveryKindHasConstraints(t *testing.T) {
	var have []string
	for _, p := range schemas(t, "TrustPolicy") {
		if p.path == "spec.constraints" {
			have = slices.Sorted(maps.Keys(p.schema["properties"].(map[string]any)))
		}
	}
	if want := slices.Sorted(slices.Values(kinds.All(nil).Names())); !slices.Equal(have, want) {
		t.Errorf("constraints for %v, kinds %v", have, want)
	}
}
