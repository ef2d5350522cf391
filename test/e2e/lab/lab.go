// Package lab is a cluster of real nodes (test/kube/cluster) with Confine
// installed from its chart and image, a registry with TLS beside it, and keys to
// sign with. The end-to-end tests and `make cluster` play on it.
//
// It needs what cluster.Up needs, and bin/confine-image.tar of `make image`.
package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/test/kube/cluster"
	"github.com/confine-dev/confine/test/tools"
)

// Namespace is where Confine is installed.
const Namespace = "confine-system"

const (
	archiveFile = "bin/confine-image.tar"
	chartFolder = "deploy/chart/confine"
	// imageNameAnnotation is what hack/image writes the whole name into.
	imageNameAnnotation = "io.containerd.image.name"
	maxIndexBytes       = 1 << 20
)

// Options describe a lab.
type Options struct {
	// Root is the repository's folder, which holds bin and deploy.
	Root string
	// Name tells labs of one machine apart; empty is what `make cluster` makes.
	Name string
	// Nodes is how many nodes there are.
	Nodes int
	// NodeGrace is how long a silent node counts as ready; zero means 40 s.
	NodeGrace time.Duration
	// RemovalDelay of the agents; zero means what the chart says.
	RemovalDelay time.Duration
	// Log says what happens; nil means nowhere.
	Log *slog.Logger
}

// Lab is a cluster with a registry and keys. Confine is in it after Install.
type Lab struct {
	// Cluster is the cluster itself.
	Cluster *cluster.Cluster
	// Client is an administrator, who knows this project's kinds too.
	Client client.WithWatch
	// Core is the same for what only it does, such as reading logs.
	Core kubernetes.Interface
	// Registry serves what Push pushed.
	Registry *Registry

	options Options
	image   string
	helm    string
	log     *slog.Logger
}

// Up makes a lab: cluster, image on every node, registry and keys. If it fails,
// nothing is left.
func Up(ctx context.Context, o Options) (*Lab, error) {
	var err error
	if o.Root, err = filepath.Abs(o.Root); err != nil {
		return nil, err
	}
	l := &Lab{options: o, log: o.Log}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.image, err = imageName(l.root(archiveFile)); err != nil {
		return nil, fmt.Errorf("%w: make image builds it", err)
	}
	if _, err := os.Stat(l.program()); err != nil {
		return nil, fmt.Errorf("%w: make image builds it", err)
	}
	if l.helm, err = tools.Path(ctx, "helm"); err != nil {
		return nil, err
	}
	l.Cluster, err = cluster.Up(ctx, cluster.Options{
		Name: o.Name, Nodes: o.Nodes, NodeGrace: o.NodeGrace, Log: o.Log,
		Images: []string{l.root(archiveFile)},
	})
	if err != nil {
		return nil, err
	}
	if err := l.furnish(ctx); err != nil {
		return nil, errors.Join(err, l.Down(context.WithoutCancel(ctx)))
	}
	return l, nil
}

// furnish makes what a lab has beside its cluster.
func (l *Lab) furnish(ctx context.Context) error {
	if err := os.MkdirAll(l.file(), 0o700); err != nil {
		return err
	}
	config, err := l.Cluster.Config()
	if err != nil {
		return err
	}
	scheme := kruntime.NewScheme()
	for _, add := range []func(*kruntime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	if l.Client, err = client.NewWithWatch(config, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	if l.Core, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	if l.Registry, err = l.newRegistry(ctx); err != nil {
		return err
	}
	if err := l.Registry.Start(ctx); err != nil {
		return err
	}
	return errors.Join(l.makeKey(ctx, Team), l.makeKey(ctx, Stranger))
}

// Down ends and removes all of it.
func (l *Lab) Down(ctx context.Context) error { return l.Cluster.Down(ctx) }

// Remove removes what a lab of this name left, if anything.
func Remove(ctx context.Context, o Options) error {
	c, err := cluster.Open(cluster.Options{Name: o.Name, Log: o.Log})
	if err != nil {
		return err
	}
	return c.Down(ctx)
}

// root returns a path in the repository.
func (l *Lab) root(name string) string {
	return filepath.Join(l.options.Root, filepath.FromSlash(name))
}

// file returns a path in the lab's own folder.
func (l *Lab) file(elements ...string) string {
	return filepath.Join(append([]string{l.Cluster.Dir(), "lab"}, elements...)...)
}

// program is the confine that is in the image.
func (l *Lab) program() string { return l.root("bin/image/" + runtime.GOARCH + "/confine") }

// Confine runs the confine program as an administrator of the cluster, in the
// control plane's network, and returns what it printed. An error holds what it
// said on standard error, and is an *exec.ExitError where it said no.
func (l *Lab) Confine(ctx context.Context, args ...string) (string, error) {
	cmd := l.Cluster.Command(ctx, l.program(), args...)
	cmd.Env = append(os.Environ(), "COSIGN_PASSWORD="+password, "KUBECONFIG="+l.Cluster.Kubeconfig(), "NO_COLOR=1")
	return output(cmd)
}

// ConfineOnNode runs the confine program on a node, as its root.
func (l *Lab) ConfineOnNode(ctx context.Context, node int, args ...string) (string, error) {
	cmd, err := l.Cluster.NodeCommand(ctx, node, l.program(), args...)
	if err != nil {
		return "", err
	}
	return output(cmd)
}

func output(cmd *exec.Cmd) (string, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, errs.Bytes())
	}
	return out.String(), nil
}

// imageName reads the name that the image in an OCI archive is imported under.
func imageName(archive string) (string, error) {
	f, err := os.Open(archive)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for files := tar.NewReader(f); ; {
		header, err := files.Next()
		if err != nil {
			return "", fmt.Errorf("looking for %s in %s: %w", ocispec.ImageIndexFile, archive, err)
		}
		if header.Name != ocispec.ImageIndexFile {
			continue
		}
		var index ocispec.Index
		if err := json.NewDecoder(io.LimitReader(files, maxIndexBytes)).Decode(&index); err != nil {
			return "", fmt.Errorf("reading %s of %s: %w", ocispec.ImageIndexFile, archive, err)
		}
		if len(index.Manifests) != 1 || index.Manifests[0].Annotations[imageNameAnnotation] == "" {
			return "", fmt.Errorf("%s does not hold one image with a name", archive)
		}
		return index.Manifests[0].Annotations[imageNameAnnotation], nil
	}
}
