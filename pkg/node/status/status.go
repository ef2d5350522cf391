// Package status is what a node says about itself: one file beside its state,
// written when its meaning changed, and read by `confine status`.
package status

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// Bounds of a report.
const (
	MaxMessageBytes = 256
	MaxBytes        = 64 << 20

	// FileName is the report's name below the agent's root.
	FileName = "status.json"
)

// ConditionType names a condition.
type ConditionType string

// The conditions of every profile.
const (
	// Verified: the wanted digest is signed and allowed under the policies of now.
	Verified ConditionType = "Verified"
	// Ready: the wanted digest is in force.
	Ready ConditionType = "Ready"
	// Degraded: something is in force that should not be, or could not be
	// repaired.
	Degraded ConditionType = "Degraded"
)

// State is a condition's state.
type State string

// The states of a condition.
const (
	True    State = "True"
	False   State = "False"
	Unknown State = "Unknown"
)

// Words for conditions that no refusal caused, beside the closed set of pkg/reason.
const (
	Signed      reason.Reason = "Signed"
	Installed   reason.Reason = "Installed"
	AsWanted    reason.Reason = "AsWanted"
	Pending     reason.Reason = "Pending"
	NotObserved reason.Reason = "NotObserved"
)

// Condition is one statement about a profile.
type Condition struct {
	Type   ConditionType `json:"type"`
	Status State         `json:"status"`
	// Reason is of the closed set, or one of the words above.
	Reason reason.Reason `json:"reason"`
	// Message says what happened and what to do, in at most MaxMessageBytes.
	Message string `json:"message,omitempty"`
}

// Kind is the state of one kind of profile within an artifact.
type Kind struct {
	Name string `json:"name"`
	// InstalledDigest is the artifact whose files are in force; empty for none.
	InstalledDigest digest.Digest `json:"installedDigest,omitempty"`
	// References are how workloads name the files in force.
	References []string `json:"references,omitempty"`
	// Reason and Message say why the kind is not as wanted; empty where it is.
	Reason  reason.Reason `json:"reason,omitempty"`
	Message string        `json:"message,omitempty"`
	// RemoveAt is when it is removed, where nobody wants it any more.
	RemoveAt time.Time `json:"removeAt,omitzero"`
}

// HostKind is one kind of profile on this node.
type HostKind struct {
	Name string `json:"name"`
	// Reason and Message say why it is not supported; empty where it is.
	Reason  reason.Reason `json:"reason,omitempty"`
	Message string        `json:"message,omitempty"`
}

// Removal is what goes next.
type Removal struct {
	// At is when it goes, once it is released where that is needed.
	At time.Time `json:"at"`
	// References are how workloads name what goes.
	References []string `json:"references"`
}

// Profile is the state of one SecurityProfile on this node.
type Profile struct {
	Owner profile.Owner `json:"owner"`
	// Origin is the manifest; empty for one that is no longer wanted.
	Origin string `json:"origin,omitempty"`
	UID    string `json:"uid,omitempty"`
	// Artifact is what the manifest pins.
	Artifact string `json:"artifact,omitempty"`
	// WantedDigest is empty for what is no longer wanted.
	WantedDigest digest.Digest `json:"wantedDigest,omitempty"`
	// InstalledDigest is the artifact in force; empty for none, or where kinds
	// differ.
	InstalledDigest digest.Digest `json:"installedDigest,omitempty"`
	Conditions      []Condition   `json:"conditions"`
	// References are those of all kinds.
	References []string `json:"references,omitempty"`
	Kinds      []Kind   `json:"kinds,omitempty"`
	// Since is when the installed digest came into force.
	Since time.Time `json:"since,omitzero"`
	// RemoveAt is when it is removed, where nobody wants it any more.
	RemoveAt time.Time `json:"removeAt,omitzero"`
	// Removal is the next removal of all or a part of it; nil where none waits.
	Removal *Removal `json:"removal,omitempty"`
	// Policies is the fingerprint of the policies that judged WantedDigest, cut
	// short.
	Policies string `json:"policies,omitempty"`
}

// Condition returns the condition of that type; Unknown where it is not stated.
func (p Profile) Condition(t ConditionType) Condition {
	for _, c := range p.Conditions {
		if c.Type == t {
			return c
		}
	}
	return Condition{Type: t, Status: Unknown, Reason: NotObserved}
}

// Set puts a condition in the place of the one of its type.
func (p *Profile) Set(c Condition) {
	c.Message = Clip(c.Message)
	for i := range p.Conditions {
		if p.Conditions[i].Type == c.Type {
			p.Conditions[i] = c
			return
		}
	}
	p.Conditions = append(p.Conditions, c)
}

