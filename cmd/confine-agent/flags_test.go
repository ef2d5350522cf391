package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/profile/seccomp/compile"
	"github.com/confine-dev/confine/pkg/reason"
)

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	folders := []string{"--manifests", dir, "--trust", dir, "--root", filepath.Join(dir, "root"), "--once"}
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"nothing":               {nil, exitUsage, "manifests"},
		"unknown flag":          {append(folders, "--x"), exitUsage, "--x"},
		"an argument":           {append(folders, "x"), exitUsage, "x"},
		"one folder":            {[]string{"--manifests", dir, "--root", dir}, exitUsage, "--trust"},
		"folders and a cluster": {append(folders, "--node-name", "n1"), exitUsage, "one or the other"},
		"once in a cluster":     {[]string{"--node-name", "n1", "--root", dir, "--once"}, exitUsage, "--once"},
		"a cluster's client":    {append(folders, "--kubeconfig", "x"), exitUsage, "--node-name"},
		"no root":               {[]string{"--node-name", "n1"}, exitUsage, "--root"},
		"no cluster":            {[]string{"--node-name", "n1", "--root", filepath.Join(dir, "root")}, exitRefused, "--kubeconfig"},
		"kubeconfig":            {[]string{"--node-name", "n1", "--root", filepath.Join(dir, "root"), "--kubeconfig", "/nonexistent"}, exitRefused, "/nonexistent"},
		"prepare, from root":    {[]string{"prepare", "--kubelet-root", dir, "--state", filepath.Join(dir, "root"), "--uid", "0", "--from-uid", "0"}, exitRefused, "ordinary user"},
		"prepare for no user":   {[]string{"prepare", "--kubelet-root", dir, "--state", filepath.Join(dir, "root"), "--uid", "-1"}, exitRefused, "ordinary user"},
		"prepare for nobody":    {[]string{"prepare", "--kubelet-root", dir}, exitUsage, "uid"},
		"log format":            {append(folders, "--log-format", "xml"), exitUsage, "xml"},
		"version":               {[]string{"--version"}, exitOK, ""},
		"resync":                {append(folders, "--resync", "0s"), exitRefused, "resync"},
		"delay":                 {append(folders, "--removal-delay", "-1s"), exitRefused, "removal-delay"},
		"docker config":         {append(folders, "--docker-config", "/nonexistent"), exitRefused, "/nonexistent"},
		"CA file":               {append(folders, "--ca-file", "/nonexistent"), exitRefused, "/nonexistent"},
		"trust folder":          {append(folders, "--trust", "/nonexistent"), exitRefused, string(reason.TrustPolicyInvalid)},
	} {
		if c.code == exitRefused && !strings.HasPrefix(name, "prepare") && !compile.Available() {
			c.says = string(reason.KindUnsupported) // before anything else
		}
		t.Run(name, func(t *testing.T) {
			var errs bytes.Buffer
			code := run(t.Context(), c.args, process{out: io.Discard, err: &errs, lookupEnv: func(string) (string, bool) { return "", false }})
			if code != c.code || !strings.Contains(errs.String(), c.says) {
				t.Errorf("exit code %d, %q; want %d, %q", code, errs.String(), c.code, c.says)
			}
			if _, err := os.Stat(filepath.Join(dir, "root")); !os.IsNotExist(err) {
				t.Errorf("the root was made: %v", err)
			}
		})
	}
}
