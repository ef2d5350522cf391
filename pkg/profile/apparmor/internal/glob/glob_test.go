package glob_test

import (
	"testing"

	"github.com/confine-dev/confine/pkg/profile/apparmor/internal/glob"
)

func set(side glob.Side, globs ...string) *glob.Set {
	s := &glob.Set{}
	for _, g := range globs {
		s.Add(g, side)
	}
	return s
}

func matches(g, path string, side glob.Side) bool {
	budget := 1 << 20
	_, found := glob.Search(set(side, g), set(glob.Most, path), &glob.Set{}, &budget)
	return found == glob.Found
}

func TestMatching(t *testing.T) {
	for name, tc := range map[string]struct {
		glob, path  string
		most, least bool
	}{
		"literal":                     {"/a/b", "/a/b", true, true},
		"another":                     {"/a/b", "/a/c", false, false},
		"star stays in its part":      {"/a/*", "/a/b/c", false, false},
		"star in a part":              {"/a/x*", "/a/x", true, true},
		"star as a whole part":        {"/a/*", "/a/", true, false},
		"two stars":                   {"/a/**", "/a/b/c", true, true},
		"two stars before a name":     {"/**/c", "/a/b/c", true, true},
		"question mark":               {"/a?", "/ab", true, true},
		"question mark is no slash":   {"/a?b", "/a/b", false, false},
		"set":                         {"/[ab]", "/b", true, true},
		"range":                       {"/[a-c]", "/b", true, true},
		"beyond a range":              {"/[a-c]", "/d", false, false},
		"negated":                     {"/[^a]", "/b", true, true},
		"negated, itself":             {"/[^a]", "/a", false, false},
		"a negated set and the slash": {"/x[^a]y", "/x/y", true, false},
		"alternatives":                {"/{a,b}/c", "/b/c", true, true},
		"an empty alternative":        {"/a{,b}", "/a", true, true},
		"nested alternatives":         {"/{a,{b,c}d}", "/cd", true, true},
		"escaped star":                {`/a\*`, "/ab", false, false},
		"escaped star, itself":        {`/a\*`, `/a\*`, true, true},
		"a comma outside of braces":   {"/a,b", "/a,b", true, true},
		"the tail must match":         {"/a", "/ab", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := matches(tc.glob, tc.path, glob.Most); got != tc.most {
				t.Errorf("at most: %v", got)
			}
			if got := matches(tc.glob, tc.path, glob.Least); got != tc.least {
				t.Errorf("at least: %v", got)
			}
		})
	}
}

func TestSearch(t *testing.T) {
	for name, tc := range map[string]struct {
		allowed, among, except []string
		want                   glob.Finding
		path                   string
	}{
		"apart":                  {[]string{"/etc/**"}, []string{"/proc/sys/**"}, nil, glob.None, ""},
		"within":                 {[]string{"/**"}, []string{"/proc/sysrq-trigger"}, nil, glob.Found, "/proc/sysrq-trigger"},
		"taken away":             {[]string{"/**"}, []string{"/proc/sys/**"}, []string{"/proc/sys/**"}, glob.None, ""},
		"taken away but for one": {[]string{"/**"}, []string{"/p/**"}, []string{"/p/[^a]**", "/p/a[^b]**", "/p/ab?**", "/p/[^a]", "/p/ab"}, glob.Found, "/p/a"},
		"a hole in a deny":       {[]string{"/**"}, []string{"/p/sysrq"}, []string{"/p/[^s][^h][^m]**"}, glob.Found, "/p/sysrq"},
		"crossing globs":         {[]string{"/*/x/**"}, []string{"/proc/**/y"}, nil, glob.Found, "/proc/x/y"},
	} {
		t.Run(name, func(t *testing.T) {
			budget := 1 << 20
			path, got := glob.Search(set(glob.Most, tc.allowed...), set(glob.Least, tc.among...), set(glob.Least, tc.except...), &budget)
			if got != tc.want || path != tc.path {
				t.Errorf("%s %q, want %s %q", got, path, tc.want, tc.path)
			}
		})
	}
}

func TestTheBudgetEnds(t *testing.T) {
	hard := "/" // 2^20 states when made deterministic
	for range 20 {
		hard += "[ab]"
	}
	budget := 50_000
	path, got := glob.Search(set(glob.Most, "/{a,b,*}a"+hard[1:]), set(glob.Most, "/*b"+hard[1:]), &glob.Set{}, &budget)
	if got != glob.Unknown || budget >= 0 {
		t.Errorf("%s %q with %d left", got, path, budget)
	}
}

func FuzzSearch(f *testing.F) {
	f.Add("/proc/{sys,x}/**", "/**", "/proc/[^s]*")
	f.Add("[", "{", "\\")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if len(a)+len(b)+len(c) > 200 {
			return
		}
		budget := 20_000
		path, found := glob.Search(set(glob.Most, a), set(glob.Most, b), set(glob.Least, c), &budget)
		if found != glob.Found {
			return
		}
		budget = 1 << 20
		literal := ""
		for i := range len(path) {
			literal += `\` + path[i:i+1]
		}
		if _, again := glob.Search(set(glob.Most, a), set(glob.Most, literal), &glob.Set{}, &budget); again == glob.None {
			t.Errorf("%q is not matched by %q", path, a)
		}
		if _, again := glob.Search(set(glob.Least, c), set(glob.Most, literal), &glob.Set{}, &budget); again == glob.Found {
			t.Errorf("%q is taken away by %q", path, c)
		}
	})
}
