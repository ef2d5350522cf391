package reference_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/reason"
)

const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseCanonicalizes(t *testing.T) {
	t.Parallel()
	pinned := "@sha256:" + hex64
	cases := map[string]struct{ in, want string }{
		"repository":                        {"registry.example/team/web", "registry.example/team/web"},
		"tag":                               {"registry.example/web:v1.2", "registry.example/web:v1.2"},
		"tag keeps its case":                {"registry.example/web:V1_a", "registry.example/web:V1_a"},
		"digest":                            {"registry.example/web" + pinned, "registry.example/web" + pinned},
		"tag and digest":                    {"registry.example/web:v1" + pinned, "registry.example/web:v1" + pinned},
		"port":                              {"registry.example:5000/web:v1", "registry.example:5000/web:v1"},
		"host is lower-cased":               {"Registry.EXAMPLE/web", "registry.example/web"},
		"default port goes":                 {"registry.example:443/web:v1", "registry.example/web:v1"},
		"port 80 is another registry":       {"registry.example:80/web", "registry.example:80/web"},
		"trailing dot goes":                 {"registry.example./web", "registry.example/web"},
		"trailing dot and port go":          {"registry.example.:443/web", "registry.example/web"},
		"docker hub":                        {"docker.io/library/nginx", "docker.io/library/nginx"},
		"docker hub official image":         {"docker.io/nginx:1.27", "docker.io/library/nginx:1.27"},
		"docker hub index name":             {"index.docker.io/team/web", "docker.io/team/web"},
		"docker hub registry name":          {"Registry-1.Docker.io:443/nginx", "docker.io/library/nginx"},
		"docker hub at another port is not": {"docker.io:5000/nginx", "docker.io:5000/nginx"},
		"localhost":                         {"localhost/web", "localhost/web"},
		"localhost with port":               {"LocalHost:5000/web", "localhost:5000/web"},
		"loopback may be http, so 443 says something": {"localhost:443/web", "localhost:443/web"},
		"single label needs its port, so 443 stays":   {"registry:443/web", "registry:443/web"},
		"single label with port":                      {"registry:5000/web", "registry:5000/web"},
		"IPv4":                                        {"192.0.2.1:5000/web", "192.0.2.1:5000/web"},
		"IPv6":                                        {"[2001:DB8:0::1]/web", "[2001:db8::1]/web"},
		"IPv6 with port":                              {"[0:0::1]:5000/web" + pinned, "[::1]:5000/web" + pinned},
		"IPv6 with default port":                      {"[2001:db8::1]:443/web", "[2001:db8::1]/web"},
		"punycode":                                    {"xn--bcher-kva.example/web", "xn--bcher-kva.example/web"},
		"path separators":                             {"registry.example/a.b/c_d/e__f/g---h", "registry.example/a.b/c_d/e__f/g---h"},
		"longest tag":                                 {"registry.example/web:" + strings.Repeat("t", 128), "registry.example/web:" + strings.Repeat("t", 128)},
		"longest name": {
			"registry.example/" + strings.Repeat("a", 255-len("registry.example/")),
			"registry.example/" + strings.Repeat("a", 255-len("registry.example/")),
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := reference.Parse(tc.in)
			if err != nil {
				t.Fatalf("Parse(%q): %v", tc.in, err)
			}
			if got.String() != tc.want {
				t.Errorf("Parse(%q) = %q, want %q", tc.in, got, tc.want)
			}
		})
	}
}

// refusedCase is a name that is refused, with part of what the error tells to do.
type refusedCase struct{ in, advice string }

func refusedShapes() map[string]refusedCase {
	return map[string]refusedCase{
		"empty":                      {"", "REGISTRY/REPOSITORY"},
		"bare image name":            {"nginx", "docker.io/library/nginx"},
		"bare image name with tag":   {"nginx:1.27", "docker.io/library/nginx:1.27"},
		"two segments without host":  {"team/web", "docker.io/team/web"},
		"single label host":          {"registry/web", "registry:5000"},
		"single label, trailing dot": {"registry./web", "registry:443"},
		"registry alone":             {"registry.example", "registry.example/team/web"},
		"registry with port alone":   {"registry.example:5000", "registry.example:5000/team/web"},
		"leading slash":              {"/web", "registry.example/web"},
		"https":                      {"https://registry.example/web", "remove https:// and write registry.example/web"},
		"oci scheme":                 {"oci://registry.example/web", "remove oci://"},
		"user name":                  {"alice@registry.example/web", "docker config"},
	}
}

