package pack

import (
	"encoding/json"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// Docker's media types, refused by name because they are what people push by
// mistake (https://distribution.github.io/distribution/spec/manifest-v2-2/).
const (
	dockerPrefix      = "application/vnd.docker."
	dockerImageConfig = "application/vnd.docker.container.image.v1+json"
)

// maxAnnotations bounds the annotations of a manifest in number.
const maxAnnotations = 256

var (
	// sha256Regexp is the only digest algorithm accepted. Others would need
	// every place that keeps or compares digests to agree on them.
	sha256Regexp = regexp.MustCompile(`\Asha256:[0-9a-f]{64}\z`)
	// mediaTypeRegexp is the grammar of RFC 6838, section 4.2.
	mediaTypeRegexp = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}\z`)
)

// Parse reads a manifest or an index strictly and classifies its layers by
// media type and title. It fetches nothing and never looks at the config.
// Errors are UnsupportedArtifact, TooLarge and DigestMismatch.
func Parse(data []byte, kinds profile.Set) (*Manifest, error) {
	if err := checkStrict(data); err != nil {
		return nil, err
	}
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, refuse("it does not fit the OCI image specification: %w", err)
	}
	if err := doc.check(); err != nil {
		return nil, err
	}
	if doc.MediaType == ocispec.MediaTypeImageIndex {
		children, err := doc.children()
		if err != nil {
			return nil, err
		}
		return &Manifest{Form: FormIndex, Annotations: doc.Annotations, Children: children}, nil
	}
	form, err := doc.form(kinds)
	if err != nil {
		return nil, err
	}
	layers, err := classify(form, doc.Layers, kinds)
	if err != nil {
		return nil, err
	}
	return &Manifest{Form: form, Annotations: doc.Annotations, Layers: layers}, nil
}

// ParseChild reads the manifest that PickChild chose. Beyond what Parse
// refuses, it refuses another index, and the KEP-6061 form, which container
// runtimes accept outside an index only.
func ParseChild(data []byte, kinds profile.Set) (*Manifest, error) {
	m, err := Parse(data, kinds)
	switch {
	case err != nil:
		return nil, err
	case m.IsIndex():
		return nil, refuse("an index within an index is not supported").
			WithAdvice("list the manifests of all platforms in one index")
	case m.Form == FormKEP6061:
		return nil, refuse("a KEP-6061 profile stands within an index, where container runtimes do not accept it").
			WithAdvice("push each platform's profile with confine push --bundle, or reference the profile's own digest")
	}
	return m, nil
}

// document is a manifest or an index; which of the two, MediaType says.
type document struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	ArtifactType  string               `json:"artifactType"`
	Config        *ocispec.Descriptor  `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
	Manifests     []ocispec.Descriptor `json:"manifests"`
	Subject       json.RawMessage      `json:"subject"`
	Annotations   map[string]string    `json:"annotations"`
}

// check judges what manifests and indexes have in common.
func (d *document) check() error {
	switch {
	case strings.HasPrefix(d.MediaType, dockerPrefix):
		return refuse("it is a Docker manifest (%q), not an OCI one", clip(d.MediaType)).
			WithAdvice("push profiles with confine push or oras push; docker push makes images")
	case d.MediaType != ocispec.MediaTypeImageManifest && d.MediaType != ocispec.MediaTypeImageIndex:
		return refuse("its mediaType is %q, neither an OCI image manifest nor an OCI index", clip(d.MediaType)).
			WithAdvice("push with confine push or oras push; both write %s", ocispec.MediaTypeImageManifest)
	case d.SchemaVersion != 2:
		return refuse("its schemaVersion is %d, not 2", d.SchemaVersion)
	case len(d.Subject) > 0:
		return refuse("it has a subject: it is attached to another artifact, as signatures are, and is none itself").
			WithAdvice("reference the artifact it is attached to; push profiles with oras push, not oras attach")
	case len(d.Annotations) > maxAnnotations:
		return tooLarge("it has %d annotations, at most %d are read", len(d.Annotations), maxAnnotations)
	case d.MediaType == ocispec.MediaTypeImageIndex && (d.Layers != nil || d.Config != nil):
		return refuse("it says it is an index and has layers or a config as a manifest")
	case d.MediaType == ocispec.MediaTypeImageManifest && d.Manifests != nil:
		return refuse("it says it is a manifest and lists manifests as an index")
	}
	return nil
}

