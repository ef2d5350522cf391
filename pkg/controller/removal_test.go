package controller_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/confine-dev/confine/api/v1alpha1"
)

// removing is what a node reports of a profile that nobody wants.
func removing(name string, removeAt time.Time, references ...string) v1alpha1.ProfileReport {
	return v1alpha1.ProfileReport{
		Namespace: "web", Name: name, InstalledDigest: digestOf(artifact(1)), State: v1alpha1.StateRemoving,
		Verified: metav1.ConditionTrue, RemoveAt: metav1.NewTime(removeAt.Truncate(time.Second)), Removing: references,
	}
}

func userOf(name, reference string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: name},
		Spec: corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{
			Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &reference,
		}}},
	}
}

// released returns what a node may remove.
func (f *fleet) released(node string) ([]string, error) {
	n, err := f.node(node)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, r := range n.Spec.Releases {
		all = append(all, r.Name)
	}
	return all, nil
}

func (f *fleet) awaitReleased(node string, want ...string) {
	f.t.Helper()
	f.eventually(fmt.Sprintf("releases %q for %s", want, node), func() error {
		got, err := f.released(node)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("they are %q", got)
		}
		return err
	})
}

// TestRemoval: a deleted profile is not assigned any more, and is released
// only where no pod uses it.
func TestRemoval(t *testing.T) {
	f := newFleet(t, "a", "b")
	f.start()
	f.good("nginx", 1, nil)
	f.addPod(userOf("user", "confine//web/nginx/./profile.json"), "a")
	if err := f.client.Delete(t.Context(), &v1alpha1.SecurityProfile{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "nginx"}}); err != nil {
		t.Fatal(err)
	}
	f.awaitGiven("nginx", artifact(1), 0)
	due := time.Now().Add(-time.Minute)
	nginx := removing("nginx", due, "confine/web/nginx/profile.json")
	f.removes("b", nginx)
	f.awaitReleased("b", "nginx")
	// Another one of the same node goes, the one in use stays.
	f.removes("a", nginx, removing("other", due, "confine/web/other/profile.json"))
	f.awaitReleased("a", "other")
	f.finish("user")
	f.awaitReleased("a", "nginx", "other")
	// A pod that comes before the node acted takes the release back.
	f.addPod(userOf("late", "confine/web/nginx/profile.json"), "a")
	f.awaitReleased("a", "other")
	f.deletePod("web", "late")
	f.awaitReleased("a", "nginx", "other")
	n, err := f.node("a")
	if err != nil {
		t.Fatal(err)
	}
	if got := n.Spec.Releases[0]; !got.RemoveAt.Equal(&nginx.RemoveAt) || got.Namespace != "web" {
		t.Errorf("release %+v, want that of %s", got, nginx.RemoveAt)
	}
}

// finish ends a pod's containers for good.
func (f *fleet) finish(pod string) {
	f.t.Helper()
	f.patchStatus(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: pod}}, map[string]any{"phase": "Succeeded"})
}

// TestReleaseIsDue: not before its time, and another time needs another release.
func TestReleaseIsDue(t *testing.T) {
	f := newFleet(t, "a")
	f.start()
	f.eventually("the ProfileNode", func() error { _, err := f.node("a"); return err })
	due := time.Now().Add(3 * time.Second).Truncate(time.Second)
	f.removes("a", removing("nginx", due, "confine/web/nginx/profile.json"))
	f.awaitReleased("a", "nginx")
	if now := time.Now(); now.Before(due) {
		t.Errorf("released %s before its time", due.Sub(now))
	}
	later := time.Now().Add(time.Hour).Truncate(time.Second)
	f.removes("a", removing("nginx", later, "confine/web/nginx/profile.json"), removing("other", due, "confine/web/other/profile.json"))
	f.awaitReleased("a", "other")
}

// A dead node's report releases nothing for the one that took its name.
func TestNoReleaseForAnotherNode(t *testing.T) {
	f := newFleet(t, "a")
	f.start()
	f.eventually("the ProfileNode", func() error { _, err := f.node("a"); return err })
	f.mutes("a", true)
	body := `{"status":{"nodeUID":"former","profiles":[{"namespace":"web","name":"nginx","state":"Removing","verified":"True",` +
		`"removeAt":"2026-01-01T00:00:00Z","removing":["confine/web/nginx/profile.json"]}]}}`
	n := &v1alpha1.ProfileNode{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
	if err := f.client.Status().Patch(t.Context(), n, client.RawPatch("application/merge-patch+json", []byte(body))); err != nil {
		t.Fatal(err)
	}
	// What comes later is written, so the report was seen.
	f.addProfile("redis", v1alpha1.SecurityProfileSpec{Artifact: artifact(1)})
	f.awaitGiven("redis", artifact(1), 1)
	f.awaitReleased("a")
}
