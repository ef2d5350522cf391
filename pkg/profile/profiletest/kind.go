// Package profiletest holds the conformance suites of the seams in package
// profile. Every implementation runs them, fakes included.
package profiletest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// Payload is one input of a case.
type Payload struct {
	// Data is what is parsed.
	Data string
	// Position is where a refusal must point, as "line:column"; empty for anywhere.
	Position string
}

// KindCase says what one kind should do with which payloads.
type KindCase struct {
	// Others are the further kinds of the set the kind lives in.
	Others []profile.Kind
	// Good are payloads that parse.
	Good map[string]Payload
	// Bad are payloads refused as ProfileInvalid.
	Bad map[string]Payload
	// Safe names a payload of Good that the safe default admits, Unsafe one
	// that it forbids.
	Safe, Unsafe string
	// Namespace is the one that names in Safe belong to; empty for kinds whose
	// profiles have no names.
	Namespace string
}

// RunKind holds k against the contract of profile.Kind.
func RunKind(t *testing.T, k profile.Kind, c KindCase) {
	t.Helper()
	t.Run("labels", func(t *testing.T) { checkLabels(t, append([]profile.Kind{k}, c.Others...)) })
	t.Run("good", func(t *testing.T) { checkGood(t, k, c) })
	t.Run("bad", func(t *testing.T) { checkBad(t, k, c) })
	t.Run("nasty bytes", func(t *testing.T) { checkNasty(t, k, c) })
	t.Run("constrain", func(t *testing.T) { checkConstrain(t, k, c) })
	t.Run("diff", func(t *testing.T) { checkDiff(t, k, c) })
	t.Run("concurrency", func(t *testing.T) { checkConcurrency(t, k, c) })
}

// checkLabels holds that names, media types and extensions are well formed and
// belong to one kind each.
func checkLabels(t *testing.T, kinds []profile.Kind) {
	t.Helper()
	owner := map[string]string{}
	claim := func(what, label, kind string) {
		if other, taken := owner[what+label]; taken {
			t.Errorf("%s %q belongs to %s and to %s", what, label, other, kind)
		}
		owner[what+label] = kind
	}
	name := regexp.MustCompile(`\A[a-z][a-z0-9]{0,30}\z`)
	mediaType := regexp.MustCompile(`\Aapplication/[a-z0-9.+-]{1,100}\z`)
	extension := regexp.MustCompile(`\A\.[a-z0-9]+\z`)
	for _, k := range kinds {
		f := k.Format()
		if !name.MatchString(k.Name()) {
			t.Errorf("the name %q is not lower-case letters and digits", k.Name())
		}
		if !mediaType.MatchString(f.MediaType) {
			t.Errorf("%s: the media type %q is malformed", k.Name(), f.MediaType)
		}
		claim("name ", k.Name(), k.Name())
		claim("media type ", f.MediaType, k.Name())
		for _, ext := range f.Extensions {
			if !extension.MatchString(ext) {
				t.Errorf("%s: the extension %q is malformed", k.Name(), ext)
			}
			claim("extension ", ext, k.Name())
		}
		if len(f.Extensions) == 0 || !strings.HasSuffix(f.DefaultFile, f.Extensions[0]) || strings.ContainsAny(f.DefaultFile, "/\\") {
			t.Errorf("%s: the default file %q is no bare name with the first extension of %q", k.Name(), f.DefaultFile, f.Extensions)
		}
	}
}

func checkGood(t *testing.T, k profile.Kind, c KindCase) {
	for name, good := range c.Good {
		t.Run(name, func(t *testing.T) {
			data := []byte(good.Data)
			p, err := k.Parse("good", data)
			if err != nil {
				t.Fatalf("refused: %v", err)
			}
			if p.Kind() != k.Name() {
				t.Errorf("the profile says it is of kind %q, not %q", p.Kind(), k.Name())
			}
			if !k.Sniff(data) {
				t.Error("its own payload is not recognized by content")
			}
			if string(data) != good.Data {
				t.Error("parsing changed the bytes it was given")
			}
			checkFindings(t, p)
		})
	}
}

func checkFindings(t *testing.T, p profile.Profile) {
	t.Helper()
	if f := p.Findings(); len(f) > 0 {
		f[0].Message = "overwritten"
		if p.Findings()[0].Message == "overwritten" {
			t.Error("a caller can change the profile's findings")
		}
	}
	for _, f := range p.Findings() {
		if f.Message == "" || (f.Position != "" && !position().MatchString(f.Position)) {
			t.Errorf("malformed finding %+v", f)
		}
	}
}

func position() *regexp.Regexp { return regexp.MustCompile(`\A[1-9][0-9]*:[1-9][0-9]*\z`) }

