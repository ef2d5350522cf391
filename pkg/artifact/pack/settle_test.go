package pack_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

type payload struct{ mediaType, data, title string }

// parseContents returns the layers of a bare artifact of contents, with their bytes.
func parseContents(t *testing.T, artifactType string, contents []payload) ([]pack.Layer, [][]byte) {
	t.Helper()
	var descs []obj
	var data [][]byte
	for _, c := range contents {
		descs = append(descs, blobOf(c.mediaType, c.data, c.title))
		data = append(data, []byte(c.data))
	}
	m, err := pack.Parse(encode(t, manifestOf(artifactType, descs...)), testKinds())
	if err != nil {
		t.Fatal(err)
	}
	return m.Layers, data
}

func TestSettle(t *testing.T) {
	t.Parallel()
	type settled struct{ Kind, File string }
	cases := map[string]struct {
		contents []payload
		want     []settled
	}{
		"labels are enough": {
			[]payload{{tarType, "anything", "a.cil"}, {apparmorType, "anything", "b"}},
			[]settled{{"selinux", "a.cil"}, {"apparmor", "b"}},
		},
		"the content tells": {
			[]payload{{tarType, apparmorData, "usr.sbin.nginx"}, {tarType, seccompData, "profile"}},
			[]settled{{"apparmor", "usr.sbin.nginx"}, {"seccomp", "profile"}},
		},
		"the content tells, and no title names the file": {
			[]payload{{tarType, cilData, ""}, {tarType, seccompData, "..."}},
			[]settled{{"selinux", "profile.cil"}, {"seccomp", "profile.json"}},
		},
		"a label comes before the content": {
			[]payload{{tarType, seccompData, "a.cil"}},
			[]settled{{"selinux", "a.cil"}},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			layers, data := parseContents(t, bareType, tc.contents)
			before := append([]pack.Layer(nil), layers...)
			out, err := pack.Settle(layers, data, testKinds())
			if err != nil {
				t.Fatal(err)
			}
			var got []settled
			for _, l := range out {
				got = append(got, settled{l.Kind, l.File})
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(before, layers); diff != "" {
				t.Errorf("the argument was changed:\n%s", diff)
			}
		})
	}
}

type unsettledCase struct {
	artifactType string
	contents     []payload
	change       func(data [][]byte) [][]byte
	want         reason.Reason
	advice       string
}

func unsettledCases() map[string]unsettledCase {
	tar := strings.Repeat("\x00", 257) + "ustar\x0000" + strings.Repeat("\x00", 247)
	return map[string]unsettledCase{
		"no kind takes it": {
			bareType, []payload{{tarType, "hello", "README"}}, nil, reason.UnsupportedArtifact,
			"oras push --artifact-type " + pack.ArtifactTypeBundle + " REPO:TAG README:MEDIATYPE",
		},
		"two kinds take it": {
			bareType, []payload{{tarType, cilData, "a.cil"}, {tarType, "(profile x)", "web"}}, nil, reason.UnsupportedArtifact,
			"a.cil:" + cilType + " web:MEDIATYPE (MEDIATYPE is one of " + seccompType + ", " + apparmorType + ", " + cilType + ")",
		},
		"the content gives two files one name": {
			bareType, []payload{{tarType, cilData, ""}, {tarType, "(block b)", ""}}, nil, reason.UnsupportedArtifact, "its own name",
		},
		"a label and the content give two files one name": {
			pack.ArtifactTypeBundle, []payload{{cilType, "x", ""}, {tarType, cilData, ""}}, nil, reason.UnsupportedArtifact, "its own name",
		},
		"gzip under a good label": {
			bareType, []payload{{seccompType, "\x1f\x8b\x08\x00", "a.json"}}, nil, reason.UnsupportedArtifact, "not a folder",
		},
		"zstd in the KEP-6061 form": {
			pack.ArtifactTypeSeccomp, []payload{{tarType, "\x28\xb5\x2f\xfd\x00", "a.json"}}, nil, reason.UnsupportedArtifact, "not a folder",
		},
		"tar": {
			bareType, []payload{{tarType, tar, "a.json"}}, nil, reason.UnsupportedArtifact, "not a folder",
		},
		"other bytes": {
			bareType, []payload{{tarType, cilData, "a.cil"}},
			func([][]byte) [][]byte { return [][]byte{[]byte("(block evi)\n")} }, reason.DigestMismatch, "push the artifact again",
		},
		"fewer bytes": {
			bareType, []payload{{tarType, cilData, "a.cil"}},
			func(d [][]byte) [][]byte { return [][]byte{d[0][:3]} }, reason.DigestMismatch, "push the artifact again",
		},
		"more bytes than allowed": {
			bareType, []payload{{tarType, cilData, "a.cil"}},
			func([][]byte) [][]byte { return [][]byte{make([]byte, profile.MaxPayloadBytes+1)} }, reason.TooLarge, "smaller",
		},
		"a payload missing": {
			bareType, []payload{{tarType, cilData, "a.cil"}},
			func([][]byte) [][]byte { return nil }, reason.UnsupportedArtifact, "",
		},
	}
}

func TestSettleRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range unsettledCases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			layers, data := parseContents(t, tc.artifactType, tc.contents)
			if tc.change != nil {
				data = tc.change(data)
			}
			out, err := pack.Settle(layers, data, testKinds())
			wantRefusal(t, out != nil, err, tc.want, tc.advice)
		})
	}
}
