package pack

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// Build packs inputs. It is reproducible: the same inputs in any order with
// the same options give the same digest, and no time is recorded (oras-go's
// PackManifest always stamps one). What it builds, Parse accepts. It does not
// judge the payloads themselves. Errors are UnsupportedArtifact and TooLarge.
func Build(inputs []Input, kinds profile.Set, opts Options) (*Packed, error) {
	annotations, err := opts.annotations()
	if err != nil {
		return nil, err
	}
	if err := checkSigned(annotations); err != nil {
		return nil, err
	}
	layers, err := layersOf(inputs, kinds)
	if err != nil {
		return nil, err
	}
	manifest := ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: ArtifactTypeBundle,
		Annotations:  annotations,
	}
	packed := &Packed{Form: FormBundle}
	config := Blob{Descriptor: ocispec.DescriptorEmptyJSON, Data: slices.Clone(ocispec.DescriptorEmptyJSON.Data)}
	if len(layers) == 1 && layers[0].kind.Name() == kepKind && !opts.Bundle {
		packed.Form = FormKEP6061
		manifest.ArtifactType = ArtifactTypeSeccomp
		config = newBlob(ArtifactTypeSeccomp, ocispec.DescriptorEmptyJSON.Data)
		layers[0].blob.Descriptor.MediaType = kepLayerMediaType
	}
	manifest.Config = config.Descriptor
	packed.Blobs = append(packed.Blobs, config)
	for _, l := range layers {
		manifest.Layers = append(manifest.Layers, l.blob.Descriptor)
		packed.Blobs = append(packed.Blobs, l.blob)
	}
	if packed.Manifest, err = json.Marshal(manifest); err != nil {
		return nil, refuse("it cannot be written as JSON: %w", err)
	}
	packed.Descriptor = newBlob(ocispec.MediaTypeImageManifest, packed.Manifest).Descriptor
	packed.Descriptor.ArtifactType = manifest.ArtifactType
	// Nothing that a node would refuse may leave this machine.
	if _, err := Parse(packed.Manifest, kinds); err != nil {
		return nil, err
	}
	return packed, nil
}

// annotations joins what Options says; two different answers are refused.
func (o Options) annotations() (map[string]string, error) {
	joined := maps.Clone(o.Annotations)
	for _, own := range []struct{ key, value string }{{AnnotationName, o.Name}, {AnnotationVersion, o.Version}} {
		if own.value == "" {
			continue
		}
		if given, ok := joined[own.key]; ok && given != own.value {
			return nil, refuse("the annotation %s is given as %q and as %q", own.key, clip(own.value), clip(given)).
				WithAdvice("give it once")
		}
		if joined == nil {
			joined = map[string]string{}
		}
		joined[own.key] = own.value
	}
	return joined, nil
}

// builtLayer is one input with what was found out about it.
type builtLayer struct {
	kind profile.Kind
	file string
	blob Blob
}

// layersOf classifies and bounds the inputs, and brings them into the order of
// their file names.
func layersOf(inputs []Input, kinds profile.Set) ([]builtLayer, error) {
	switch {
	case len(inputs) == 0:
		return nil, refuse("there is nothing to pack").WithAdvice("name at least one profile file")
	case len(inputs) > MaxLayers:
		return nil, tooLarge("%d files are to be packed, at most %d fit one artifact", len(inputs), MaxLayers)
	}
	total := 0
	layers := make([]builtLayer, 0, len(inputs))
	for _, in := range inputs {
		if total += len(in.Data); total > MaxArtifactBytes {
			return nil, tooLarge("the files have more than %d bytes in all", MaxArtifactBytes)
		}
		l, err := newBuiltLayer(in, kinds)
		if err != nil {
			return nil, err
		}
		layers = append(layers, l)
	}
	slices.SortStableFunc(layers, func(a, b builtLayer) int { return cmp.Compare(a.file, b.file) })
	return layers, nil
}

func newBuiltLayer(in Input, kinds profile.Set) (builtLayer, error) {
	name := clip(in.File)
	if len(in.Data) > profile.MaxPayloadBytes {
		return builtLayer{}, reason.New(reason.TooLarge, name, "it has %d bytes, a profile at most %d", len(in.Data), profile.MaxPayloadBytes)
	}
	if len(in.Data) == 0 {
		return builtLayer{}, reason.New(reason.UnsupportedArtifact, name, "it is empty").WithAdvice("write a profile into it first")
	}
	if isArchive(in.Data) {
		return builtLayer{}, reason.New(reason.UnsupportedArtifact, name, "it is an archive, not a profile").
			WithAdvice("name the profile files themselves")
	}
	kind, err := kindOfInput(in, kinds)
	if err != nil {
		return builtLayer{}, err
	}
	file := fileFor(in.File, kind)
	blob := newBlob(kind.Format().MediaType, in.Data)
	blob.Descriptor.Annotations = map[string]string{ocispec.AnnotationTitle: file}
	return builtLayer{kind: kind, file: file, blob: blob}, nil
}

func kindOfInput(in Input, kinds profile.Set) (profile.Kind, error) {
	name := clip(in.File)
	if in.Kind != "" {
		if kind, ok := kinds.ByName(in.Kind); ok {
			return kind, nil
		}
		return nil, reason.New(reason.UnsupportedArtifact, name, "no kind of profile is called %q", clip(in.Kind)).
			WithAdvice("use one of %s", strings.Join(kinds.Names(), ", "))
	}
	if kind, ok := kinds.ByTitle(SanitizeTitle(in.File)); ok {
		return kind, nil
	}
	kind, err := sniff(in.Data, kinds)
	if err != nil {
		return nil, reason.New(reason.UnsupportedArtifact, name, "it %w", err).
			WithAdvice("give the file its kind's extension: %s", extensions(kinds))
	}
	return kind, nil
}

// extensions lists the usual extension of every kind, for messages.
func extensions(kinds profile.Set) string {
	var all []string
	for _, k := range kinds.All() {
		if ext := k.Format().Extensions; len(ext) > 0 {
			all = append(all, ext[0]+" for "+k.Name())
		}
	}
	return strings.Join(all, ", ")
}
