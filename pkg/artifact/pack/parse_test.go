package pack_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// obj is a JSON object under construction.
type obj = map[string]any

func blobOf(mediaType, data, title string) obj {
	d := obj{"mediaType": mediaType, "digest": string(digest.FromString(data)), "size": len(data)}
	if title != "" {
		d["annotations"] = obj{ocispec.AnnotationTitle: title}
	}
	return d
}

func emptyConfig() obj { return blobOf(ocispec.MediaTypeEmptyJSON, "{}", "") }

// manifestOf returns a manifest of layers with that artifact type and an empty config.
func manifestOf(artifactType string, layers ...obj) obj {
	return obj{
		"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest, "artifactType": artifactType,
		"config": emptyConfig(), "layers": layers,
	}
}

// with returns a copy of o with further fields; a nil value removes one.
func with(o obj, fields obj) obj {
	c := maps.Clone(o)
	for k, v := range fields {
		if v == nil {
			delete(c, k)
		} else {
			c[k] = v
		}
	}
	return c
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	if text, ok := v.(string); ok {
		return []byte(text)
	}
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

const (
	bareType = "application/vnd.unknown.artifact.v1"
	tarType  = "application/vnd.oci.image.layer.v1.tar"
)

// layerName is what Parse tells about one layer.
type layerName struct{ Kind, File string }

type acceptedCase struct {
	manifest any
	form     pack.Form
	want     []layerName
}

func acceptedManifests() map[string]acceptedCase {
	return map[string]acceptedCase{
		"KEP-6061 with config type and artifactType": {
			with(manifestOf(pack.ArtifactTypeSeccomp, blobOf("application/json", seccompData, "profile.json")),
				obj{"config": blobOf(pack.ArtifactTypeSeccomp, "{}", "")}),
			pack.FormKEP6061, []layerName{{"seccomp", "profile.json"}},
		},
		"KEP-6061 with an empty config": {
			manifestOf(pack.ArtifactTypeSeccomp, blobOf(tarType, seccompData, "nginx.json")),
			pack.FormKEP6061, []layerName{{"seccomp", "nginx.json"}},
		},
		"KEP-6061 with the config type alone": {
			with(manifestOf("", blobOf(tarType, seccompData, "")),
				obj{"artifactType": nil, "config": blobOf(pack.ArtifactTypeSeccomp, "{}", "")}),
			pack.FormKEP6061, []layerName{{"seccomp", "profile.json"}},
		},
		"KEP-6061 with any layer media type": {
			manifestOf(pack.ArtifactTypeSeccomp, blobOf("application/vnd.acme.thing", seccompData, "")),
			pack.FormKEP6061, []layerName{{"seccomp", "profile.json"}},
		},
		"bundle": {
			manifestOf(pack.ArtifactTypeBundle, blobOf(seccompType, seccompData, "a.json"), blobOf(apparmorType, apparmorData, "b"), blobOf(cilType, cilData, "")),
			pack.FormBundle, []layerName{{"seccomp", "a.json"}, {"apparmor", "b"}, {"selinux", "profile.cil"}},
		},
		"bundle by the config type of image-spec 1.0": {
			with(manifestOf("", blobOf(cilType, cilData, "a.cil")), obj{"artifactType": nil, "config": blobOf(pack.ArtifactTypeBundle, "{}", "")}),
			pack.FormBundle, []layerName{{"selinux", "a.cil"}},
		},
		"bundle with untyped layers": {
			manifestOf(pack.ArtifactTypeBundle, blobOf(tarType, cilData, "a.cil")),
			pack.FormBundle, []layerName{{"selinux", "a.cil"}},
		},
		"bare: the media type comes before the title": {
			manifestOf(bareType, blobOf(apparmorType, apparmorData, "web.json")),
			pack.FormBare, []layerName{{"apparmor", "web.json"}},
		},
		"bare: the title's extension, ignoring case": {
			manifestOf(bareType, blobOf(tarType, cilData, "Web.CIL"), blobOf("text/plain", apparmorData, "x.apparmor")),
			pack.FormBare, []layerName{{"selinux", "Web.CIL"}, {"apparmor", "x.apparmor"}},
		},
		"bare: left to the content": {
			manifestOf(bareType, blobOf(tarType, apparmorData, "usr.sbin.nginx"), blobOf("application/octet-stream", cilData, "")),
			pack.FormBare, []layerName{{"", ""}, {"", ""}},
		},
		"unknown fields and long annotations are nothing to us": {
			with(manifestOf(bareType, blobOf(tarType, cilData, "a.cil")), obj{"x-vendor": obj{"a": []int{1, 2}}, "annotations": obj{"Layers": "x", "layers": "y"}}),
			pack.FormBare, []layerName{{"selinux", "a.cil"}},
		},
		"inline data that is what it says": {
			manifestOf(bareType, with(blobOf(tarType, cilData, "a.cil"), obj{"data": []byte(cilData)})),
			pack.FormBare, []layerName{{"selinux", "a.cil"}},
		},
	}
}

func TestParseAccepts(t *testing.T) {
	t.Parallel()
	for name, tc := range acceptedManifests() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := pack.Parse(encode(t, tc.manifest), testKinds())
			if err != nil {
				t.Fatalf("%v\n%s", err, encode(t, tc.manifest))
			}
			var got []layerName
			for _, l := range m.Layers {
				got = append(got, layerName{l.Kind, l.File})
				if l.Descriptor.Data != nil {
					t.Error("inline data was kept")
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" || m.Form != tc.form || m.IsIndex() {
				t.Errorf("form %q, want %q; -want +got:\n%s", m.Form, tc.form, diff)
			}
		})
	}
}

