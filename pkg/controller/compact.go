package controller

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unique"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/podref"
)

// The caches hold what a pass needs and nothing else. A thousand nodes with a
// hundred profiles report a hundred thousand times much the same, so repeated
// strings are kept once.

// nodeInfo is what is kept of a Node.
type nodeInfo struct {
	metav1.ObjectMeta
	linux, ready bool
}

// podInfo is what is kept of a Pod.
type podInfo struct {
	metav1.ObjectMeta
	node string
	// agent: it is a pod of this installation's agent.
	agent bool
	ready bool
	// ended: its containers have stopped for good.
	ended      bool
	references []string
}

// share is what is kept of a ProfileNode.
type share struct {
	metav1.ObjectMeta
	ownerUID string
	assigned []assignment
	releases []release
	nodeUID  string
	reports  []report
	problems int
	written  written
}

// assignment is one entry of a ProfileNode's spec.
type assignment struct {
	key, uid, artifact, kinds string
	createdAt                 int64
}

// release is one release in a ProfileNode's spec.
type release struct {
	key      string
	removeAt int64
}

// report is one entry of a ProfileNode's status.
type report struct {
	key, uid, wanted string
	reason, message  string
	// kinds are the references by kind, as encodeKinds writes them.
	kinds    string
	state    v1alpha1.ReportState
	verified metav1.ConditionStatus
	degraded bool
	since    int64
	removal  *removal
}

// removal is what a node asks to remove.
type removal struct {
	references []string
	at         int64
}

// profileKey is the namespace and name of a SecurityProfile; keys sort as
// pairs do.
func profileKey(namespace, name string) string { return intern(namespace + "\x00" + name) }

func splitKey(key string) (namespace, name string) {
	namespace, name, _ = strings.Cut(key, "\x00")
	return namespace, name
}

// intern returns the one copy of a string in memory.
func intern(s string) string { return unique.Make(s).Value() }

// identity keeps of an object's metadata what caches and writers need.
func identity(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: intern(m.Namespace), Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion,
	}
}

// compactNode is the transform of the cache of Nodes.
func compactNode(object any) (any, error) {
	node, ok := object.(*corev1.Node)
	if !ok {
		return object, nil
	}
	info := &nodeInfo{ObjectMeta: identity(node.ObjectMeta)}
	info.Labels = make(map[string]string, len(node.Labels))
	for key, value := range node.Labels {
		info.Labels[intern(key)] = intern(value)
	}
	os := node.Status.NodeInfo.OperatingSystem
	if os == "" {
		os = node.Labels[corev1.LabelOSStable]
	}
	info.linux = os == string(corev1.Linux)
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			info.ready = condition.Status == corev1.ConditionTrue
		}
	}
	return info, nil
}

// compactPod returns the transform of the cache of Pods.
func compactPod(namespace string, agents labels.Selector) toolscache.TransformFunc {
	return func(object any) (any, error) {
		pod, ok := object.(*corev1.Pod)
		if !ok {
			return object, nil
		}
		info := &podInfo{ObjectMeta: identity(pod.ObjectMeta), node: intern(pod.Spec.NodeName)}
		info.ended = pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		info.agent = pod.Namespace == namespace && agents.Matches(labels.Set(pod.Labels))
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady {
				info.ready = condition.Status == corev1.ConditionTrue
			}
		}
		info.references = podref.References(&pod.Spec, pod.Annotations)
		for i, name := range info.references {
			info.references[i] = intern(name)
		}
		return info, nil
	}
}

// compactShare is the transform of the cache of ProfileNodes.
func compactShare(object any) (any, error) {
	node, ok := object.(*v1alpha1.ProfileNode)
	if !ok {
		return object, nil
	}
	s := &share{ObjectMeta: identity(node.ObjectMeta)}
	for _, owner := range node.OwnerReferences {
		if owner.Kind == "Node" && owner.Name == node.Name {
			s.ownerUID = string(owner.UID)
		}
	}
	s.assigned = compactAssigned(node.Spec.Profiles)
	s.releases = compactReleases(node.Spec.Releases)
	if node.Status == nil {
		return s, nil
	}
	s.nodeUID = node.Status.NodeUID
	s.problems = len(node.Status.Problems)
	s.reports = make([]report, 0, len(node.Status.Profiles))
	for i := range node.Status.Profiles {
		s.reports = append(s.reports, compactReport(&node.Status.Profiles[i]))
	}
	slices.SortFunc(s.reports, func(a, b report) int { return strings.Compare(a.key, b.key) })
	return s, nil
}

func compactAssigned(profiles []v1alpha1.AssignedProfile) []assignment {
	assigned := make([]assignment, 0, len(profiles))
	for _, p := range profiles {
		assigned = append(assigned, assignment{
			key: profileKey(p.Namespace, p.Name), uid: intern(p.UID), artifact: intern(p.Artifact),
			kinds: intern(string(p.Kinds)), createdAt: seconds(p.CreatedAt),
		})
	}
	slices.SortFunc(assigned, func(a, b assignment) int { return strings.Compare(a.key, b.key) })
	return assigned
}

func compactReleases(releases []v1alpha1.Release) []release {
	var kept []release
	for _, r := range releases {
		kept = append(kept, release{key: profileKey(r.Namespace, r.Name), removeAt: seconds(r.RemoveAt)})
	}
	return kept
}

func compactReport(p *v1alpha1.ProfileReport) report {
	r := report{
		key: profileKey(p.Namespace, p.Name), uid: intern(p.UID), wanted: intern(p.WantedDigest),
		reason: intern(p.Reason), message: intern(p.Message), kinds: intern(encodeKinds(p.Kinds)),
		state: v1alpha1.ReportState(intern(string(p.State))), verified: metav1.ConditionStatus(intern(string(p.Verified))),
		degraded: p.Degraded, since: seconds(p.Since),
	}
	if !p.RemoveAt.IsZero() {
		r.removal = &removal{at: seconds(p.RemoveAt)}
		for _, name := range p.Removing {
			r.removal.references = append(r.removal.references, intern(name))
		}
	}
	return r
}

// seconds is the granularity of times in the API.
func seconds(t metav1.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func fromSeconds(s int64) metav1.Time {
	if s == 0 {
		return metav1.Time{}
	}
	return metav1.NewTime(time.Unix(s, 0).UTC())
}

// encodeKinds writes the references of kinds as one string: most nodes report
// the same, and one string is kept once. What no pod could write is left out:
// the API takes any character in a report, and one node's must not end up where
// it separates, or on a terminal.
func encodeKinds(kinds []v1alpha1.KindReport) string {
	var b strings.Builder
	for _, kind := range kinds {
		for _, name := range kind.References {
			if strings.ContainsFunc(name, unprintable) {
				continue
			}
			b.WriteString(kind.Name)
			b.WriteByte(0)
			b.WriteString(name)
			b.WriteByte(0)
		}
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// decodeKinds reads what encodeKinds wrote.
func decodeKinds(encoded string) []v1alpha1.PayloadReference {
	var found []v1alpha1.PayloadReference
	for encoded != "" {
		var kind, name string
		kind, encoded, _ = strings.Cut(encoded, "\x00")
		name, encoded, _ = strings.Cut(encoded, "\x00")
		found = append(found, v1alpha1.PayloadReference{Kind: kind, Name: name})
	}
	return found
}

// bareProfile is the transform of the cache of SecurityProfiles.
func bareProfile(object any) (any, error) {
	if profile, ok := object.(*v1alpha1.SecurityProfile); ok {
		profile.ManagedFields, profile.Annotations = nil, nil
	}
	return object, nil
}