func checkBad(t *testing.T, k profile.Kind, c KindCase) {
	want := reason.ProfileInvalid
	if len(c.Good) == 0 {
		want = reason.KindUnsupported
	}
	if len(c.Bad) == 0 {
		t.Error("the case has no bad payload")
	}
	for name, bad := range c.Bad {
		t.Run(name, func(t *testing.T) {
			p, err := k.Parse("bad.file", []byte(bad.Data))
			if !errors.Is(err, want) {
				t.Fatalf("got %v and %v, want %s", p, err, want)
			}
			refusal, _ := reason.Of(err)
			object := "bad.file"
			if bad.Position != "" {
				object += ":" + bad.Position
			}
			if refusal.Object != object && (bad.Position != "" || !strings.HasPrefix(refusal.Object, object)) {
				t.Errorf("it points at %q, want %q: %v", refusal.Object, object, err)
			}
			checkRefusal(t, err)
		})
	}
}

// checkRefusal holds that an error is of the closed set and fit to be shown.
func checkRefusal(t *testing.T, err error) {
	t.Helper()
	refusal, ok := reason.Of(err)
	if !ok || !refusal.Reason.Valid() {
		t.Errorf("%v is not of the closed set of reasons", err)
		return
	}
	if refusal.Detail == "" || refusal.WhatToDo() == "" {
		t.Errorf("%v says not what happened or what to do", err)
	}
	if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
		t.Errorf("%q holds control characters", err.Error())
	}
	if len(err.Error()) > 16<<10 {
		t.Errorf("a message of %d bytes", len(err.Error()))
	}
}

// nasty returns bytes that no reader likes, and every good payload damaged.
func nasty(c KindCase) map[string][]byte {
	all := map[string][]byte{
		"nothing": nil, "NUL": {0}, "a byte order mark": []byte("\ufeff"), "half a rune": {0xe2, 0x82},
		"high bytes": bytes.Repeat([]byte{0xff}, 64), "deep lists": bytes.Repeat([]byte("["), 1<<16),
		"deep objects": bytes.Repeat([]byte(`{"a":`), 1<<14), "many braces": bytes.Repeat([]byte("{"), 1<<14),
		"many parentheses": bytes.Repeat([]byte("("), 1<<14), "one long line": bytes.Repeat([]byte("a"), profile.MaxPayloadBytes),
		"too long": bytes.Repeat([]byte(" "), profile.MaxPayloadBytes+1), "null": []byte("null"), "a string": []byte(`"x"`),
		"newlines": bytes.Repeat([]byte("\n"), 1<<16), "quotes": bytes.Repeat([]byte(`"`), 1<<12),
	}
	for name, good := range c.Good {
		data := []byte(good.Data)
		all[name+", cut"] = data[:len(data)/2]
		all[name+", twice"] = append(slices.Clone(data), data...)
		all[name+", with NUL"] = append(slices.Clone(data), 0)
		flipped := slices.Clone(data)
		flipped[len(flipped)/3] ^= 0x80
		all[name+", one bit wrong"] = flipped
	}
	return all
}

func checkNasty(t *testing.T, k profile.Kind, c KindCase) {
	for name, data := range nasty(c) {
		t.Run(name, func(t *testing.T) {
			k.Sniff(data) // must not panic
			before := slices.Clone(data)
			p, err := k.Parse("nasty", data)
			if err == nil {
				t.Fatalf("accepted as %T", p)
			}
			checkRefusal(t, err)
			if !bytes.Equal(before, data) {
				t.Error("parsing changed the bytes it was given")
			}
		})
	}
	for n := range 512 {
		for _, good := range c.Good {
			data := []byte(good.Data)
			k.Sniff(data[:n*len(data)/512])
			if _, err := k.Parse("cut", data[:n*len(data)/512]); err != nil {
				checkRefusal(t, err)
			}
		}
	}
}

func checkConstrain(t *testing.T, k profile.Kind, c KindCase) {
	if err := k.Constrain(nil, profile.ForAnyone(), nil); !errors.Is(err, reason.ProfileForbidden) {
		t.Errorf("no profile at all: got %v", err)
	}
	if err := k.Constrain(foreign{}, profile.ForAnyone(), nil); !errors.Is(err, reason.ProfileForbidden) {
		t.Errorf("a profile of another kind: got %v", err)
	}
	checkScope(t, k, c)
	for name, want := range map[string]error{c.Safe: nil, c.Unsafe: reason.ProfileForbidden} {
		p, err := k.Parse(name, []byte(c.Good[name].Data))
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		for text, limits := range map[string][]profile.Limits{
			"no list": nil, "an empty list": {}, "one nil": {nil}, "two nils": {nil, nil},
		} {
			err := k.Constrain(p, profile.ForAnyone(), limits)
			if !errors.Is(err, want) {
				t.Errorf("%s under %s: got %v, want %v", name, text, err, want)
			}
			if err != nil {
				checkRefusal(t, err)
			}
		}
		for text, raw := range unreadableLimits() {
			for _, limits := range [][]profile.Limits{{raw}, {nil, raw}, {raw, nil}} {
				if err := k.Constrain(p, profile.ForAnyone(), limits); !errors.Is(err, reason.TrustPolicyInvalid) {
					t.Errorf("%s under limits with %s: got %v, want TrustPolicyInvalid", name, text, err)
				}
			}
		}
	}
}

