package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/kinds"
	"github.com/confine-dev/confine/pkg/reason"
)

// TestEveryKindHasAHost compares the two lists, and what is opened with both.
func TestEveryKindHasAHost(t *testing.T) {
	words, known := kindWords(), kinds.All(nil).Names()
	slices.Sort(words)
	slices.Sort(known)
	if diff := cmp.Diff(known, words); diff != "" {
		t.Error(diff)
	}
	root := t.TempDir()
	f := flags{root: root, kinds: words, selinuxPriority: selinuxPriority}
	opened, err := f.hosts(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var names, restored []string
	for _, h := range opened {
		names = append(names, h.Kind())
		if _, ok := h.(profile.Restorer); ok {
			restored = append(restored, h.Kind())
		}
	}
	slices.Sort(names)
	if diff := cmp.Diff(known, names); diff != "" {
		t.Error(diff)
	}
	// The kernel forgets AppArmor's alone: files and the policy store stay.
	if diff := cmp.Diff([]string{"apparmor"}, restored); diff != "" {
		t.Error(diff)
	}
	f.kinds = []string{"seccomp"}
	if opened, err = f.hosts(slog.New(slog.DiscardHandler)); err != nil || len(opened) != 1 || opened[0].Kind() != "seccomp" {
		t.Errorf("%v, %v", opened, err)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) != 0 {
		t.Errorf("opening made %v, %v", left, err)
	}
}

func TestKindsOnTheCommandLine(t *testing.T) {
	dir := t.TempDir()
	folders := []string{"--manifests", dir, "--trust", dir, "--root", filepath.Join(dir, "root"), "--once"}
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"unknown":           {[]string{"--kinds", "seccomp,landlock"}, "seccomp,apparmor,selinux"},
		"in capitals":       {[]string{"--kinds", "Seccomp"}, "seccomp,apparmor,selinux"},
		"none":              {[]string{"--kinds", ""}, "empty"},
		"a relative root":   {[]string{"--host-root", "host"}, "absolute"},
		"priority 0":        {[]string{"--selinux-priority", "0"}, "999"},
		"priority 1000":     {[]string{"--selinux-priority", "1000"}, "999"},
		"priority no digit": {[]string{"--selinux-priority", "high"}, "high"},
	} {
		t.Run(name, func(t *testing.T) {
			var errs bytes.Buffer
			code := run(t.Context(), append(slices.Clone(folders), c.args...), process{out: io.Discard, err: &errs, lookupEnv: func(string) (string, bool) { return "", false }})
			if code != exitUsage || !strings.Contains(errs.String(), c.says) {
				t.Errorf("exit code %d, %q; want %d, %q", code, errs.String(), exitUsage, c.says)
			}
		})
	}
}

func TestAKindsFolderOfSomebodyElseIsRefused(t *testing.T) {
	const another = 64218
	for name, c := range map[string]struct {
		make func(t *testing.T, folder string) error
		says string
	}{
		"a link": {func(t *testing.T, folder string) error { return os.Symlink(t.TempDir(), folder) }, "no folder"},
		"a file": {func(_ *testing.T, folder string) error { return os.WriteFile(folder, nil, 0o600) }, "no folder"},
		"writable by others": {func(_ *testing.T, folder string) error {
			return errors.Join(os.Mkdir(folder, 0o700), os.Chmod(folder, 0o777))
		}, "others write"},
		"another user's": {func(t *testing.T, folder string) error {
			if os.Geteuid() != 0 {
				t.Skip("needs chown(2) to another user, which only root may")
			}
			return errors.Join(os.Mkdir(folder, 0o700), os.Chown(folder, another, another))
		}, "another user"},
	} {
		t.Run(name, func(t *testing.T) {
			f := flags{root: t.TempDir(), selinuxPriority: selinuxPriority}
			for _, state := range stateFolders() {
				if err := c.make(t, filepath.Join(f.root, state)); err != nil {
					t.Fatal(err)
				}
				f.kinds = []string{state}
				_, err := f.hosts(slog.New(slog.DiscardHandler))
				if !errors.Is(err, reason.InstallFailed) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%s: %v, want InstallFailed that says %q", state, err, c.says)
				}
			}
			f.kinds = []string{"seccomp"}
			if _, err := f.hosts(slog.New(slog.DiscardHandler)); err != nil {
				t.Errorf("without those kinds: %v", err)
			}
		})
	}
	if len(stateFolders()) != 2 {
		t.Errorf("folders of kinds are %v", stateFolders())
	}
}
