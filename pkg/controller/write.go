package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/confine-dev/confine/api/v1alpha1"
)

// FieldManager is the owner of the fields that the controller writes.
const FieldManager = "confine-controller"

const (
	// writers is how many writes are under way at one time.
	writers = 8
	// writeTimeout bounds one write.
	writeTimeout = 30 * time.Second
)

// profileCRD is the name of the CustomResourceDefinition of SecurityProfiles.
const profileCRD = "securityprofiles." + v1alpha1.GroupName

// writer writes to the API server, and tells the world what it wrote.
//
// It uses server-side apply, forced: the spec of a ProfileNode and the status
// of a SecurityProfile are the controller's as a whole, so that no version has
// to be compared, a node's report in between is no conflict, and a repeated
// write is none. That one controller writes at a time is what the lease is for.
type writer struct {
	client client.Client
	// reader asks the API server itself: the caches hold other types.
	reader client.Reader
	world  *world
	count  func(object, result string)
}

// shareObject is a ProfileNode as it is applied. The list of profiles is there
// when it is empty too: with the last field of spec gone, spec would be null.
type shareObject struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec shareSpec `json:"spec"`
}

type shareSpec struct {
	Profiles []v1alpha1.AssignedProfile `json:"profiles"`
	Releases []v1alpha1.Release         `json:"releases,omitempty"`
}

// share writes the spec of one ProfileNode, and makes it where it is missing.
func (w *writer) share(ctx context.Context, s shareWrite) error {
	written := identified(v1alpha1.KindProfileNode, metav1.ObjectMeta{
		Name: s.node,
		// The garbage collector removes it with its node.
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: corev1.SchemeGroupVersion.String(), Kind: "Node", Name: s.node, UID: s.nodeUID,
		}},
	})
	object := shareObject{TypeMeta: written.TypeMeta, ObjectMeta: written.ObjectMeta, Spec: specOf(s)}
	if err := w.apply(ctx, object, written, ""); err != nil {
		return fmt.Errorf("ProfileNode %s: %w", s.node, err)
	}
	w.world.wroteShare(s.node, written.UID, written.ResourceVersion, string(s.nodeUID), s.assigned, s.releases)
	return nil
}

// identified is an object of ours without its content.
func identified(kind string, m metav1.ObjectMeta) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.SchemeGroupVersion().String(), Kind: kind}, ObjectMeta: m,
	}
}

// specOf is the opposite of the compact form.
func specOf(s shareWrite) shareSpec {
	spec := shareSpec{Profiles: []v1alpha1.AssignedProfile{}}
	for _, a := range s.assigned {
		namespace, name := splitKey(a.key)
		spec.Profiles = append(spec.Profiles, v1alpha1.AssignedProfile{
			Namespace: namespace, Name: name, UID: a.uid, Artifact: a.artifact,
			Kinds: v1alpha1.KindsPolicy(a.kinds), CreatedAt: fromSeconds(a.createdAt),
		})
	}
	for _, r := range s.releases {
		namespace, name := splitKey(r.key)
		spec.Releases = append(spec.Releases, v1alpha1.Release{Namespace: namespace, Name: name, RemoveAt: fromSeconds(r.removeAt)})
	}
	return spec
}

// status writes the status of one SecurityProfile. One that is gone, or was
// made again, needs none.
func (w *writer) status(ctx context.Context, s statusWrite) error {
	old := s.profile.object
	// The UID keeps a status from an object of the same name.
	written := identified(v1alpha1.KindSecurityProfile, metav1.ObjectMeta{Namespace: old.Namespace, Name: old.Name, UID: old.UID})
	object := &v1alpha1.SecurityProfile{TypeMeta: written.TypeMeta, ObjectMeta: written.ObjectMeta, Status: s.status}
	if err := w.apply(ctx, object, written, "status"); err != nil {
		return fmt.Errorf("SecurityProfile %s/%s: %w", old.Namespace, old.Name, err)
	}
	w.world.wroteStatus(s.profile, written.ResourceVersion, s.status)
	return nil
}

// apply sends an object, and reads only the metadata of what came of it: the
// reports of a node are not read again with each write.
func (w *writer) apply(ctx context.Context, object any, written *metav1.PartialObjectMetadata, subresource string) error {
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	kind := written.Kind
	patch := client.RawPatch(types.ApplyPatchType, body)
	if subresource != "" {
		err = w.client.SubResource(subresource).Patch(ctx, written, patch, client.ForceOwnership, client.FieldOwner(FieldManager))
	} else {
		err = w.client.Patch(ctx, written, patch, client.ForceOwnership, client.FieldOwner(FieldManager))
	}
	result := "ok"
	if err != nil {
		result = "error"
	}
	w.count(kind, result)
	return err
}

func definitionKind() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}
}

// profilesAreServed reports whether the resource of SecurityProfiles is there
// to stay. While its definition is being deleted, or is gone, profiles vanish
// that nobody deleted.
func (w *writer) profilesAreServed(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	crd := &metav1.PartialObjectMetadata{}
	crd.SetGroupVersionKind(definitionKind())
	err := w.reader.Get(ctx, client.ObjectKey{Name: profileCRD}, crd)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil && crd.DeletionTimestamp == nil, err
}

// inParallel calls work for each item, at most writers at a time, and returns
// the errors by item.
func inParallel[T any](ctx context.Context, items []T, work func(context.Context, T) error) []error {
	errs := make([]error, len(items))
	var group sync.WaitGroup
	places := make(chan struct{}, writers)
	for i, item := range items {
		places <- struct{}{}
		group.Go(func() {
			defer func() { <-places }()
			if errs[i] = ctx.Err(); errs[i] == nil {
				errs[i] = work(ctx, item)
			}
		})
	}
	group.Wait()
	return errs
}

// summed joins errors, of many alike the first few.
func summed(errs []error) error {
	const shown = 3
	var some []error
	failed := 0
	for _, err := range errs {
		if err == nil {
			continue
		}
		if failed++; failed <= shown {
			some = append(some, err)
		}
	}
	if failed > shown {
		some = append(some, fmt.Errorf("and %d more", failed-shown))
	}
	return errors.Join(some...)
}