// checkScope holds that names of a namespace are for its owners alone, and that
// who owns a profile forgives nothing else.
func checkScope(t *testing.T, k profile.Kind, c KindCase) {
	t.Helper()
	var foreign error
	if c.Namespace != "" {
		foreign = reason.ProfileForbidden
	}
	for text, tc := range map[string]struct {
		by   profile.Scope
		safe error
	}{
		"anyone":              {profile.ForAnyone(), nil},
		"its owner":           {profile.For(profile.Owner{Namespace: c.Namespace, Name: "name"}), nil},
		"nobody":              {profile.Scope{}, foreign},
		"another":             {profile.For(profile.Owner{Namespace: "zzz-other", Name: "name"}), foreign},
		"a longer namespace":  {profile.For(profile.Owner{Namespace: c.Namespace + "-x", Name: "name"}), foreign},
		"a star":              {profile.For(profile.Owner{Namespace: "*", Name: "name"}), foreign},
		"the name in between": {profile.For(profile.Owner{Namespace: "zzz", Name: c.Namespace}), foreign},
	} {
		for name, want := range map[string]error{c.Safe: tc.safe, c.Unsafe: reason.ProfileForbidden} {
			p, err := k.Parse(name, []byte(c.Good[name].Data))
			if err != nil {
				t.Fatalf("%q: %v", name, err)
			}
			if err := k.Constrain(p, tc.by, nil); !errors.Is(err, want) {
				t.Errorf("%s for %s: got %v, want %v", name, text, err, want)
			}
		}
	}
}

func unreadableLimits() map[string]profile.Limits {
	return map[string]profile.Limits{
		"no bytes":           profile.Limits(""),
		"an unknown field":   profile.Limits(`{"zzzNoSuchField":true}`),
		"half a document":    profile.Limits(`{`),
		"a list":             profile.Limits(`[]`),
		"two documents":      profile.Limits(`{}{}`),
		"a field twice":      profile.Limits(`{"zzz":1,"zzz":1}`),
		"invalid UTF-8":      profile.Limits("{\"\xff\":1}"),
		"deep nesting":       profile.Limits(strings.Repeat("[", 1<<12)),
		"a document of text": profile.Limits(`"RuntimeDefault"`),
	}
}

type foreign struct{}

func (foreign) Kind() string                { return "foreign" }
func (foreign) Findings() []profile.Finding { return nil }

func checkDiff(t *testing.T, k profile.Kind, c KindCase) {
	d, ok := k.(profile.Differ)
	if !ok {
		return
	}
	if _, err := d.Diff(foreign{}, foreign{}); err == nil {
		t.Error("profiles of another kind are compared")
	}
	parsed := map[string]profile.Profile{}
	for name, good := range c.Good {
		p, err := k.Parse(name, []byte(good.Data))
		if err != nil {
			t.Fatal(err)
		}
		parsed[name] = p
	}
	for a, old := range parsed {
		for b, updated := range parsed {
			there, err := d.Diff(old, updated)
			back, err2 := d.Diff(updated, old)
			if err != nil || err2 != nil {
				t.Fatalf("%s, %s: %v, %v", a, b, err, err2)
			}
			if a == b && len(there) > 0 {
				t.Errorf("%s differs from itself: %v", a, there)
			}
			if diff := cmp.Diff(there, mirrored(back)); diff != "" {
				t.Errorf("%s to %s is not the reverse of the way back:\n%s", a, b, diff)
			}
		}
	}
}

func mirrored(changes []profile.Change) []profile.Change {
	out := slices.Clone(changes)
	for i, c := range out {
		out[i].Old, out[i].New = c.New, c.Old
		switch c.Sense {
		case profile.Gained:
			out[i].Sense = profile.Lost
		case profile.Lost:
			out[i].Sense = profile.Gained
		case profile.Altered:
		}
	}
	return out
}

// checkConcurrency is for the race detector, and compares the outcomes.
func checkConcurrency(t *testing.T, k profile.Kind, c KindCase) {
	outcome := func() string {
		var out []string
		for _, set := range []map[string]Payload{c.Good, c.Bad} {
			for name, payload := range set {
				p, err := k.Parse(name, []byte(payload.Data))
				line := fmt.Sprint(name, err, k.Sniff([]byte(payload.Data)))
				if err == nil {
					found, _ := json.Marshal(p.Findings())
					line += fmt.Sprint(string(found), k.Constrain(p, profile.ForAnyone(), nil))
				}
				out = append(out, line)
			}
		}
		slices.Sort(out)
		return strings.Join(out, "\n")
	}
	want := outcome()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got := outcome(); got != want {
				t.Errorf("the outcome changed:\n%s", cmp.Diff(want, got))
			}
		})
	}
	wg.Wait()
}
