package containers_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/profile/selinux/host/containers"
	"github.com/confine-dev/confine/pkg/reason"
)

const (
	config     = "etc/containerd/config.toml"
	socket     = "run/containerd/containerd.sock"
	crioSocket = "run/crio/crio.sock"

	version3on  = "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\n  enable_selinux = true\n"
	version3off = "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\n  enable_selinux = false\n"
	version2on  = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  enable_selinux = true\n"
)

// root makes a host's root folder of files; a content that begins with "-> " is
// a link.
func root(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		target, link := strings.CutPrefix(content, "-> ")
		var err error
		if link {
			err = os.Symlink(target, at)
		} else {
			err = os.WriteFile(at, []byte(content), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		// says is in the refusal; empty where containers get labels.
		says string
	}{
		"no runtime": {files: map[string]string{"etc/passwd": ""}},
		"docker's package of containerd, without docker": {files: map[string]string{
			config: "disabled_plugins = ['cri']\n", "usr/bin/containerd": ""}},

		"containerd without a configuration": {map[string]string{socket: "", "usr/bin/containerd": ""}, config},
		"an empty configuration":             {map[string]string{config: ""}, "enable_selinux"},
		"version 3, on":                      {files: map[string]string{config: version3on}},
		"version 3, off":                     {map[string]string{config: version3off}, "restart it"},
		"version 3, not said":                {map[string]string{config: "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\n"}, config},
		"version 2, on":                      {files: map[string]string{config: version2on}},
		"version 2, not said":                {map[string]string{config: "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\n  sandbox_image = 'x'\n"}, config},
		"version 1, on":                      {files: map[string]string{config: "[plugins.cri]\n  enable_selinux = true\n"}},
		"in a table of somebody else":        {map[string]string{config: "version = 3\nenable_selinux = true\n[plugins.'io.containerd.cri.v1.images']\nenable_selinux = true\n"}, config},
		"as text":                            {map[string]string{config: strings.Replace(version3on, "true", "'true'", 1)}, "neither true nor false"},
		"no TOML":                            {map[string]string{config: "{"}, "cannot be told"},
		"a folder":                           {map[string]string{config + "/x": ""}, "cannot be told"},
		"very long":                          {map[string]string{config: version3on + strings.Repeat("#", 1<<20)}, "exceeds"},

		"an import switches it on":        {files: map[string]string{config: "version = 3\nimports = ['/etc/containerd/conf.d/*.toml']\n", "etc/containerd/conf.d/selinux.toml": version3on}},
		"an import beside it":             {files: map[string]string{config: "version = 3\nimports = ['more.toml']\n", "etc/containerd/more.toml": version3on}},
		"an import of other endings":      {map[string]string{config: "version = 3\nimports = ['/etc/containerd/conf.d/*.toml']\n", "etc/containerd/conf.d/selinux.toml.bak": version3on}, config},
		"an import switches it off":       {map[string]string{config: "imports = ['off.toml']\n" + version3on, "etc/containerd/off.toml": version3off}, config},
		"an import says nothing of it":    {files: map[string]string{config: "imports = ['gpu.toml']\n" + version3on, "etc/containerd/gpu.toml": "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd]\ndefault_runtime_name = 'gpu'\n"}},
		"an import replaces the table":    {map[string]string{config: "imports = ['gpu.toml']\n" + version2on, "etc/containerd/gpu.toml": "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\ndefault_runtime_name = 'gpu'\n"}, config},
		"an import is missing":            {map[string]string{config: "imports = ['gone.toml']\n" + version3on}, "gone.toml"},
		"no folder of imports":            {files: map[string]string{config: "imports = ['/etc/containerd/conf.d/*.toml']\n" + version3on}},
		"imports in circles":              {files: map[string]string{config: "imports = ['config.toml', '/etc/containerd/config.toml']\n" + version3on}},
		"a pattern in a folder's name":    {map[string]string{config: "imports = ['/etc/*/x.toml']\n" + version3on}, "pattern"},
		"a link as the host sees it":      {files: map[string]string{"etc/containerd": "-> /opt/containerd", "opt/containerd/config.toml": version3on, socket: ""}},
		"a link out of the host":          {map[string]string{"etc/containerd": "-> ../../../../..", "usr/bin/containerd": ""}, "config.toml"},
		"k3s":                             {files: map[string]string{"run/k3s/containerd/containerd.sock": "", "var/lib/rancher/k3s/agent/etc/containerd/config.toml": version3on}},
		"k3s, without --selinux":          {map[string]string{"run/k3s/containerd/containerd.sock": "", "var/lib/rancher/k3s/agent/etc/containerd/config.toml": version3off}, "k3s"},
		"k3s runs, containerd does not":   {files: map[string]string{"usr/bin/containerd": "", "run/k3s/containerd/containerd.sock": "", "var/lib/rancher/k3s/agent/etc/containerd/config.toml": version3on}},
		"CRI-O":                           {files: map[string]string{crioSocket: "", "usr/bin/crio": "", "etc/crio/crio.conf.d/10-crio.conf": "[crio.image]\n"}},
		"CRI-O, no configuration seen":    {map[string]string{crioSocket: "", "usr/bin/crio": ""}, "cannot be told"},
		"CRI-O, off":                      {map[string]string{"usr/bin/crio": "", "etc/crio/crio.conf": "[crio.runtime]\nselinux = false\n"}, "crio.conf"},
		"CRI-O, off in a drop-in":         {map[string]string{"usr/bin/crio": "", "etc/crio/crio.conf.d/10-x.conf": "[crio.runtime]\nselinux = false\n"}, "drop-ins"},
		"CRI-O, something else":           {files: map[string]string{"usr/bin/crio": "", "etc/crio/crio.conf": "[crio.runtime]\nlog_level = 'info'\n[crio.image]\nselinux = false\n"}},
		"CRI-O, damaged":                  {map[string]string{"usr/bin/crio": "", "etc/crio/crio.conf": "[crio\n"}, "cannot be told"},
		"CRI-O runs, containerd does not": {files: map[string]string{"usr/bin/crio": "", crioSocket: "", config: version3off, "etc/crio/crio.conf": ""}},
		"CRI-O beside containerd":         {map[string]string{"usr/bin/crio": "", crioSocket: "", config: version3off, socket: "", "etc/crio/crio.conf": ""}, "containerd"},

		"docker":                   {map[string]string{"usr/bin/dockerd": "", config: "disabled_plugins = ['cri']\n", socket: ""}, "selinux-enabled"},
		"docker, on":               {files: map[string]string{"usr/bin/dockerd": "", "etc/docker/daemon.json": `{"selinux-enabled": true}`}},
		"docker, off":              {map[string]string{"usr/bin/dockerd": "", "etc/docker/daemon.json": `{"debug": true}`}, "daemon.json"},
		"docker, damaged":          {map[string]string{"usr/bin/dockerd": "", "etc/docker/daemon.json": `{`}, "cannot be told"},
		"docker beside containerd": {files: map[string]string{"usr/bin/dockerd": "", config: version3on}},
	} {
		t.Run(name, func(t *testing.T) {
			err := containers.Check(containers.Options{HostRoot: root(t, c.files)})
			if c.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			e, ok := reason.Of(err)
			if !ok || e.Reason != reason.KindUnsupported || !strings.Contains(e.Error()+" "+e.WhatToDo(), c.says) {
				t.Errorf("%v, want KindUnsupported that says %q", err, c.says)
			}
		})
	}
}

// TestAHostOfPodsHasARuntime: what is seen of it may be little.
func TestAHostOfPodsHasARuntime(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		says  string
	}{
		"nothing is seen":        {map[string]string{"etc/containerd/.keep": "", "usr/bin/runc": ""}, "agent.runtimeConfig"},
		"only docker":            {map[string]string{"usr/bin/dockerd": "", "etc/docker/daemon.json": `{"selinux-enabled": true}`}, "agent.runtimeConfig"},
		"containerd for docker":  {map[string]string{"usr/bin/containerd": "", config: "disabled_plugins = ['cri']\n"}, "agent.runtimeConfig"},
		"its binary alone":       {map[string]string{"usr/bin/containerd": ""}, config},
		"containerd, off":        {map[string]string{config: version3off}, "restart it"},
		"containerd, on":         {files: map[string]string{config: version3on}},
		"k3s, its configuration": {files: map[string]string{"var/lib/rancher/k3s/agent/etc/containerd/config.toml": version3on}},
	} {
		t.Run(name, func(t *testing.T) {
			err := containers.Check(containers.Options{HostRoot: root(t, c.files), Pods: true})
			if c.says == "" && err == nil {
				return
			}
			e, ok := reason.Of(err)
			if !ok || e.Reason != reason.KindUnsupported || c.says == "" || !strings.Contains(e.Error()+" "+e.WhatToDo(), c.says) {
				t.Errorf("%v, want KindUnsupported that says %q", err, c.says)
			}
		})
	}
}

