package controller

import (
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/confine-dev/confine/api/v1alpha1"
)

// recorder is how events are sent: the recorder of client-go's tools/events.
type recorder interface {
	Eventf(regarding, related runtime.Object, eventType, reason, action, note string, args ...any)
}

// teller makes events of turns in the state of a SecurityProfile. It never
// makes one for a node: a fleet that fails alike is one event.
type teller struct{ recorder recorder }

// Actions of events: what the controller was doing.
const (
	actionRollout = "Rollout"
	actionVerify  = "Verify"
	actionWatch   = "Watch"
)

// changed compares the status of before with the one that was written.
func (t *teller) changed(before *v1alpha1.SecurityProfile, after *v1alpha1.SecurityProfileStatus) {
	old := before.Status
	if old == nil {
		old = &v1alpha1.SecurityProfileStatus{}
	}
	if c := progressing(after); c.Reason != progressing(old).Reason && worthTelling(c.Reason) {
		kind := corev1.EventTypeWarning
		if c.Reason == v1alpha1.ReasonRolloutComplete {
			kind = corev1.EventTypeNormal
		}
		t.send(before, kind, actionRollout, c)
	}
	if c := turned(old, after, v1alpha1.ConditionVerified, metav1.ConditionFalse); c != nil {
		t.send(before, corev1.EventTypeWarning, actionVerify, *c)
	}
	if c := turned(old, after, v1alpha1.ConditionDegraded, metav1.ConditionTrue); c != nil && c.Reason != v1alpha1.ReasonRolledBack {
		t.send(before, corev1.EventTypeWarning, actionWatch, *c)
	}
}

func (t *teller) send(object *v1alpha1.SecurityProfile, kind, action string, c metav1.Condition) {
	regarding := object.DeepCopy()
	regarding.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.SchemeGroupVersion().String(), Kind: v1alpha1.KindSecurityProfile}
	t.recorder.Eventf(regarding, nil, kind, c.Reason, action, "%s", c.Message)
}

// worthTelling are the turns of a rollout that somebody waits for or must see.
func worthTelling(word string) bool {
	switch word {
	case v1alpha1.ReasonRolloutComplete, v1alpha1.ReasonCanaryFailed, v1alpha1.ReasonFailureThresholdReached,
		v1alpha1.ReasonProgressDeadlineExceeded, v1alpha1.ReasonRollingBack, v1alpha1.ReasonRolledBack:
		return true
	}
	return false
}

// turned returns the condition where it has the status now and had not before,
// or has it for another reason.
func turned(before, after *v1alpha1.SecurityProfileStatus, name string, status metav1.ConditionStatus) *metav1.Condition {
	now := apimeta.FindStatusCondition(after.Conditions, name)
	old := apimeta.FindStatusCondition(before.Conditions, name)
	if now == nil || now.Status != status || old != nil && old.Status == status && old.Reason == now.Reason {
		return nil
	}
	return now
}

// progressing returns the condition Progressing; its zero value where there is none.
func progressing(s *v1alpha1.SecurityProfileStatus) metav1.Condition {
	if c := apimeta.FindStatusCondition(s.Conditions, v1alpha1.ConditionProgressing); c != nil {
		return *c
	}
	return metav1.Condition{}
}
