package intent

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// document is one YAML document of a file.
type document struct {
	origin string
	json   []byte
	meta   metav1.PartialObjectMetadata
}

// documents splits a file into its non-empty YAML or JSON documents. A file
// that is no YAML, or repeats a key, is an error as a whole.
func documents(file string, data []byte) ([]document, error) {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	var docs []document
	for n := 1; ; n++ {
		raw, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		if n > MaxObjects {
			return nil, fmt.Errorf("more than %d documents", MaxObjects)
		}
		if err := checkShape(raw); err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		converted, err := yaml.YAMLToJSONStrict(raw)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		if trimmed := bytes.TrimSpace(converted); bytes.Equal(trimmed, []byte("null")) {
			continue
		}
		doc := document{origin: fmt.Sprintf("%s#%d", file, n), json: converted}
		if err := kjson.UnmarshalCaseSensitivePreserveInts(converted, &doc.meta); err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		docs = append(docs, doc)
	}
}

// decodeStrict refuses unknown fields, repeated keys and names in another case.
func (d document) decodeStrict(into any) error {
	strict, err := kjson.UnmarshalStrict(d.json, into)
	if err != nil {
		return err
	}
	return errors.Join(strict...)
}

// expect returns an error unless the document is of this API and kind.
func (d document) expect(kind string) error {
	version := v1alpha1.SchemeGroupVersion().String()
	if d.meta.APIVersion != version || d.meta.Kind != kind {
		return fmt.Errorf("it is a %q of %q where only a %s of %s belongs", d.meta.Kind, d.meta.APIVersion, kind, version)
	}
	return nil
}

// DecodeProfiles reads the SecurityProfiles of one file.
func DecodeProfiles(file string, data []byte) Desired {
	desired := Desired{Complete: true}
	docs, err := documents(file, data)
	if err != nil {
		return Desired{Invalid: []Problem{{Origin: file, Err: unreadable(file, err)}}}
	}
	for _, doc := range docs {
		decoded, err := decodeProfile(doc)
		if err == nil {
			desired.Profiles = append(desired.Profiles, decoded)
			continue
		}
		problem := Problem{Origin: doc.origin, Err: err}
		if doc.expect(v1alpha1.KindSecurityProfile) == nil {
			problem.Owner, _ = ownerOf(doc.meta.ObjectMeta)
		}
		if problem.Owner == (profile.Owner{}) {
			desired.Complete = false
		}
		desired.Invalid = append(desired.Invalid, problem)
	}
	return desired
}

func decodeProfile(doc document) (Profile, *reason.Error) {
	if err := doc.expect(v1alpha1.KindSecurityProfile); err != nil {
		return Profile{}, unreadable(doc.origin, err)
	}
	var object v1alpha1.SecurityProfile
	if err := doc.decodeStrict(&object); err != nil {
		return Profile{}, unreadable(doc.origin, err)
	}
	p, refusal := profileOf(doc.origin, "spec.", object.ObjectMeta, object.Spec.Artifact, object.Spec.Kinds)
	if refusal != nil {
		return Profile{}, refusal
	}
	p.UID, p.Created = string(object.UID), object.CreationTimestamp.Time
	return p, nil
}

// profileOf checks what a manifest and an entry of a ProfileNode have in
// common. at is where artifact and kinds stand.
func profileOf(origin, at string, meta metav1.ObjectMeta, artifact string, kinds v1alpha1.KindsPolicy) (Profile, *reason.Error) {
	owner, err := ownerOf(meta)
	if err != nil {
		return Profile{}, unreadable(origin, err)
	}
	ref, err := reference.ParsePinned(artifact)
	if err != nil {
		return Profile{}, within(origin+": "+at+"artifact", err)
	}
	switch kinds {
	case "", v1alpha1.KindsSupported, v1alpha1.KindsRequired:
	default:
		return Profile{}, unreadable(origin, fmt.Errorf("%skinds is %.63q, not %s or %s",
			at, kinds, v1alpha1.KindsSupported, v1alpha1.KindsRequired))
	}
	return Profile{Owner: owner, Artifact: ref, RequireAllKinds: kinds == v1alpha1.KindsRequired, Origin: origin}, nil
}

// ownerOf checks the names as an API server would, since a folder has none.
func ownerOf(meta metav1.ObjectMeta) (profile.Owner, error) {
	owner := profile.Owner{Namespace: meta.Namespace, Name: meta.Name}
	if owner.Namespace == "" {
		owner.Namespace = metav1.NamespaceDefault
	}
	if problems := validation.IsDNS1123Label(owner.Namespace); len(problems) > 0 {
		return profile.Owner{}, fmt.Errorf("metadata.namespace %.70q: %s", meta.Namespace, strings.Join(problems, "; "))
	}
	if problems := validation.IsDNS1123Subdomain(owner.Name); len(problems) > 0 {
		return profile.Owner{}, fmt.Errorf("metadata.name %.70q: %s", meta.Name, strings.Join(problems, "; "))
	}
	return owner, nil
}

func unreadable(origin string, err error) *reason.Error {
	return reason.New(reason.ProfileInvalid, origin, "the manifest cannot be used: %w", err).
		WithAdvice("mend the manifest; what is installed stays meanwhile")
}

// within says where in the manifests a refused value stands.
func within(origin string, err error) *reason.Error {
	e, ok := reason.Of(err)
	if !ok {
		return unreadable(origin, err)
	}
	c := *e
	c.Object, c.Err = origin, err
	if e.Object != "" {
		c.Detail = e.Object + ": " + e.Detail
	}
	return &c
}