func refusedHosts() map[string]refusedCase {
	return map[string]refusedCase{
		"IDN":                     {"bücher.example/web", "punycode"},
		"full-width look-alike":   {"registry．example/web", "punycode"},
		"percent escape":          {"registry%2eexample.test/web", "letters, digits"},
		"space":                   {"registry.example/web app", "without"},
		"leading space":           {" registry.example/web", "without"},
		"newline":                 {"registry.example/web\n", "without"},
		"NUL":                     {"registry.example/web\x00", "without"},
		"empty label":             {"registry..example/web", "letters, digits"},
		"two trailing dots":       {"registry.example../web", "letters, digits"},
		"underscore in host":      {"my_registry.example/web", "letters, digits"},
		"hyphen at an edge":       {"-registry.example/web", "letters, digits"},
		"label of 64":             {strings.Repeat("a", 64) + ".example/web", "63"},
		"port 0":                  {"registry.example:0/web", "port"},
		"port 65536":              {"registry.example:65536/web", "port"},
		"port with leading zero":  {"registry.example:0443/web", "port"},
		"port with sign":          {"registry.example:+443/web", "port"},
		"empty port":              {"registry.example:/web", "port"},
		"no host before port":     {":5000/web", "letters, digits"},
		"IPv4 short form":         {"127.1/web", "four decimal"},
		"IPv4 with leading zeros": {"127.0.0.01/web", "four decimal"},
		"IPv4 hexadecimal":        {"0x7f.0.0.0x1/web", "four decimal"},
		"IPv4 as one number":      {"2130706433:5000/web", "four decimal"},
		"IPv4 out of range":       {"256.0.0.1/web", "four decimal"},
		"IPv6 without brackets":   {"2001:db8::1/web", "brackets"},
		"IPv6 unclosed":           {"[2001:db8::1/web", "[ADDRESS]"},
		"IPv6 with zone":          {"[fe80::1%25eth0]/web", "[ADDRESS]"},
		"IPv6 and junk":           {"[::1]x/web", "[ADDRESS]"},
		"IPv4 in IPv6":            {"[::ffff:127.0.0.1]:5000/web", "127.0.0.1"},
		"IPv4 in brackets":        {"[127.0.0.1]/web", "[ADDRESS]"},
	}
}

func refusedPathsTagsAndDigests() map[string]refusedCase {
	return map[string]refusedCase{
		"capital path":                {"registry.example/Team/Web", "registry.example/team/web"},
		"empty path":                  {"registry.example/", "lower-case"},
		"empty segment":               {"registry.example/a//b", "lower-case"},
		"trailing slash":              {"registry.example/a/", "lower-case"},
		"dot dot":                     {"registry.example/../web", "lower-case"},
		"three underscores":           {"registry.example/a___b", "lower-case"},
		"backslash":                   {`registry.example\web/x`, "letters, digits"},
		"query":                       {"registry.example/web?x=1", "lower-case"},
		"empty tag":                   {"registry.example/web:", "1 to 128"},
		"long tag":                    {"registry.example/web:" + strings.Repeat("t", 129), "1 to 128"},
		"tag with slash":              {"registry.example/web:a/b", "1 to 128"},
		"two tags":                    {"registry.example/web:a:b", "1 to 128"},
		"long name":                   {"registry.example/" + strings.Repeat("a", 240), "shorter"},
		"endless":                     {strings.Repeat("a", 1<<20), "shorter"},
		"sha512":                      {"registry.example/web@sha512:" + hex64 + hex64, "sha256"},
		"md5":                         {"registry.example/web@md5:" + hex64[:32], "sha256"},
		"short digest":                {"registry.example/web@sha256:abc", "64 hexadecimal"},
		"digest in capitals":          {"registry.example/web@sha256:" + strings.ToUpper(hex64), "sha256:" + hex64},
		"digest without algorithm":    {"registry.example/web@" + hex64, "sha256"},
		"empty digest":                {"registry.example/web@", "sha256"},
		"two digests":                 {"registry.example/web@sha256:" + hex64 + "@sha256:" + hex64, "sha256"},
		"digest before tag":           {"registry.example/web@sha256:" + hex64 + ":v1", "sha256"},
		"only a digest":               {"@sha256:" + hex64, "registry.example"},
		"over 253 characters of host": {strings.Repeat("abcdefg.", 32) + "example/web", "shorter"},
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, table := range []map[string]refusedCase{refusedShapes(), refusedHosts(), refusedPathsTagsAndDigests()} {
		for name, tc := range table {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				got, err := reference.Parse(tc.in)
				if !errors.Is(err, reason.UnsupportedArtifact) {
					t.Fatalf("Parse(%.80q) = %q, %v; want UnsupportedArtifact", tc.in, got, err)
				}
				e, _ := reason.Of(err)
				if !strings.Contains(e.WhatToDo(), tc.advice) {
					t.Errorf("advice %q does not hold %q", e.WhatToDo(), tc.advice)
				}
				if len(e.Error())+len(e.WhatToDo()) > 2048 || strings.ContainsAny(e.Error()+e.WhatToDo(), "\n\x00") {
					t.Errorf("message is not one short line: %q; %q", e.Error(), e.WhatToDo())
				}
			})
		}
	}
}

