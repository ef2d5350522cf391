package registry

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/reason"
)

func TestTenThousandReferrers(t *testing.T) {
	f := newFakeRegistry()
	var descs []ocispec.Descriptor
	for i := range 10_000 {
		descs = append(descs, ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/spdx+json", Digest: digest.FromString(fmt.Sprint(i)), Size: 500,
		})
	}
	t.Run("of other types", func(t *testing.T) {
		f.list(append(descs, f.bundle(subjectDigest, "good", signPredicate))...)
		checkOnePlaceSkipped(t, f, nil, "good")
	})
	t.Run("that all may be signatures", func(t *testing.T) {
		for i := range descs {
			descs[i].ArtifactType = bundleType
		}
		f.list(append(descs, f.bundle(subjectDigest, "good", signPredicate))...)
		clock := newTestClock()
		w := newTestClient(t, withClock(clock)).Signatures(t.Context(), serve(t, f), subjectDigest, noneSeen)
		candidate, err := w.Next(t.Context())
		if err != nil || texts([]trust.Candidate{candidate})[0] != "good" {
			t.Fatalf("Next = %v, %v, want the one with the annotation first", candidate, err)
		}
		before := f.asked["manifests"]
		if _, err := w.Next(t.Context()); err != io.EOF { //nolint:errorlint // the contract is io.EOF itself
			t.Errorf("Next: %v, want io.EOF", err)
		}
		if got := f.asked["manifests"] - before; got != artifact.MaxReferrers-1+2 {
			t.Errorf("%d manifests were read after the first, want %d and two tags", got, artifact.MaxReferrers-1)
		}
	})
}

func TestPagesOfReferrers(t *testing.T) {
	f := newFakeRegistry()
	good := f.bundle(subjectDigest, "good", signPredicate)
	t.Run("are read", func(t *testing.T) {
		f.referrers = func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("page") == "2" {
				body(ocispec.MediaTypeImageIndex, indexOf(good))(w, r)
				return
			}
			w.Header().Set("Link", `<`+r.URL.Path+`?page=2>; rel="next"`)
			body(ocispec.MediaTypeImageIndex, indexOf())(w, r)
		}
		checkOnePlaceSkipped(t, f, nil, "good")
	})
	t.Run("without end", func(t *testing.T) {
		pages := 0
		f.referrers = func(w http.ResponseWriter, r *http.Request) {
			pages++
			w.Header().Set("Link", fmt.Sprintf(`<%s?page=%d>; rel="next"`, r.URL.Path, pages))
			body(ocispec.MediaTypeImageIndex, indexOf(good))(w, r)
		}
		checkOnePlaceSkipped(t, f, reason.TooLarge, "good")
		if want := defaultLimits().pages; pages != want {
			t.Errorf("%d pages were read, want %d", pages, want)
		}
	})
	t.Run("elsewhere", func(t *testing.T) {
		elsewhere := &recorder{next: body(ocispec.MediaTypeImageIndex, indexOf())}
		f.referrers = func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", `<http://`+serve(t, elsewhere).Host+`/next>; rel="next"`)
			body(ocispec.MediaTypeImageIndex, indexOf())(w, r)
		}
		f.manifests[referrersTag(subjectDigest)] = indexOf(good)
		checkOnePlaceSkipped(t, f, reason.RegistryUnavailable, "good")
		if elsewhere.asked != 0 {
			t.Error("another host was asked for the next page")
		}
		delete(f.manifests, referrersTag(subjectDigest))
	})
}

