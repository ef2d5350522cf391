// Package containers finds out whether the container runtimes of a host give
// containers SELinux labels. containerd's default is not to: then every
// container runs under the runtime's own label, a profile is loaded and
// confines nobody, and no error says so.
//
// Only files are read: which runtimes are there, and how they are configured.
// What cannot be told counts as not labelled.
package containers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// runtime is one container runtime as some distribution installs it.
type runtime struct {
	name string
	// sockets are where it listens while it runs; signs are files that are there
	// where it is installed.
	sockets, signs []string
	config         string
	// labels reports whether the configuration switches labels on. A runtime
	// that is there for something else than pods is errNotForPods.
	labels func(h host, config string) (bool, error)
	advice string
}

var errNotForPods = errors.New("it runs no pods")

const (
	containerdAdvice = `set enable_selinux = true in the table [plugins."io.containerd.cri.v1.runtime"] (containerd 1: "io.containerd.grpc.v1.cri") of %s, and restart it`
	crioAdvice       = "take selinux = false out of %s and its drop-ins, and restart crio"
	dockerAdvice     = `set "selinux-enabled": true in %s, and restart docker`
)

// forPods are the runtimes that a kubelet may use.
func forPods() []runtime {
	containerd := func(config string, sockets, signs []string) runtime {
		return runtime{name: "containerd", sockets: sockets, signs: append(signs, config), config: config, labels: containerdLabels, advice: containerdAdvice}
	}
	rancher := []string{"/run/k3s/containerd/containerd.sock"}
	return []runtime{
		containerd("/etc/containerd/config.toml", []string{"/run/containerd/containerd.sock"}, []string{"/usr/bin/containerd", "/usr/local/bin/containerd"}),
		containerd("/var/lib/rancher/k3s/agent/etc/containerd/config.toml", rancher, nil),
		containerd("/var/lib/rancher/rke2/agent/etc/containerd/config.toml", rancher, nil),
		containerd("/etc/k0s/containerd.toml", []string{"/run/k0s/containerd.sock"}, nil),
		containerd("/var/snap/microk8s/current/args/containerd.toml", []string{"/var/snap/microk8s/common/run/containerd.sock"}, nil),
		{
			name: "CRI-O", sockets: []string{"/run/crio/crio.sock"}, signs: []string{"/usr/bin/crio", "/usr/local/bin/crio"},
			config: "/etc/crio/crio.conf", labels: crioLabels, advice: crioAdvice,
		},
	}
}

// others are asked where no runtime for pods is there.
func others() []runtime {
	return []runtime{{
		name: "docker", sockets: []string{"/run/docker.sock"}, signs: []string{"/usr/bin/dockerd"},
		config: "/etc/docker/daemon.json", labels: dockerLabels, advice: dockerAdvice,
	}}
}

// Check returns nil where all runtimes of the host that run, or otherwise all
// that are installed, label containers; and where there is none on a host that
// need not run pods. Otherwise the error is KindUnsupported.
func Check(opts Options) error {
	h, err := open(opts.HostRoot)
	if err != nil {
		return unknown("the host's root", err)
	}
	defer h.close()
	found, err := h.check(forPods())
	if found || err != nil {
		return err
	}
	if opts.Pods {
		return unknown("this host", errors.New("no container runtime, or none whose configuration is known, was found")).
			WithAdvice("let the agent see the runtime's configuration below its --host-root (agent.runtimeConfig of the Helm chart)")
	}
	_, err = h.check(others())
	return err
}

// Guard returns h as a Host that supports its kind only where the runtimes of the
// host label containers; see Check.
func Guard(h profile.Host, opts Options) profile.Host { return guarded{h, opts} }

// Options say what host it is.
type Options struct {
	// HostRoot is the host's root folder; empty for this process's own.
	HostRoot string
	// Pods is set where the host runs pods: then it has a runtime, and one that
	// is not found is one whose configuration cannot be seen.
	Pods bool
}

type guarded struct {
	profile.Host
	opts Options
}

// Supported is the host's own refusal, or that of Check.
func (g guarded) Supported(ctx context.Context) error {
	if err := g.Host.Supported(ctx); err != nil {
		return err
	}
	return Check(g.opts)
}