type refusedCase struct {
	manifest any
	want     reason.Reason
	advice   string
}

func refusedManifests() map[string]refusedCase {
	cil := blobOf(cilType, cilData, "a.cil")
	return map[string]refusedCase{
		"a container image": {
			with(manifestOf("", blobOf(tarType+"+gzip", "x", "")), obj{"artifactType": nil, "config": blobOf(ocispec.MediaTypeImageConfig, "{}", "")}),
			reason.UnsupportedArtifact, "profile files themselves",
		},
		"a Docker manifest": {
			with(manifestOf("", cil), obj{"mediaType": "application/vnd.docker.distribution.manifest.v2+json"}), reason.UnsupportedArtifact, "docker push makes images",
		},
		"a Docker list": {
			obj{"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json"}, reason.UnsupportedArtifact, "docker push",
		},
		"no mediaType":       {with(manifestOf(bareType, cil), obj{"mediaType": nil}), reason.UnsupportedArtifact, "oras push"},
		"schemaVersion 1":    {with(manifestOf(bareType, cil), obj{"schemaVersion": 1}), reason.UnsupportedArtifact, "oras push"},
		"a referrer":         {with(manifestOf(bareType, cil), obj{"subject": blobOf(ocispec.MediaTypeImageManifest, "x", "")}), reason.UnsupportedArtifact, "not oras attach"},
		"no config":          {with(manifestOf(bareType, cil), obj{"config": nil}), reason.UnsupportedArtifact, "oras push"},
		"no artifact type":   {with(manifestOf("", cil), obj{"artifactType": nil}), reason.UnsupportedArtifact, "a.cil:" + cilType},
		"a foreign artifact": {manifestOf("application/vnd.cncf.helm.config.v1+json", blobOf(tarType, "x", "nginx.json")), reason.UnsupportedArtifact, "nginx.json:" + seccompType},
	}
}