func TestPagesThatCannotBeRead(t *testing.T) {
	f := newFakeRegistry()
	good := f.bundle(subjectDigest, "good", signPredicate)
	t.Run("to the end", func(t *testing.T) {
		whole := indexOf(good, ocispec.Descriptor{ArtifactType: strings.Repeat("x", 10*len(good.Digest)*len(good.ArtifactType))})
		f.referrers = truncated(ocispec.MediaTypeImageIndex, whole)
		checkOnePlaceSkipped(t, f, reason.RegistryUnavailable, "good")
	})
	t.Run("that are gone", func(t *testing.T) {
		f.referrers = func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery != "" {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			w.Header().Set("Link", `<?page=2>; rel="next"`)
			body(ocispec.MediaTypeImageIndex, indexOf(good))(w, r)
		}
		checkOnePlaceSkipped(t, f, reason.RegistryUnavailable, "good")
	})
	t.Run("after the first", func(t *testing.T) {
		f.referrers = func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery != "" {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			w.Header().Set("Link", `<?page=2>; rel=next, <x>; rel="prev"`)
			w.Header().Add("Link", `<?page=2>; rel="next"`)
			body(ocispec.MediaTypeImageIndex, indexOf(good))(w, r)
		}
		checkOnePlaceSkipped(t, f, reason.Unauthorized, "good")
	})
	t.Run("of endless length", func(t *testing.T) {
		f.referrers = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			_, _ = io.WriteString(w, `{"manifests":[`+string(mustMarshal(good)))
			for {
				if _, err := io.WriteString(w, `,{}`+strings.Repeat(" ", 4096)); err != nil {
					return
				}
			}
		}
		checkOnePlaceSkipped(t, f, reason.TooLarge, "good")
	})
}

func TestMissingReferrersAPIIsForgottenInTime(t *testing.T) {
	f := newFakeRegistry()
	clock := newTestClock()
	c, repo := newTestClient(t, withClock(clock)), serve(t, f)
	walk := func() []string {
		found, _ := walkAll(t, c.Signatures(t.Context(), repo, subjectDigest, noneSeen))
		return texts(found)
	}
	walk()
	f.list(f.bundle(subjectDigest, "good", signPredicate))
	if got := walk(); len(got) != 0 || f.asked["referrers"] != 1 {
		t.Errorf("got %q after %d requests to the API, want it remembered as missing", got, f.asked["referrers"])
	}
	clock.advance(withoutReferrersFor)
	if diff := cmp.Diff([]string{"good"}, walk()); diff != "" {
		t.Errorf("after an hour (-want +got):\n%s", diff)
	}
}

func FuzzReferrers(f *testing.F) {
	f.Add(indexOf(ocispec.Descriptor{ArtifactType: bundleType, Digest: subjectDigest, Size: 3}))
	f.Add([]byte(`{"manifests":null}`))
	f.Add([]byte(`{"manifests":[1,{"size":1e400}],"manifests":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list := &referrerList{known: map[digest.Digest]struct{}{}}
		_ = readReferrers(strings.NewReader(string(data)), list)
		for _, d := range list.digests() {
			if checkDigest("", d) != nil {
				t.Errorf("%q was kept", d)
			}
		}
	})
}

// A page elsewhere would be asked for with the registry's own credential.
func TestNextPage(t *testing.T) {
	e := endpoint{scheme: "https", host: "registry.test"}
	tests := map[string]struct{ link, want string }{
		"none":            {"", ""},
		"relative":        {`<?n=2>; rel="next"`, "https://registry.test/v2/a/referrers/x?n=2"},
		"absolute":        {`<https://registry.test/y>; rel="next"`, "https://registry.test/y"},
		"another kind":    {`<https://registry.test/y>; rel="prev"`, ""},
		"no link":         {`https://registry.test/y; rel="next"`, ""},
		"another host":    {`<https://evil.test/y>; rel="next"`, "refused"},
		"a subdomain":     {`<https://a.registry.test/y>; rel="next"`, "refused"},
		"another port":    {`<https://registry.test:8443/y>; rel="next"`, "refused"},
		"plain http":      {`<http://registry.test/y>; rel="next"`, "refused"},
		"with a user":     {`<https://u:p@registry.test/y>; rel="next"`, "refused"},
		"not to be read":  {`<https://[::1>; rel="next"`, "refused"},
		"of great length": {`<?` + strings.Repeat("x", 9<<10) + `>; rel="next"`, "refused"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			u, err := nextPage(e, e.url("/v2/a/referrers/x"), "a", http.Header{"Link": {test.link}})
			got := ""
			switch {
			case err != nil:
				got = "refused"
			case u != nil:
				got = u.String()
			}
			if got != test.want {
				t.Errorf("%q leads to %q, want %q", test.link, got, test.want)
			}
		})
	}
}
