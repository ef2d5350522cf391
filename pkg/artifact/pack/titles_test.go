package pack_test

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/artifact/pack"
)

func TestSanitizeTitle(t *testing.T) {
	t.Parallel()
	cases := map[string]struct{ title, want string }{
		"a plain name":              {"nginx.json", "nginx.json"},
		"case stays":                {"Nginx_1-27.JSON", "Nginx_1-27.JSON"},
		"no extension":              {"usr.sbin.nginx", "usr.sbin.nginx"},
		"empty":                     {"", ""},
		"dot":                       {".", ""},
		"dot dot":                   {"..", ""},
		"dot dot slash":             {"../", ""},
		"escape by dot dot":         {"../../../etc/passwd", "passwd"},
		"absolute":                  {"/etc/cron.d/evil.json", "evil.json"},
		"a folder":                  {"profiles/nginx.json", "nginx.json"},
		"a trailing slash":          {"profiles/", ""},
		"backslashes":               {`..\..\windows\evil.json`, "evil.json"},
		"a drive":                   {`C:evil.json`, "C_evil.json"},
		"NUL":                       {"nginx.json\x00.sh", "nginx.json_.sh"},
		"newline":                   {"nginx\n.json", "nginx_.json"},
		"terminal escape":           {"\x1b[31mred.json", "_31mred.json"},
		"a leading dot":             {".artifacts", "artifacts"},
		"many leading dots":         {"...hidden.json", "hidden.json"},
		"a leading hyphen":          {"-rf", "rf"},
		"a leading dot and hyphen":  {".-.-x.json", "x.json"},
		"trailing dots":             {"nginx.json..", "nginx.json"},
		"a space":                   {"my profile.json", "my_profile.json"},
		"non-ASCII":                 {"profilé.json", "profil_.json"},
		"right-to-left override":    {"nginx\u202enosj.exe", "nginx_nosj.exe"},
		"nothing but non-ASCII":     {"日本語", ""},
		"invalid UTF-8":             {"a\xff\xfeb.json", "a_b.json"},
		"percent escapes stay text": {"%2e%2e%2fpasswd", "_2e_2e_2fpasswd"},
		"128 bytes":                 {strings.Repeat("a", 128), strings.Repeat("a", 128)},
		"129 bytes":                 {strings.Repeat("a", 129), ""},
		"300 bytes":                 {strings.Repeat("a", 295) + ".json", ""},
		"a megabyte of letters":     {strings.Repeat("a", 1<<20), ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := pack.SanitizeTitle(tc.title); got != tc.want {
				t.Errorf("SanitizeTitle(%.60q) = %q, want %q", tc.title, got, tc.want)
			}
		})
	}
}

func TestHostileTitlesBecomeTheDefaultFileOrABareName(t *testing.T) {
	t.Parallel()
	for title, want := range map[string]string{
		"../../etc/shadow":                 "shadow",
		"..":                               "profile.cil",
		strings.Repeat("x", 300):           "profile.cil",
		"\x00":                             "profile.cil",
		"/var/lib/kubelet/seccomp/own.cil": "own.cil",
	} {
		m, err := pack.Parse(encode(t, manifestOf(pack.ArtifactTypeBundle, blobOf(cilType, cilData, title))), testKinds())
		if err != nil {
			t.Errorf("%.40q: %v", title, err)
			continue
		}
		if got := m.Layers[0].File; got != want {
			t.Errorf("%.40q is installed as %q, want %q", title, got, want)
		}
	}
}

func FuzzSanitizeTitle(f *testing.F) {
	for _, seed := range []string{"nginx.json", "../..", "a/b\\c", ".\x00-", "é_é", strings.Repeat(".", 300) + "a"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, title string) {
		checkFile(t, title, pack.SanitizeTitle(title), true)
	})
}

// checkFile holds what installers rely on.
func checkFile(t *testing.T, title, file string, mayBeEmpty bool) {
	t.Helper()
	if file == "" && mayBeEmpty {
		return
	}
	allowed := func(r rune) bool {
		return strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", r)
	}
	switch {
	case file == "" || len(file) > 128 || !fs.ValidPath(file) || strings.ContainsAny(file, `/\`):
		t.Fatalf("%q became %q, which is no bare file name", title, file)
	case strings.HasPrefix(file, ".") || strings.HasPrefix(file, "-") || strings.HasSuffix(file, "."):
		t.Fatalf("%q became %q", title, file)
	case strings.TrimFunc(file, allowed) != "":
		t.Fatalf("%q became %q, which holds other characters", title, file)
	case pack.SanitizeTitle(file) != file:
		t.Fatalf("%q became %q, which becomes %q", title, file, pack.SanitizeTitle(file))
	}
}