func refusedLayersAndIndexes() map[string]refusedCase {
	cil := blobOf(cilType, cilData, "a.cil")
	return map[string]refusedCase{
		"no layers":            {manifestOf(bareType), reason.UnsupportedArtifact, "at least one"},
		"layers null":          {with(manifestOf(bareType), obj{"layers": json.RawMessage("null")}), reason.UnsupportedArtifact, "at least one"},
		"KEP-6061, two layers": {manifestOf(pack.ArtifactTypeSeccomp, blobOf(seccompType, seccompData, "a.json"), cil), reason.UnsupportedArtifact, "a.json:" + seccompType + " a.cil:" + cilType},
		"KEP-6061, no layer":   {manifestOf(pack.ArtifactTypeSeccomp), reason.UnsupportedArtifact, "at least one"},
		"KEP-6061 with AppArmor": {
			manifestOf(pack.ArtifactTypeSeccomp, blobOf(apparmorType, apparmorData, "a.aa")), reason.UnsupportedArtifact, "a.aa:" + apparmorType,
		},
		"types that contradict each other": {
			with(manifestOf(pack.ArtifactTypeBundle, cil), obj{"config": blobOf(pack.ArtifactTypeSeccomp, "{}", "")}), reason.UnsupportedArtifact, "--artifact-type alone",
		},
		"a kind of the future": {
			manifestOf(pack.ArtifactTypeBundle, cil, blobOf("application/vnd.confine.landlock.v1", "x", "a.landlock")),
			reason.UnsupportedArtifact, "a.landlock:MEDIATYPE (MEDIATYPE is one of " + seccompType,
		},
		"a folder": {manifestOf(bareType, blobOf(tarType+"+gzip", "x", "profiles")), reason.UnsupportedArtifact, "REPO:TAG FILE:MEDIATYPE"},
		"one title twice": {
			manifestOf(bareType, blobOf(tarType, "a", "a.cil"), blobOf(tarType, "b", "a.cil")), reason.UnsupportedArtifact, "its own name",
		},
		"titles alike but for case": {
			manifestOf(bareType, blobOf(tarType, "a", "A.cil"), blobOf(tarType, "b", "a.CIL")), reason.UnsupportedArtifact, "its own name",
		},
		"two layers without a title": {
			manifestOf(pack.ArtifactTypeBundle, blobOf(cilType, "a", ""), blobOf(cilType, "b", "")), reason.UnsupportedArtifact, "its own name",
		},
		"an index with layers": {
			obj{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "layers": []obj{cil}, "manifests": []obj{blobOf(ocispec.MediaTypeImageManifest, "x", "")}},
			reason.UnsupportedArtifact, "oras push",
		},
		"a manifest with manifests": {
			with(manifestOf(bareType, cil), obj{"manifests": []obj{blobOf(ocispec.MediaTypeImageManifest, "x", "")}}), reason.UnsupportedArtifact, "oras push",
		},
		"an empty index": {obj{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": []obj{}}, reason.UnsupportedArtifact, "oras push"},
		"an index of indexes": {
			obj{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": []obj{blobOf(ocispec.MediaTypeImageIndex, "x", "")}},
			reason.UnsupportedArtifact, "in one index",
		},
	}
}

func TestParseRefusesForms(t *testing.T) {
	t.Parallel()
	for _, table := range []map[string]refusedCase{refusedManifests(), refusedLayersAndIndexes()} {
		for name, tc := range table {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				m, err := pack.Parse(encode(t, tc.manifest), testKinds())
				wantRefusal(t, m != nil, err, tc.want, tc.advice)
			})
		}
	}
}

func TestParseRefusesDescriptors(t *testing.T) {
	t.Parallel()
	good := blobOf(cilType, cilData, "a.cil")
	cases := map[string]struct {
		change obj
		want   reason.Reason
	}{
		"negative size":             {obj{"size": -1}, reason.UnsupportedArtifact},
		"no size":                   {obj{"size": nil}, reason.UnsupportedArtifact},
		"empty":                     {obj{"size": 0}, reason.UnsupportedArtifact},
		"over 1 MiB":                {obj{"size": profile.MaxPayloadBytes + 1}, reason.TooLarge},
		"size at int64's end":       {obj{"size": json.RawMessage("9223372036854775807")}, reason.TooLarge},
		"size beyond int64":         {obj{"size": json.RawMessage("9223372036854775808")}, reason.UnsupportedArtifact},
		"size with a fraction":      {obj{"size": json.RawMessage("1.5")}, reason.UnsupportedArtifact},
		"size as text":              {obj{"size": "12"}, reason.UnsupportedArtifact},
		"sha512":                    {obj{"digest": "sha512:" + strings.Repeat("a", 128)}, reason.UnsupportedArtifact},
		"digest in capitals":        {obj{"digest": "sha256:" + strings.Repeat("A", 64)}, reason.UnsupportedArtifact},
		"short digest":              {obj{"digest": "sha256:abc"}, reason.UnsupportedArtifact},
		"digest with a path":        {obj{"digest": "sha256:../../" + strings.Repeat("a", 58)}, reason.UnsupportedArtifact},
		"no digest":                 {obj{"digest": nil}, reason.UnsupportedArtifact},
		"URLs":                      {obj{"urls": []string{"https://elsewhere.example/x"}}, reason.UnsupportedArtifact},
		"no media type":             {obj{"mediaType": nil}, reason.UnsupportedArtifact},
		"media type with newline":   {obj{"mediaType": "text/plain\nx"}, reason.UnsupportedArtifact},
		"inline data of other text": {obj{"data": []byte("(block evil)")}, reason.DigestMismatch},
		"inline data that is empty": {obj{"data": []byte("")}, reason.DigestMismatch},
		"annotations that are none": {obj{"annotations": obj{"a": 1}}, reason.UnsupportedArtifact},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := with(good, tc.change)
			m, err := pack.Parse(encode(t, manifestOf(pack.ArtifactTypeBundle, bad)), testKinds())
			wantRefusal(t, m != nil, err, tc.want, "")
			// What is wrong with a layer is as wrong with a config.
			m, err = pack.Parse(encode(t, with(manifestOf(pack.ArtifactTypeBundle, good), obj{"config": bad})), testKinds())
			wantRefusal(t, m != nil, err, tc.want, "")
		})
	}
}

