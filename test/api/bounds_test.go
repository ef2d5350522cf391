package api_test

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/confine-dev/confine/api/v1alpha1"
)

// violation is one value that one bound of a schema refuses.
type violation struct {
	name  string
	keys  []any
	value any // nil takes it away
	want  []string
}

// wholeObjects returns objects of a kind that together have every field.
func wholeObjects(t *testing.T, kind string) []*unstructured.Unstructured {
	t.Helper()
	byNumber := securityProfile()
	byNumber.Spec.Rollout.Canary = &v1alpha1.Canary{Nodes: new(int32)}
	*byNumber.Spec.Rollout.Canary.Nodes = 1
	objects := map[string][]runtime.Object{
		v1alpha1.KindSecurityProfile: {securityProfile(), byNumber},
		v1alpha1.KindTrustPolicy:     {trustPolicy()},
		v1alpha1.KindProfileNode:     {profileNode()},
	}[kind]
	if len(objects) == 0 {
		t.Fatalf("no whole object of kind %s", kind)
	}
	var found []*unstructured.Unstructured
	for i, object := range objects {
		found = append(found, named(toUnstructured(t, object), fmt.Sprintf("bounds-%d", i)))
	}
	return found
}

// Each bound of each schema refuses a value beyond it and says where it stands.
func TestEveryBoundRefuses(t *testing.T) {
	for kind := range definitions(t) {
		t.Run(kind, func(t *testing.T) {
			objects := wholeObjects(t, kind)
			stored := map[*unstructured.Unstructured]*unstructured.Unstructured{}
			for _, object := range objects {
				stored[object] = create(t, object)
			}
			for _, p := range schemas(t, kind)[1:] {
				object := withField(objects, p)
				if object == nil {
					t.Errorf("no whole object has %s: add it", p.path)
					continue
				}
				for _, v := range violations(p, object) {
					t.Run(p.path+" "+v.name, func(t *testing.T) {
						bad := object.DeepCopy()
						set(t, bad.Object, v.keys, v.value)
						err := tryPart(t, bad, stored[object])
						for _, want := range v.want {
							if err == nil || !strings.Contains(err.Error(), want) {
								t.Errorf("the server says %v, not %q", err, want)
							}
						}
					})
				}
			}
		})
	}
}

func withField(objects []*unstructured.Unstructured, p place) *unstructured.Unstructured {
	for _, object := range objects {
		if _, found := get(object.Object, p.keys); found {
			return object
		}
	}
	return nil
}

// tryPart returns what the server says to the spec and the status of an object.
func tryPart(t *testing.T, object, stored *unstructured.Unstructured) error {
	t.Helper()
	if err := try(t, named(object.DeepCopy(), object.GetName()+"-not-kept")); err != nil {
		return err
	}
	status, found := object.Object["status"]
	if !found {
		return nil
	}
	update := stored.DeepCopy()
	update.Object["status"] = status
	_, err := resourceOf(t, update).UpdateStatus(t.Context(), update, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// violations makes a value beyond each bound of a schema.
func violations(p place, object *unstructured.Unstructured) []violation {
	var found []violation
	refuse := func(name string, value any, want ...string) {
		found = append(found, violation{name: name, keys: p.keys, value: value, want: append(want, p.path)})
	}
	current, _ := get(object.Object, p.keys)
	for bound, limit := range p.schema {
		n, _ := limit.(float64)
		limited := int(n)
		switch {
		case bound == "maxLength":
			refuse(bound, strings.Repeat("a", limited+1), "Too long: may not be more than")
		case bound == "minLength" && limited > 0:
			refuse(bound, strings.Repeat("a", limited-1), fmt.Sprintf("should be at least %d chars long", limited))
		case bound == "pattern":
			refuse(bound, "\n", "should match '"+limit.(string)+"'")
		case bound == "enum":
			refuse(bound, "Nonsense", "Unsupported value: \"Nonsense\": supported values: ")
		case bound == "minimum":
			refuse(bound, int64(limited-1), fmt.Sprintf("should be greater than or equal to %d", limited))
		case bound == "maximum":
			refuse(bound, int64(limited+1), fmt.Sprintf("should be less than or equal to %d", limited))
		case bound == "minItems":
			refuse(bound, []any{}, fmt.Sprintf("should have at least %d items", limited))
		case bound == "maxItems":
			refuse(bound, repeat(current, limited+1), fmt.Sprintf("must have at most %d item", limited))
		case bound == "maxProperties":
			refuse(bound, keyed(limited+1), fmt.Sprintf("must have at most %d item", limited))
		case bound == "required":
			for _, name := range limit.([]any) {
				found = append(found, violation{
					name: "without " + name.(string), keys: add(p.keys, name), want: []string{p.path + "." + name.(string), "Required value"},
				})
			}
		}
	}
	return found
}

func repeat(list any, times int) []any {
	var items []any
	for range times {
		items = append(items, runtime.DeepCopyJSONValue(list.([]any)[0]))
	}
	return items
}

func keyed(n int) map[string]any {
	labels := map[string]any{}
	for i := range n {
		labels[fmt.Sprintf("label-%d", i)] = "x"
	}
	return labels
}