// AsWanted reports whether the profile is verified and in force.
func (p Profile) AsWanted() bool {
	return p.Condition(Verified).Status == True && p.Condition(Ready).Status == True
}

// Outcome sums a profile's conditions up in one word, as the API has them.
type Outcome string

// The outcomes.
const (
	OutcomeInstalled Outcome = "Installed" // the wanted digest is in force
	OutcomePending   Outcome = "Pending"   // under way, or it cannot be judged now
	OutcomeFailed    Outcome = "Failed"    // refused, or it cannot be installed
	OutcomeRemoving  Outcome = "Removing"  // nobody wants it
)

// Outcome sums the conditions up.
func (p Profile) Outcome() Outcome {
	ready := p.Condition(Ready)
	switch {
	case p.Origin == "":
		return OutcomeRemoving
	case ready.Status == True:
		return OutcomeInstalled
	case ready.Status == Unknown, CannotTell(ready.Reason):
		return OutcomePending
	}
	return OutcomeFailed
}

// Cause is the condition that says why a profile is as it is: the first that is
// not as wanted, or otherwise Ready.
func (p Profile) Cause() Condition {
	ready, verified, degraded := p.Condition(Ready), p.Condition(Verified), p.Condition(Degraded)
	switch {
	case ready.Status != True:
		return ready
	case verified.Status != True:
		return verified
	case degraded.Status == True:
		return degraded
	}
	return ready // that it is installed, and what this node left out
}

// CannotTell reports whether a reason says that it cannot be judged now, which
// is no refusal.
func CannotTell(r reason.Reason) bool {
	switch r {
	case reason.RegistryUnavailable, reason.RateLimited, reason.Unauthorized, reason.TrustPolicyInvalid:
		return true
	default:
		return false
	}
}

// Problem is an input that could not be used.
type Problem struct {
	Origin  string        `json:"origin"`
	Reason  reason.Reason `json:"reason"`
	Message string        `json:"message"`
}

// Report is all that a node says.
type Report struct {
	Version string `json:"version"`
	// Kinds are those that this agent has a host for, sorted by name.
	Kinds []HostKind `json:"kinds,omitempty"`
	// Profiles sorted by owner, then origin.
	Profiles []Profile `json:"profiles"`
	// Problems are manifests and policies that could not be used.
	Problems []Problem `json:"problems,omitempty"`
}

// Encode returns the report's one encoding.
func (r Report) Encode() ([]byte, error) {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}

// Read returns the report of the agent whose state is in root. The error is
// InstallFailed where there is none.
func Read(root string) (Report, error) {
	name := filepath.Join(root, FileName)
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Report{}, reason.New(reason.InstallFailed, name, "no agent has written its status here").
			WithAdvice("start confine-agent with --root %s, or name the root it runs with", root)
	}
	if err != nil {
		return Report{}, reason.New(reason.InstallFailed, name, "%w", err).WithAdvice("make the file readable")
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err == nil && len(data) > MaxBytes {
		err = fmt.Errorf("it exceeds %d bytes", MaxBytes)
	}
	var r Report
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return Report{}, reason.New(reason.InstallFailed, name, "the status cannot be read: %w", err).
			WithAdvice("restart the agent: it writes the file anew")
	}
	return r, nil
}

// Describe makes one message of a refusal: what happened, then what to do.
func Describe(err error) (reason.Reason, string) {
	e, ok := reason.Of(err)
	if !ok {
		return reason.InstallFailed, Clip(err.Error())
	}
	what := e.Detail
	if what == "" {
		what = e.Object
	}
	advice := e.WhatToDo()
	// The advice must survive: it is the shorter and the more useful half.
	room := MaxMessageBytes - len(advice) - len("; ")
	if room < MaxMessageBytes/4 {
		return e.Reason, Clip(what + "; " + advice)
	}
	return e.Reason, Clip(clip(what, room) + "; " + advice)
}

// Clip shortens a message to MaxMessageBytes of one line of valid UTF-8.
func Clip(message string) string { return clip(message, MaxMessageBytes) }

func clip(message string, limit int) string {
	message = strings.ToValidUTF8(strings.Join(strings.Fields(message), " "), "?")
	if len(message) <= limit {
		return message
	}
	const mark = "..."
	cut := limit - len(mark)
	for cut > 0 && !utf8.RuneStart(message[cut]) {
		cut--
	}
	return message[:cut] + mark
}