func TestParseBounds(t *testing.T) {
	t.Parallel()
	layers := func(n, size int) []obj {
		var all []obj
		for i := range n {
			all = append(all, with(blobOf(cilType, "x", fmt.Sprintf("%d.cil", i)), obj{"size": size}))
		}
		return all
	}
	children := func(n int) obj {
		var all []obj
		for range n {
			all = append(all, blobOf(ocispec.MediaTypeImageManifest, "x", ""))
		}
		return obj{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": all}
	}
	padded := func(n int) string {
		text := string(encode(t, manifestOf(pack.ArtifactTypeBundle, layers(1, 1)...)))
		return text + strings.Repeat(" ", n-len(text))
	}
	// Spliced as text: the encoder refuses what the parser must refuse.
	nested := func(n int) string {
		text := string(encode(t, manifestOf(pack.ArtifactTypeBundle, layers(1, 1)...)))
		return `{"x":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "," + text[1:]
	}
	cases := map[string]struct {
		manifest any
		want     reason.Reason // empty: accepted
	}{
		"64 layers":           {manifestOf(pack.ArtifactTypeBundle, layers(64, 1)...), ""},
		"65 layers":           {manifestOf(pack.ArtifactTypeBundle, layers(65, 1)...), reason.TooLarge},
		"5,000 layers":        {manifestOf(pack.ArtifactTypeBundle, layers(5000, 1)...), reason.TooLarge},
		"10,000 layers":       {manifestOf(pack.ArtifactTypeBundle, layers(10000, 1)...), reason.TooLarge},
		"8 MiB in all":        {manifestOf(pack.ArtifactTypeBundle, layers(8, 1<<20)...), ""},
		"8 MiB and one byte":  {manifestOf(pack.ArtifactTypeBundle, append(layers(8, 1<<20), blobOf(cilType, "x", "x.cil"))...), reason.TooLarge},
		"64 children":         {children(64), ""},
		"65 children":         {children(65), reason.TooLarge},
		"a manifest of 1 MiB": {padded(1 << 20), ""},
		"one byte more":       {padded(1<<20 + 1), reason.TooLarge},
		"depth 16":            {nested(15), ""},
		"depth 17":            {nested(16), reason.UnsupportedArtifact},
		"depth 100,000":       {nested(100000), reason.UnsupportedArtifact},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := pack.Parse(encode(t, tc.manifest), testKinds())
			if tc.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantRefusal(t, m != nil, err, tc.want, "")
		})
	}
}

func TestParseRefusesWhatTwoParsersReadDifferently(t *testing.T) {
	t.Parallel()
	good := string(encode(t, manifestOf(bareType, blobOf(cilType, cilData, "a.cil"))))
	insert := func(text string) string { return "{" + text + "," + good[1:] }
	cases := map[string]string{
		"layers twice":                 insert(`"layers":[]`),
		"mediaType twice, equal":       insert(`"mediaType":"` + ocispec.MediaTypeImageManifest + `"`),
		"Layers beside layers":         insert(`"Layers":[]`),
		"Artifacttype alone":           strings.Replace(good, `"artifactType"`, `"Artifacttype"`, 1),
		"layerſ with a long s":         insert(`"layerſ":[]`),
		"an escaped duplicate":         insert(`"l\u0061yers":[]`),
		"size twice in a descriptor":   strings.Replace(good, `"size":2`, `"size":2,"size":2`, 1),
		"Size beside size":             strings.Replace(good, `"size":2`, `"size":2,"Size":3`, 1),
		"an annotation twice":          strings.Replace(good, `"org.opencontainers.image.title":"a.cil"`, `"x":"1","x":"2"`, 1),
		"a second document":            good + good,
		"text behind the document":     good + "x",
		"a byte order mark":            "\ufeff" + good,
		"invalid UTF-8":                insert("\"x\":\"\xff\""),
		"a lone surrogate":             insert(`"x":"\ud800"`),
		"a lone surrogate in a key":    insert(`"\udfff":"x"`),
		"a truncated document":         good[:len(good)-1],
		"a truncated string":           good[:len(good)/2],
		"a list":                       "[" + good + "]",
		"a string":                     `"x"`,
		"null":                         "null",
		"nothing":                      "",
		"a comment":                    "/*x*/" + good,
		"a trailing comma":             strings.TrimSuffix(good, "}") + ",}",
		"a NUL":                        "\x00" + good,
		"a schemaVersion like a float": strings.Replace(good, `"schemaVersion":2`, `"schemaVersion":2.0`, 1),
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if text == good {
				t.Fatal("the case changed nothing")
			}
			m, err := pack.Parse([]byte(text), testKinds())
			wantRefusal(t, m != nil, err, reason.UnsupportedArtifact, "")
		})
	}
}