func TestParseNeverRepeatsCredentials(t *testing.T) {
	t.Parallel()
	cases := map[string]string{
		"user and password":         "alice:s3cret@registry.example/web",
		"in a URL":                  "https://alice:s3cret@registry.example/web",
		"in a URL of a host alone":  "https://alice:s3cret@registry.example",
		"before a host alone":       "alice:s3cret@registry.example",
		"before a pinned reference": "alice:s3cret@registry.example/web@sha256:" + hex64,
		"with @ in the password":    "alice:s3cret@x@registry.example/web",
		"with / in the password":    "alice:s3cret/x@registry.example",
		"with white space":          "alice:s3cret @registry.example/web",
	}
	for name, in := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := reference.Parse(in)
			e, ok := reason.Of(err)
			if !ok {
				t.Fatalf("Parse accepted it: %v", err)
			}
			if all := e.Error() + e.WhatToDo(); strings.Contains(all, "s3cret") {
				t.Errorf("the password stands in the message: %s", all)
			}
		})
	}
}

func TestParsePinned(t *testing.T) {
	t.Parallel()
	ref, err := reference.ParsePinned("registry.example/web:v1@sha256:" + hex64)
	if err != nil {
		t.Fatal(err)
	}
	want := reference.Reference{
		Repository: reference.Repository{Host: "registry.example", Path: "web"},
		Tag:        "v1", Digest: "sha256:" + hex64,
	}
	if diff := cmp.Diff(want, ref); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for in, command := range map[string]string{
		"registry.example/web:v1": "confine resolve registry.example/web:v1",
		"registry.example/web":    "confine resolve registry.example/web:TAG",
	} {
		_, err := reference.ParsePinned(in)
		if e, ok := reason.Of(err); !ok || !strings.Contains(e.WhatToDo(), command) {
			t.Errorf("ParsePinned(%q) = %v; want the command %q", in, err, command)
		}
	}
}

func TestParseRepository(t *testing.T) {
	t.Parallel()
	got, err := reference.ParseRepository("Registry.example:443/team/web")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"registry.example", "team", "web"}, got.Segments()); diff != "" {
		t.Errorf("segments: -want +got:\n%s", diff)
	}
	for _, in := range []string{"registry.example/web:v1", "registry.example/web@sha256:" + hex64, "web"} {
		if _, err := reference.ParseRepository(in); !errors.Is(err, reason.UnsupportedArtifact) {
			t.Errorf("ParseRepository(%q) = %v, want UnsupportedArtifact", in, err)
		}
	}
}

func TestParseHost(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"Registry.Example.:443": "registry.example",
		"index.docker.io":       "docker.io",
		"[::1]:5000":            "[::1]:5000",
		"localhost":             "localhost",
	} {
		if got, err := reference.ParseHost(in); err != nil || got != want {
			t.Errorf("ParseHost(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "registry", "registry.example/web", "a@b.example", "*.example", strings.Repeat("a.", 300)} {
		if got, err := reference.ParseHost(in); !errors.Is(err, reason.UnsupportedArtifact) {
			t.Errorf("ParseHost(%.40q) = %q, %v; want UnsupportedArtifact", in, got, err)
		}
	}
}

func TestLoopback(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]bool{
		"localhost/web":              true,
		"localhost:5000/web":         true,
		"127.0.0.1/web":              true,
		"127.8.9.10:5000/web":        true,
		"[::1]/web":                  true,
		"[::1]:5000/web":             true,
		"[::2]:5000/web":             false,
		"128.0.0.1/web":              false,
		"localhost.example/web":      false,
		"registry.localhost/web":     false,
		"127.0.0.1.example:5000/web": false,
		"0.0.0.0:5000/web":           false,
	} {
		r, err := reference.ParseRepository(in)
		if err != nil {
			t.Errorf("ParseRepository(%q): %v", in, err)
			continue
		}
		if r.Loopback() != want {
			t.Errorf("%q: Loopback() = %t, want %t", in, r.Loopback(), want)
		}
	}
	if (reference.Repository{}).Loopback() {
		t.Error("the zero value names nothing, so not this machine either")
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"registry.example/team/web:v1@sha256:" + hex64, "Docker.io:443/nginx", "[::1]:443/a", "localhost:443/a",
		"registry:443/a", "registry.:443/a", "127.0.0.1./a", "xn--a.b/c__d", "a@b/c", "https://x:y@z/w", "nginx", "\xff",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		ref, err := reference.Parse(in)
		if err != nil {
			if !errors.Is(err, reason.UnsupportedArtifact) {
				t.Fatalf("Parse(%q): %v is of no reason", in, err)
			}
			return
		}
		again, err := reference.Parse(ref.String())
		if err != nil || again != ref {
			t.Fatalf("Parse(%q) = %q, which parses to %q, %v", in, ref, again, err)
		}
		if n := len(ref.Repository.String()); n > reference.MaxRepositoryBytes {
			t.Fatalf("Parse(%q): %d bytes of name", in, n)
		}
		if host, err := reference.ParseHost(ref.Repository.Host); err != nil || host != ref.Repository.Host {
			t.Fatalf("host %q is not canonical: %q, %v", ref.Repository.Host, host, err)
		}
	})
}
