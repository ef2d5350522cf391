package selinux_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/profile/selinux"
	"github.com/confine-dev/confine/pkg/reason"
)

func seeds(f *testing.F) []string {
	f.Helper()
	var all []string
	for _, set := range []map[string]profiletest.Payload{good(), bad()} {
		for _, p := range set {
			if len(p.Data) < 2048 {
				all = append(all, p.Data)
			}
		}
	}
	for _, e := range corpus() {
		all = append(all, e.text)
	}
	return all
}

func FuzzParse(f *testing.F) {
	for _, text := range seeds(f) {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		k := selinux.NewKind()
		k.Sniff(data)
		p, err := selinux.Parse("x.cil", data)
		if err != nil {
			if !errors.Is(err, reason.ProfileInvalid) && !errors.Is(err, reason.TooLarge) {
				t.Errorf("the refusal is %v", err)
			}
			return
		}
		if changes, err := k.Diff(p, p); err != nil || len(changes) > 0 {
			t.Errorf("it differs from itself: %v %v", changes, err)
		}
		// Without comments the text means the same.
		again, err := selinux.Parse("x.cil", []byte(p.Text()))
		if err != nil {
			t.Fatalf("what it wrote it does not read: %v\n%s", err, p.Text())
		}
		if changes, err := k.Diff(p, again); err != nil || len(changes) > 0 {
			t.Errorf("written again it differs: %v %v", changes, err)
		}
	})
}

// FuzzConstrain holds what is admitted against a second, plain reading: the
// whole text must match one regular expression, and its words the tables.
func FuzzConstrain(f *testing.F) {
	for _, text := range seeds(f) {
		f.Add([]byte(text), []byte(`{}`))
	}
	f.Add([]byte(serving), []byte(`{"allowedTypes":["secret_t"]}`))
	f.Fuzz(func(t *testing.T, data, limits []byte) {
		p, err := selinux.Parse("x.cil", data)
		if err != nil {
			return
		}
		k := selinux.NewKind()
		safe, both := k.Constrain(p, profile.ForAnyone(), nil), k.Constrain(p, profile.ForAnyone(), []profile.Limits{nil, limits})
		for _, err := range []error{safe, both} {
			if err != nil && !errors.Is(err, reason.ProfileForbidden) && !errors.Is(err, reason.TrustPolicyInvalid) {
				t.Errorf("the refusal is %v", err)
			}
		}
		if safe != nil && both == nil {
			t.Fatalf("a second policy admitted what the first forbids: %v", safe)
		}
		if safe == nil {
			plainlyAdmitted(t, string(data))
		}
	})
}

func plainlyAdmitted(t *testing.T, text string) {
	t.Helper()
	text = regexp.MustCompile(`;[^\n]*`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`\s+`).ReplaceAllString(text, " ")
	text = regexp.MustCompile(` ?([()]) ?`).ReplaceAllString(text, "$1")
	whole := regexp.MustCompile(`\A\(block confine_[a-z0-9_]+((\(blockinherit [a-z_]+\))|(\(allow process (self|process|socket)\([a-z_]+\([a-z_ ]+\)\)\)))*\)\z`)
	if !whole.MatchString(text) {
		t.Fatalf("admitted: %s", text)
	}
	if n := strings.Count(text, "(blockinherit container)"); n != 1 {
		t.Errorf("container is inherited %d times: %s", n, text)
	}
	byDefault, _ := selinux.DefaultTemplates()
	for _, m := range regexp.MustCompile(`\(blockinherit ([a-z_]+)\)`).FindAllStringSubmatch(text, -1) {
		if !strings.Contains(" "+strings.Join(byDefault, " ")+" ", " "+m[1]+" ") {
			t.Errorf("the template %s", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`\(([a-z_]+)\(([a-z_ ]+)\)\)\)`).FindAllStringSubmatch(text, -1) {
		for p := range strings.FieldsSeq(m[2]) {
			if !strings.Contains(" "+strings.Join(selinux.DefaultPermissions()[m[1]], " ")+" ", " "+p+" ") {
				t.Errorf("%s %s", m[1], p)
			}
		}
	}
}

func FuzzLimits(f *testing.F) {
	for _, seed := range []string{``, `null`, `{}`, `{"allowedBlocks":["my_*"]}`, `{"allowedTemplates":["home_rw_container"],"allowedTypes":["x"]}`,
		`{"allowedPermissions":[{"class":"process","permissions":["execmem"]}]}`, `{"allowedTypes":["secret_t","a.b"]}`, `{"a":1,"a":1}`, "{\"\xff\":1}"} {
		f.Add([]byte(seed))
	}
	forbidden, err := selinux.Parse("x.cil", []byte(block("(allow process secret_t (file (read)))")))
	if err != nil {
		f.Fatal(err)
	}
	never, err := selinux.Parse("x.cil", []byte(block("(allow process self (security (setenforce)))")))
	if err != nil {
		f.Fatal(err)
	}
	k := selinux.NewKind()
	f.Fuzz(func(t *testing.T, raw []byte) {
		if raw == nil {
			raw = []byte{}
		}
		err := k.Constrain(forbidden, profile.ForAnyone(), []profile.Limits{raw})
		relaxes := strings.Contains(string(raw), "secret_t") || strings.Contains(string(raw), `\`)
		if err == nil && !relaxes {
			t.Errorf("the type is admitted by %q", raw)
		}
		if err != nil && !errors.Is(err, reason.ProfileForbidden) && !errors.Is(err, reason.TrustPolicyInvalid) {
			t.Errorf("the refusal is %v", err)
		}
		if k.Constrain(never, profile.ForAnyone(), []profile.Limits{raw}) == nil {
			t.Errorf("setenforce is admitted by %q", raw)
		}
	})
}
