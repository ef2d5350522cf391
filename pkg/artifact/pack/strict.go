package pack

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/confine-dev/confine/pkg/reason"
)

// maxDepth bounds the nesting of a manifest's JSON. The deepest field of the
// image specification is six levels down.
const maxDepth = 16

// object is what errors of this package are about; callers that know the
// digest name it instead.
const object = "manifest"

func refuse(format string, args ...any) *reason.Error {
	return reason.New(reason.UnsupportedArtifact, object, format, args...)
}

func tooLarge(format string, args ...any) *reason.Error {
	return reason.New(reason.TooLarge, object, format, args...)
}

// knownFields are the fields of manifest, index, descriptor and platform that
// this package reads, in their one spelling.
func knownFields() []string {
	return []string{
		"schemaVersion", "mediaType", "artifactType", "config", "layers", "subject", "annotations", "manifests",
		"digest", "size", "urls", "data", "platform",
		"architecture", "os", "os.version", "os.features", "variant",
	}
}

// checkStrict makes sure that every JSON parser sees the same document in
// data: one value, valid UTF-8, no key twice, no key that differs from a known
// field by case alone (Go's parser takes those for the field, others do not),
// bounded in size, depth and in the number of layers.
func checkStrict(data []byte) error {
	if len(data) > MaxManifestBytes {
		return tooLarge("it has %d bytes, at most %d are read", len(data), MaxManifestBytes)
	}
	if !utf8.Valid(data) {
		return refuse("it is not valid UTF-8")
	}
	w := walker{dec: json.NewDecoder(bytes.NewReader(data)), known: knownFields()}
	w.dec.UseNumber()
	first, err := w.dec.Token()
	if err != nil {
		return notJSON(err)
	}
	if first != json.Delim('{') {
		return refuse("it is no JSON object")
	}
	if err := w.object(1, ""); err != nil {
		return err
	}
	if _, err := w.dec.Token(); !errors.Is(err, io.EOF) {
		return refuse("something follows the JSON object")
	}
	return nil
}

func notJSON(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return refuse("it is no JSON: %w", err)
}

// walker visits a document token by token, holding one path of it at a time.
type walker struct {
	dec   *json.Decoder
	known []string
}

// object visits what follows an opening brace; field is the key it stands under.
func (w *walker) object(depth int, field string) error {
	seen := map[string]bool{}
	for w.dec.More() {
		token, err := w.dec.Token()
		if err != nil {
			return notJSON(err)
		}
		key, ok := token.(string)
		if !ok {
			return refuse("it is no JSON: an object key is no string")
		}
		if err := checkText(key); err != nil {
			return err
		}
		if seen[key] {
			return refuse("the field %q stands twice in one object, so two programs could read it as two artifacts", clip(key))
		}
		seen[key] = true
		// Annotation keys are free: case tells them apart.
		if field != "annotations" {
			if i := slices.IndexFunc(w.known, func(k string) bool { return k != key && strings.EqualFold(k, key) }); i >= 0 {
				return refuse("the field %q is spelled %q in the OCI specification; some programs would read it and others not",
					clip(key), w.known[i])
			}
		}
		if err := w.value(depth, key); err != nil {
			return err
		}
	}
	return w.close()
}

// array visits what follows an opening bracket.
func (w *walker) array(depth int, field string) error {
	for n := 1; w.dec.More(); n++ {
		// The manifest's own lists stand at depth 2.
		if depth == 2 && field == "layers" && n > MaxLayers {
			return tooLarge("it has more than %d layers", MaxLayers)
		}
		if depth == 2 && field == "manifests" && n > MaxChildren {
			return tooLarge("the index has more than %d manifests", MaxChildren)
		}
		if err := w.value(depth, ""); err != nil {
			return err
		}
	}
	return w.close()
}

// value visits one value within a container at that depth.
func (w *walker) value(depth int, field string) error {
	token, err := w.dec.Token()
	if err != nil {
		return notJSON(err)
	}
	if depth >= maxDepth {
		if _, container := token.(json.Delim); container {
			return refuse("its JSON is nested more than %d levels deep", maxDepth)
		}
	}
	switch token {
	case json.Delim('{'):
		return w.object(depth+1, field)
	case json.Delim('['):
		return w.array(depth+1, field)
	}
	if text, ok := token.(string); ok {
		return checkText(text)
	}
	return nil
}

// checkText refuses the replacement character, which is what Go makes of a
// lone surrogate escape and of bytes that are no UTF-8; others keep those.
func checkText(text string) error {
	if strings.ContainsRune(text, utf8.RuneError) {
		return refuse("the text %q holds something that is no Unicode character", clip(text))
	}
	return nil
}

func (w *walker) close() error {
	if _, err := w.dec.Token(); err != nil {
		return notJSON(err)
	}
	return nil
}

// clip keeps foreign text in messages short; %q keeps it on one line.
func clip(s string) string {
	const most = 100
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
