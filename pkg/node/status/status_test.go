package status_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

func TestWriteAndRead(t *testing.T) {
	root := t.TempDir()
	dir, err := durable.Open(root, durable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dir.Close() }()
	p := status.Profile{Owner: profile.Owner{Namespace: "web", Name: "nginx"}}
	p.Set(status.Condition{Type: status.Ready, Status: status.False, Reason: reason.Revoked, Message: strings.Repeat("x", 1000)})
	p.Set(status.Condition{Type: status.Ready, Status: status.True, Reason: status.Installed})
	report := status.Report{Version: "devel", Profiles: []status.Profile{p}}
	for i, w := range []*status.Writer{status.NewWriter(dir), nil, nil} {
		if w == nil {
			w = status.NewWriter(dir) // another process
		}
		wrote, err := w.Write(report)
		if err != nil || wrote != (i == 0) {
			t.Errorf("write %d: %t, %v", i, wrote, err)
		}
	}
	got, err := status.Read(root)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(report, got); diff != "" {
		t.Error(diff)
	}
	if got.Profiles[0].AsWanted() {
		t.Error("a profile that was never verified is as wanted")
	}
	if c := got.Profiles[0].Condition(status.Verified); c.Status != status.Unknown {
		t.Errorf("a condition nobody set is %s", c.Status)
	}
}

func TestReadRefuses(t *testing.T) {
	for name, prepare := range map[string]func(file string) error{
		"missing": func(string) error { return nil },
		"no JSON": func(file string) error { return os.WriteFile(file, []byte("{"), 0o600) },
		"too large": func(file string) error {
			f, err := os.Create(file)
			if err != nil {
				return err
			}
			return errors.Join(f.Truncate(status.MaxBytes+1), f.Close())
		},
		"a folder": func(file string) error { return os.Mkdir(file, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if err := prepare(filepath.Join(root, status.FileName)); err != nil {
				t.Fatal(err)
			}
			if _, err := status.Read(root); !errors.Is(err, reason.InstallFailed) {
				t.Errorf("Read = %v, want InstallFailed", err)
			}
		})
	}
}

func TestDescribeKeepsTheAdvice(t *testing.T) {
	for name, err := range map[string]error{
		"short":         reason.New(reason.Revoked, "x", "it was revoked"),
		"long detail":   reason.New(reason.Revoked, "x", "%s", strings.Repeat("é", 500)),
		"long advice":   reason.New(reason.Revoked, "x", "short").WithAdvice("%s", strings.Repeat("é", 500)),
		"several lines": reason.New(reason.Revoked, "x", "one\ntwo\x00\xff"),
		"no reason":     errors.New(strings.Repeat("x", 500)),
	} {
		t.Run(name, func(t *testing.T) {
			_, message := status.Describe(err)
			if len(message) > status.MaxMessageBytes || !utf8.ValidString(message) || strings.Contains(message, "\n") {
				t.Errorf("%d bytes: %q", len(message), message)
			}
			if e, ok := reason.Of(err); ok && len(e.WhatToDo()) < 150 && !strings.HasSuffix(message, e.WhatToDo()) {
				t.Errorf("%q does not say what to do: %s", message, e.WhatToDo())
			}
		})
	}
}

func TestOutcome(t *testing.T) {
	ready := func(s status.State, r reason.Reason) status.Profile {
		p := status.Profile{Origin: "m.yaml"}
		p.Set(status.Condition{Type: status.Ready, Status: s, Reason: r})
		return p
	}
	for name, c := range map[string]struct {
		profile status.Profile
		want    status.Outcome
	}{
		"in force":             {ready(status.True, status.Installed), status.OutcomeInstalled},
		"being pulled":         {ready(status.Unknown, status.Pending), status.OutcomePending},
		"nothing is said":      {status.Profile{Origin: "m.yaml"}, status.OutcomePending},
		"refused":              {ready(status.False, reason.SignatureMissing), status.OutcomeFailed},
		"no room":              {ready(status.False, reason.NoSpace), status.OutcomeFailed},
		"the registry is away": {ready(status.False, reason.RegistryUnavailable), status.OutcomePending},
		"no credentials":       {ready(status.False, reason.Unauthorized), status.OutcomePending},
		"policies unreadable":  {ready(status.False, reason.TrustPolicyInvalid), status.OutcomePending},
		"nobody wants it":      {status.Profile{}, status.OutcomeRemoving},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.profile.Outcome(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
