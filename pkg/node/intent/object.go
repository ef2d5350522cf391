package intent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// maxUID bounds the UID of an entry, as the API does.
const maxUID = 64

// DecodePolicyObject reads one TrustPolicy as the API server serves it. What
// stands in spec is read as strictly as in a manifest, so that an agent which
// is older than the API never passes over a constraint. metadata is the
// server's: of it only the name is read. The error is TrustPolicyInvalid.
func DecodePolicyObject(origin string, data []byte) (trust.Policy, error) {
	doc := document{origin: origin}
	if err := doc.reduce(data); err != nil {
		return trust.Policy{}, policyInvalid(origin, err)
	}
	policy, err := decodePolicy(doc)
	if err != nil {
		return trust.Policy{}, policyInvalid(origin, err)
	}
	return policy, nil
}

// reduce keeps of a served object all but status and what is not the name in
// its metadata.
func (d *document) reduce(data []byte) error {
	if len(data) > MaxFileBytes {
		return fmt.Errorf("it exceeds %d bytes", MaxFileBytes)
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, &d.meta); err != nil {
		return err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	name, err := json.Marshal(map[string]string{"name": d.meta.Name})
	if err != nil {
		return err
	}
	fields["metadata"] = name
	delete(fields, "status")
	d.json, err = json.Marshal(fields)
	return err
}

// DecodeNode reads the spec of a ProfileNode, given as JSON. An entry that
// cannot be read is a problem of its owner, whose units stay; one whose owner
// cannot be told, or a part of the spec that this version does not know, lets
// nothing be removed.
func DecodeNode(origin string, spec []byte) Desired {
	desired := Desired{Complete: true, NeedsRelease: true}
	doubt := func(at string, err error) {
		desired.Complete = false
		desired.Invalid = append(desired.Invalid, Problem{Origin: at, Err: unassigned(at, err)})
	}
	if trimmed := bytes.TrimSpace(spec); len(trimmed) == 0 || bytes.Equal(trimmed, []byte("null")) {
		return desired // nothing is assigned
	}
	var lists struct {
		Profiles []json.RawMessage `json:"profiles"`
		Releases []json.RawMessage `json:"releases"`
	}
	strict, err := kjson.UnmarshalStrict(spec, &lists)
	if err != nil {
		doubt(origin+": spec", err)
		return desired
	}
	if unknown := errors.Join(strict...); unknown != nil {
		doubt(origin+": spec", unknown)
	}
	if len(lists.Profiles) > MaxObjects || len(lists.Releases) > MaxObjects {
		doubt(origin+": spec", fmt.Errorf("more than %d entries", MaxObjects))
		return desired
	}
	for i, raw := range lists.Profiles {
		assigned, problem := decodeAssigned(fmt.Sprintf("%s: spec.profiles[%d]", origin, i), raw)
		if problem == nil {
			desired.Profiles = append(desired.Profiles, assigned)
			continue
		}
		desired.Complete = desired.Complete && problem.Owner != profile.Owner{}
		desired.Invalid = append(desired.Invalid, *problem)
	}
	for i, raw := range lists.Releases {
		at := fmt.Sprintf("%s: spec.releases[%d]", origin, i)
		var r v1alpha1.Release
		if err := decodeEntry(raw, &r); err != nil {
			// What it would release waits on.
			desired.Invalid = append(desired.Invalid, Problem{Origin: at, Err: unassigned(at, err)})
			continue
		}
		owner := profile.Owner{Namespace: r.Namespace, Name: r.Name}
		desired.Releases = append(desired.Releases, Release{Owner: owner, RemoveAt: r.RemoveAt.Time})
	}
	return desired
}

// decodeAssigned reads one entry, or says what is wrong and, where that can be
// read, whose it is.
func decodeAssigned(at string, raw []byte) (Profile, *Problem) {
	var entry v1alpha1.AssignedProfile
	strictErr := decodeEntry(raw, &entry)
	meta := metav1.ObjectMeta{Namespace: entry.Namespace, Name: entry.Name}
	problem := &Problem{Origin: at}
	if meta.Namespace != "" && meta.Name != "" {
		problem.Owner, _ = ownerOf(meta)
	}
	if problem.Owner != (profile.Owner{}) {
		problem.Origin = "SecurityProfile " + problem.Owner.String()
	}
	switch {
	case strictErr != nil:
		problem.Err = unassigned(at, strictErr)
	case meta.Namespace == "":
		problem.Err = unassigned(at, errors.New("it names no namespace"))
	case len(entry.UID) > maxUID:
		problem.Err = unassigned(at, fmt.Errorf("its uid exceeds %d bytes", maxUID))
	}
	if problem.Err != nil {
		return Profile{}, problem
	}
	p, err := profileOf(problem.Origin, "", meta, entry.Artifact, entry.Kinds)
	if err != nil {
		problem.Err = err
		return Profile{}, problem
	}
	p.UID, p.Created = entry.UID, entry.CreatedAt.Time
	return p, nil
}

// decodeEntry decodes as far as it gets and refuses unknown and repeated fields.
func decodeEntry(raw []byte, into any) error {
	strict, err := kjson.UnmarshalStrict(raw, into)
	if err != nil {
		return err
	}
	return errors.Join(strict...)
}

func unassigned(at string, err error) *reason.Error {
	return reason.New(reason.ProfileInvalid, at, "this agent cannot read it: %w", err).
		WithAdvice("upgrade the agent to the version of the controller; what is installed stays meanwhile")
}