// form tells which of the accepted shapes an image manifest has.
func (d *document) form(kinds profile.Set) (Form, error) {
	if d.Config == nil {
		return "", refuse("it has no config")
	}
	if err := checkDescriptor("the config", *d.Config, profile.MaxPayloadBytes); err != nil {
		return "", err
	}
	declared, err := d.declaredType()
	if err != nil {
		return "", err
	}
	switch declared {
	case ArtifactTypeSeccomp:
		return FormKEP6061, nil
	case ArtifactTypeBundle:
		return FormBundle, nil
	case oras.MediaTypeUnknownArtifact, oras.MediaTypeUnknownConfig:
		return FormBare, nil
	case "":
		return "", refuse("it has neither an artifactType nor a config that tells what it is").
			WithAdvice("push it with: %s", orasPush(d.Layers, kinds))
	}
	return "", refuse("its artifact type %q is not one of profiles", clip(declared)).
		WithAdvice("if it holds profiles, push it with: %s", orasPush(d.Layers, kinds))
}

// declaredType is what the manifest says it is: the config's media type, or
// artifactType where the config is empty (OCI image specification 1.1,
// "Guidelines for artifact usage"; KEP-6061 says the same). Two different
// answers are refused, since scanners and runtimes may go by either. The one
// exception is an image's config under an artifactType: that is how
// `oras push --artifact-platform` writes down a platform (oras v1.3.6,
// cmd/oras/root/push.go). Runtimes do not accept it in the KEP-6061 form.
func (d *document) declaredType() (string, error) {
	config := d.Config.MediaType
	switch {
	case config == ocispec.MediaTypeImageConfig && d.ArtifactType != "" && d.ArtifactType != ArtifactTypeSeccomp:
		return d.ArtifactType, nil
	case config == ocispec.MediaTypeImageConfig || config == dockerImageConfig:
		return "", refuse("it is a container image (config %q), not an artifact of profiles", config).
			WithAdvice("push the profile files themselves with confine push or oras push, without --config; name a platform only with --artifact-type %s", ArtifactTypeBundle)
	case config == ocispec.MediaTypeEmptyJSON:
		return d.ArtifactType, nil
	case d.ArtifactType != "" && d.ArtifactType != config:
		return "", refuse("its artifactType %q and its config's media type %q say two different things",
			clip(d.ArtifactType), clip(config)).
			WithAdvice("push with --artifact-type alone, without --config")
	}
	return config, nil
}

// checkDescriptor judges one descriptor before anything it names is fetched.
func checkDescriptor(what string, desc ocispec.Descriptor, most int64) error {
	switch {
	case !mediaTypeRegexp.MatchString(desc.MediaType):
		return refuse("%s has the media type %q, which is none", what, clip(desc.MediaType))
	case !sha256Regexp.MatchString(string(desc.Digest)):
		return refuse("%s has the digest %q; only sha256 digests in lower case are supported", what, clip(string(desc.Digest)))
	case desc.Size < 0:
		return refuse("%s has a negative size", what)
	case desc.Size == 0:
		return refuse("%s is empty", what)
	case desc.Size > most:
		return tooLarge("%s has %d bytes, at most %d are read", what, desc.Size, most)
	case len(desc.URLs) > 0:
		return refuse("%s is to be fetched from URLs outside the registry, which is never done", what).
			WithAdvice("push the file itself into the registry")
	}
	// Inline data is never used instead of the blob, but it must not lie to
	// those who use it.
	if desc.Data != nil && (int64(len(desc.Data)) != desc.Size || digest.FromBytes(desc.Data) != desc.Digest) {
		return reason.New(reason.DigestMismatch, object, "%s holds inline data other than its digest and size say", what)
	}
	return nil
}
