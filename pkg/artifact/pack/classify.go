package pack

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// genericMediaTypes say nothing about what a file is, so that its title and
// then its content decide. The first is what oras writes for every file,
// though it is no tar (oras-go, content/file, defaultBlobMediaType).
func genericMediaTypes() []string {
	return []string{ocispec.MediaTypeImageLayer, "application/octet-stream", "application/json", "text/plain"}
}

// classify judges the layers of an image manifest and says, where their labels
// tell, what each of them is.
func classify(form Form, descs []ocispec.Descriptor, kinds profile.Set) ([]Layer, error) {
	switch {
	case len(descs) == 0:
		return nil, refuse("it has no layers, so no profiles").
			WithAdvice("push at least one profile file")
	case len(descs) > MaxLayers:
		return nil, tooLarge("it has %d layers, at most %d are read", len(descs), MaxLayers)
	case form == FormKEP6061 && len(descs) != 1:
		return nil, refuse("a KEP-6061 artifact has exactly one layer, this one has %d", len(descs)).
			WithAdvice("push several profiles as a bundle: %s", orasPush(descs, kinds))
	}
	total := int64(0)
	layers := make([]Layer, 0, len(descs))
	for i, desc := range descs {
		what := fmt.Sprintf("layer %d", i+1)
		if err := checkDescriptor(what, desc, profile.MaxPayloadBytes); err != nil {
			return nil, err
		}
		// No overflow: each size is bounded above.
		if total += desc.Size; total > MaxArtifactBytes {
			return nil, tooLarge("its layers have more than %d bytes in all", MaxArtifactBytes)
		}
		kind, err := kindOfLayer(form, desc, kinds)
		if err != nil {
			return nil, reason.New(reason.UnsupportedArtifact, object, "%s %w", what, err).
				WithAdvice("push it with: %s", orasPush(descs, kinds))
		}
		layers = append(layers, newLayer(desc, kind))
	}
	if err := checkUnique(layers); err != nil {
		return nil, err
	}
	return layers, nil
}

// newLayer keeps of desc what is read later. kind may be nil.
func newLayer(desc ocispec.Descriptor, kind profile.Kind) Layer {
	l := Layer{Descriptor: ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}}
	title := desc.Annotations[ocispec.AnnotationTitle]
	if title != "" {
		l.Descriptor.Annotations = map[string]string{ocispec.AnnotationTitle: title}
	}
	if kind != nil {
		l.Kind, l.File = kind.Name(), fileFor(title, kind)
	}
	return l
}

// kindOfLayer decides by media type, then by the title's extension. Without an
// error and without a kind, the content must decide.
func kindOfLayer(form Form, desc ocispec.Descriptor, kinds profile.Set) (profile.Kind, error) {
	typed, isTyped := kinds.ByMediaType(desc.MediaType)
	if form == FormKEP6061 {
		kind, ok := kinds.ByName(kepKind)
		switch {
		case !ok:
			return nil, fmt.Errorf("is a %s profile, a kind this program does not know", kepKind)
		case isTyped && typed.Name() != kepKind:
			return nil, fmt.Errorf("is labelled as %s in an artifact that says it is %s", typed.Name(), kepKind)
		}
		return kind, nil
	}
	if isTyped {
		return typed, nil
	}
	if isArchiveType(desc.MediaType) {
		return nil, fmt.Errorf("is a compressed archive (%q), as folders and container images make", clip(desc.MediaType))
	}
	if !slices.Contains(genericMediaTypes(), desc.MediaType) {
		return nil, fmt.Errorf("has the media type %q, which is no kind of profile this program knows", clip(desc.MediaType))
	}
	kind, _ := kinds.ByTitle(SanitizeTitle(desc.Annotations[ocispec.AnnotationTitle]))
	return kind, nil
}

// isArchiveType recognizes the layers of container images, which is also what
// oras makes of a folder.
func isArchiveType(mediaType string) bool {
	return strings.HasPrefix(mediaType, ocispec.MediaTypeImageLayer+"+") || strings.HasPrefix(mediaType, dockerPrefix)
}