// Install refuses where the kind is not supported. See profile.Host.
func (g guarded) Install(ctx context.Context, units []profile.Unit) []profile.Outcome {
	err := g.Supported(ctx)
	if err == nil {
		return g.Host.Install(ctx, units)
	}
	outcomes := make([]profile.Outcome, len(units))
	for i := range outcomes {
		outcomes[i].Err = err
	}
	return outcomes
}

// check judges those of a group that are there, and reports whether any is.
func (h host) check(group []runtime) (bool, error) {
	running, installed, err := h.find(group)
	if err != nil {
		return false, unknown("what runtimes the host has", err)
	}
	if len(running) > 0 {
		installed = running
	}
	found := false
	for _, r := range installed {
		on, err := r.labels(h, r.config)
		switch {
		case errors.Is(err, errNotForPods):
			continue
		case err != nil:
			return true, unknown(r.config, err)
		case !on:
			return true, reason.New(reason.KindUnsupported, "selinux", "%s on this host gives containers no SELinux labels, by %s", r.name, r.config).
				WithAdvice(r.advice, r.config)
		}
		found = true
	}
	return found, nil
}

// find returns the runtimes whose socket is there, and those that are installed.
// Of several that would share a socket those count that have a configuration.
func (h host) find(group []runtime) (running, installed []runtime, err error) {
	for _, r := range group {
		listens, err := h.anyOf(r.sockets)
		if err != nil {
			return nil, nil, err
		}
		there, err := h.anyOf(r.signs)
		if err != nil {
			return nil, nil, err
		}
		if there {
			installed = append(installed, r)
			if listens {
				running = append(running, r)
			}
		}
	}
	return running, installed, nil
}

func (h host) anyOf(names []string) (bool, error) {
	for _, name := range names {
		there, err := h.exists(name)
		if there || err != nil {
			return there, err
		}
	}
	return false, nil
}

func unknown(what string, err error) *reason.Error {
	return reason.New(reason.KindUnsupported, "selinux", "whether containers get SELinux labels cannot be told from %s: %w", what, err).
		WithAdvice("see that the agent can read it below its --host-root, and that it is well-formed")
}

// dockerLabels reads docker's daemon.json. Labels are off by default
// (https://docs.docker.com/reference/cli/dockerd/, selinux-enabled).
func dockerLabels(h host, config string) (bool, error) {
	data, err := h.read(config)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var daemon struct {
		On bool `json:"selinux-enabled"`
	}
	if err := json.Unmarshal(data, &daemon); err != nil {
		return false, fmt.Errorf("%s: %w", config, err)
	}
	return daemon.On, nil
}

// crioLabels reads CRI-O's configuration and its drop-ins. Labels are on by
// default where the host has SELinux
// (https://github.com/cri-o/cri-o/discussions/6511); any file that switches them
// off counts, whatever comes after it. Where there is no file at all there may be
// some that are not seen: CRI-O's packages bring one.
func crioLabels(h host, config string) (bool, error) {
	files := []string{config}
	dropIns, err := h.list(config + ".d")
	if err != nil {
		return false, err
	}
	for _, name := range dropIns {
		files = append(files, config+".d/"+name)
	}
	read := 0
	for _, name := range files {
		tables, err := h.toml(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		read++
		if on, said, err := boolean(tables, "crio", "runtime", "selinux"); err != nil || said && !on {
			return false, err
		}
	}
	if read == 0 {
		return false, fmt.Errorf("neither it nor %s.d has a file", config)
	}
	return true, nil
}

// boolean looks up a setting by its path, and whether it is there.
func boolean(tables map[string]any, path ...string) (value, said bool, err error) {
	for i, key := range path {
		found, ok := tables[key]
		if !ok {
			return false, false, nil
		}
		if i == len(path)-1 {
			value, ok = found.(bool)
			if !ok {
				return false, false, fmt.Errorf("%s is neither true nor false", strings.Join(path, "."))
			}
			return value, true, nil
		}
		if tables, ok = found.(map[string]any); !ok {
			return false, false, fmt.Errorf("%s is no table", strings.Join(path[:i+1], "."))
		}
	}
	return false, false, nil
}