func TestCheckIsBounded(t *testing.T) {
	files := map[string]string{config: "imports = ['0.toml']\nversion = 3\n"}
	for i := range 100 {
		files[fmt.Sprintf("etc/containerd/%d.toml", i)] = fmt.Sprintf("version = 3\nimports = ['%d.toml']\n", i+1)
	}
	if err := containers.Check(containers.Options{HostRoot: root(t, files)}); !errors.Is(err, reason.KindUnsupported) || !strings.Contains(err.Error(), "more than") {
		t.Error(err)
	}
}

func TestARootThatIsNotThereIsNoHostWithoutRuntimes(t *testing.T) {
	if err := containers.Check(containers.Options{HostRoot: filepath.Join(t.TempDir(), "gone")}); !errors.Is(err, reason.KindUnsupported) {
		t.Error(err)
	}
}

func TestGuard(t *testing.T) {
	memory := profiletest.NewMemoryHost("selinux")
	dir := root(t, map[string]string{config: version3off})
	h := containers.Guard(memory, containers.Options{HostRoot: dir})
	unit := profile.Unit{Owner: profile.Owner{Namespace: "web", Name: "nginx"}, Digest: digest.FromString("x"), Files: []profile.File{{Name: "a.cil", Data: []byte("x")}}}
	if err := h.Supported(t.Context()); !errors.Is(err, reason.KindUnsupported) {
		t.Error(err)
	}
	if o := h.Install(t.Context(), []profile.Unit{unit}); len(o) != 1 || !errors.Is(o[0].Err, reason.KindUnsupported) || memory.Installs() != 0 {
		t.Errorf("%+v, %d installs", o, memory.Installs())
	}
	if err := os.WriteFile(filepath.Join(dir, config), []byte(version3on), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := h.Install(t.Context(), []profile.Unit{unit}); len(o) != 1 || o[0].Err != nil || !o[0].Changed {
		t.Errorf("%+v", o)
	}
	memory.SetUnsupported(true)
	if err := h.Supported(t.Context()); err == nil || !strings.Contains(err.Error(), "told not to") {
		t.Errorf("the host's own refusal is %v", err)
	}
	if o := h.Remove(t.Context(), []profile.Owner{unit.Owner}); len(o) != 1 || o[0].Err != nil || !o[0].Changed {
		t.Errorf("removal: %+v", o)
	}
}

func TestGuardedHostsAreHosts(t *testing.T) {
	profiletest.RunHost(t, profiletest.HostCase{
		Machine: func(t *testing.T) profiletest.Machine {
			memory, dir := profiletest.NewMemoryHost("selinux"), root(t, nil)
			return profiletest.Machine{
				Open: func(before func() error) (profile.Host, error) {
					memory.SetBefore(before)
					return containers.Guard(memory, containers.Options{HostRoot: dir}), nil
				},
				Unsupported: func() (profile.Host, error) {
					return containers.Guard(memory, containers.Options{HostRoot: root(t, map[string]string{config: version3off})}), nil
				},
				State: memory.State,
				Drift: map[string]func(profile.Installed) error{
					"a missing unit": func(in profile.Installed) error { memory.Forget(in.Owner); return nil },
				},
			}
		},
		Files: func(v profiletest.Variant) []profile.File {
			a, b := profile.File{Name: "a", Data: []byte(v)}, profile.File{Name: "b", Data: []byte("b" + v)}
			if v == profiletest.Fewer {
				return []profile.File{{Name: "a", Data: []byte(profiletest.First)}}
			}
			return []profile.File{a, b}
		},
	})
}