// orasPush renders the command that would have made an acceptable artifact of
// the same files.
func orasPush(descs []ocispec.Descriptor, kinds profile.Set) string {
	const most = 8 // files named; an example is enough
	var b strings.Builder
	fmt.Fprintf(&b, "oras push --artifact-type %s REPO:TAG", ArtifactTypeBundle)
	unknown := false
	for i, desc := range descs {
		if i == most {
			b.WriteString(" …")
			break
		}
		file := SanitizeTitle(desc.Annotations[ocispec.AnnotationTitle])
		kind, ok := kinds.ByMediaType(desc.MediaType)
		if !ok {
			kind, ok = kinds.ByTitle(file)
		}
		mediaType := "MEDIATYPE"
		if ok {
			mediaType = kind.Format().MediaType
		}
		if file == "" || isArchiveType(desc.MediaType) {
			file = "FILE"
		}
		unknown = unknown || !ok
		fmt.Fprintf(&b, " %s:%s", file, mediaType)
	}
	if len(descs) == 0 {
		b.WriteString(" FILE:MEDIATYPE")
		unknown = true
	}
	if unknown {
		fmt.Fprintf(&b, " (MEDIATYPE is one of %s)", strings.Join(mediaTypes(kinds), ", "))
	}
	return b.String()
}

func mediaTypes(kinds profile.Set) []string {
	all := make([]string, 0, len(kinds.All()))
	for _, k := range kinds.All() {
		all = append(all, k.Format().MediaType)
	}
	return all
}

// Settle compares the payloads with their descriptors and lets the content
// decide where neither media type nor title did. It returns the layers with
// every Kind and File filled in. Errors are UnsupportedArtifact, TooLarge and
// DigestMismatch.
func Settle(layers []Layer, data [][]byte, kinds profile.Set) ([]Layer, error) {
	if len(layers) != len(data) {
		return nil, refuse("%d payloads were read for %d layers", len(data), len(layers))
	}
	settled := slices.Clone(layers)
	descs := make([]ocispec.Descriptor, 0, len(layers))
	for _, l := range layers {
		descs = append(descs, l.Descriptor)
	}
	for i, payload := range data {
		l := &settled[i]
		if err := checkPayload(i, l.Descriptor, payload); err != nil {
			return nil, err
		}
		if l.Kind != "" {
			continue
		}
		kind, err := sniff(payload, kinds)
		if err != nil {
			return nil, reason.New(reason.UnsupportedArtifact, object, "layer %d %w", i+1, err).
				WithAdvice("push it with: %s", orasPush(descs, kinds))
		}
		l.Kind, l.File = kind.Name(), fileFor(l.Descriptor.Annotations[ocispec.AnnotationTitle], kind)
	}
	if err := checkUnique(settled); err != nil {
		return nil, err
	}
	return settled, nil
}

func checkPayload(i int, desc ocispec.Descriptor, payload []byte) error {
	switch {
	case len(payload) > profile.MaxPayloadBytes:
		return tooLarge("layer %d has %d bytes, at most %d are read", i+1, len(payload), profile.MaxPayloadBytes)
	case int64(len(payload)) != desc.Size || digest.FromBytes(payload) != desc.Digest:
		return reason.New(reason.DigestMismatch, object, "the bytes of layer %d are not those its digest and size name", i+1)
	case isArchive(payload):
		return refuse("layer %d is an archive, not a profile", i+1).
			WithAdvice("push the profile files themselves, not a folder or an archive of them")
	}
	return nil
}

// sniff returns the one kind that takes payload for its own.
func sniff(payload []byte, kinds profile.Set) (profile.Kind, error) {
	found := kinds.BySniff(payload)
	if len(found) == 1 {
		return found[0], nil
	}
	names := make([]string, 0, len(found))
	for _, k := range found {
		names = append(names, k.Name())
	}
	if len(names) == 0 {
		return nil, errors.New("is no profile that media type, title or content could tell")
	}
	return nil, fmt.Errorf("could be any of %s, and neither media type nor title tells which", strings.Join(names, ", "))
}

// isArchive recognizes gzip (RFC 1952), zstd (RFC 8878) and tar (POSIX ustar,
// GNU) by their magic numbers.
func isArchive(data []byte) bool {
	const tarMagicOffset = 257
	s := string(data[:min(len(data), tarMagicOffset+8)])
	if strings.HasPrefix(s, "\x1f\x8b") || strings.HasPrefix(s, "\x28\xb5\x2f\xfd") {
		return true
	}
	return len(s) == tarMagicOffset+8 && (s[tarMagicOffset:] == "ustar\x0000" || s[tarMagicOffset:] == "ustar  \x00")
}
