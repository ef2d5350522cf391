package apitest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/confine-dev/confine/test/tools"
)

const (
	// startTimeout bounds each step of the start: the machine may be small, and
	// compile at the same time.
	startTimeout = 2 * time.Minute
	startTries   = 3
	pollInterval = 20 * time.Millisecond
)

// Options say what differs from the usual. The zero value is good.
type Options struct {
	// CRDs are files or folders with CustomResourceDefinitions. Nil means
	// deploy/crds of this project; an empty, non-nil slice means none.
	CRDs []string
	// Flags are set for kube-apiserver, without the leading dashes, over what
	// is there already.
	Flags map[string]string
}

// Env is a running API server. Its methods may be called from several
// goroutines, but not while Stop runs.
type Env struct {
	dir     folder
	kubectl string
	plane   *envtest.ControlPlane
	admin   *rest.Config
	thread  *thread
}

// New starts a server for one test or benchmark and stops it at its end.
func New(t testing.TB) *Env {
	t.Helper()
	e, err := Start(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Stop(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// Start starts etcd and kube-apiserver, building them first where they are not
// in the cache of tools, installs the CRDs and waits until they are served. The
// working directory must be inside of this module, as it is in tests. The
// caller stops it.
func Start(ctx context.Context, o Options) (*Env, error) {
	kubectl, err := tools.Path(ctx, "kube/kubectl")
	if err != nil {
		return nil, err
	}
	dir, err := newFolder(os.TempDir())
	if err != nil {
		return nil, fmt.Errorf("folder of the API server: %w", err)
	}
	e := &Env{dir: dir, kubectl: kubectl, thread: startThread()}
	if err := e.start(ctx, o); err != nil {
		err = fmt.Errorf("starting an API server: %w\n%s", err, e.logTail())
		return nil, errors.Join(err, e.Stop())
	}
	return e, nil
}

func (e *Env) start(ctx context.Context, o Options) error {
	// Without a logger controller-runtime complains after half a minute.
	ctrllog.SetLogger(logr.FromSlogHandler(slog.Default().Handler()))
	if o.CRDs == nil {
		root, err := moduleRoot()
		if err != nil {
			return err
		}
		o.CRDs = []string{filepath.Join(root, "deploy", "crds")}
	}
	if err := e.startPlane(ctx, o.Flags); err != nil {
		return err
	}
	admin, err := e.plane.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		return err
	}
	e.admin = admin.Config()
	if err := waitForNamespaces(ctx, e.Config()); err != nil {
		return err
	}
	_, err = envtest.InstallCRDs(e.Config(), envtest.CRDInstallOptions{
		Paths: o.CRDs, ErrorIfPathMissing: true, MaxTime: startTimeout, PollInterval: pollInterval,
	})
	return err
}

// startPlane starts etcd and kube-apiserver. Their ports are chosen before they
// are opened, so another process may take one: then it chooses again.
func (e *Env) startPlane(ctx context.Context, flags map[string]string) error {
	var paths [2]string
	for i, name := range []string{"etcd", "kube/kube-apiserver"} {
		bin, err := tools.Path(ctx, name)
		if err != nil {
			return err
		}
		if paths[i], err = e.dir.tether(bin); err != nil {
			return err
		}
	}
	var failures []error
	for range startTries {
		log, err := e.dir.prepare()
		if err != nil {
			return err
		}
		server := &envtest.APIServer{Path: paths[1], CertDir: e.dir.file(pkiFolder), StartTimeout: startTimeout, Out: log, Err: log}
		// The server refuses to advertise loopback, and to start where the machine
		// has no other address. Nobody uses this one (RFC 5737).
		server.Configure().Set("advertise-address", "192.0.2.1")
		for _, name := range slices.Sorted(maps.Keys(flags)) {
			server.Configure().Set(name, flags[name])
		}
		e.plane = &envtest.ControlPlane{
			APIServer:   server,
			Etcd:        &envtest.Etcd{Path: paths[0], DataDir: e.dir.file(etcdFolder), StartTimeout: startTimeout, Err: log},
			KubectlPath: e.kubectl,
		}
		err = errors.Join(e.thread.do(e.plane.Start), log.Close())
		if err == nil {
			return nil
		}
		failures = append(failures, err)
	}
	e.plane = nil // what it started it has stopped
	return errors.Join(failures...)
}

// waitForNamespaces waits for what the API server makes at its first start.
func waitForNamespaces(ctx context.Context, c *rest.Config) error {
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return err
	}
	for _, name := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem} {
		err := wait.PollUntilContextTimeout(ctx, pollInterval, startTimeout, true, func(ctx context.Context) (bool, error) {
			_, err := client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
			return err == nil, nil
		})
		if err != nil {
			return fmt.Errorf("waiting for namespace %s: %w", name, err)
		}
	}
	return nil
}

// Stop stops the server and removes all that it kept.
func (e *Env) Stop() error {
	var err error
	if e.plane != nil {
		err = e.thread.do(e.plane.Stop)
	}
	e.thread.end()
	return errors.Join(err, e.dir.remove())
}

// StopAPIServer stops kube-apiserver and keeps etcd, as in an outage. Its
// address refuses connections until StartAPIServer.
func (e *Env) StopAPIServer() error { return e.thread.do(e.plane.APIServer.Stop) }

// StartAPIServer starts kube-apiserver again at its old address with its old
// keys, so that clients and tokens of before are good, and waits until it is ready.
func (e *Env) StartAPIServer() error { return e.thread.do(e.plane.APIServer.Start) }

// RestartAPIServer is StopAPIServer and StartAPIServer in one.
func (e *Env) RestartAPIServer() error {
	if err := e.StopAPIServer(); err != nil {
		return err
	}
	return e.StartAPIServer()
}

// EtcdURL returns the address at which etcd serves clients, without TLS.
func (e *Env) EtcdURL() string { return e.plane.Etcd.URL.String() }

// Config returns a copy of the configuration of an administrator
// (system:masters), without a limit on requests.
func (e *Env) Config() *rest.Config { return unlimited(e.admin) }

// ConfigFor returns a configuration for a user with a name and groups;
// system:authenticated comes by itself.
func (e *Env) ConfigFor(user string, groups ...string) (*rest.Config, error) {
	made, err := e.plane.AddUser(envtest.User{Name: user, Groups: groups}, nil)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", user, err)
	}
	return unlimited(made.Config()), nil
}

// ConfigForToken returns a configuration that authenticates by a bearer token.
func (e *Env) ConfigForToken(token string) *rest.Config {
	anonymous := rest.AnonymousClientConfig(e.admin)
	anonymous.BearerToken = token
	return unlimited(anonymous)
}

func unlimited(c *rest.Config) *rest.Config {
	c = rest.CopyConfig(c)
	c.QPS, c.Burst = -1, 0
	return c
}

// Kubectl returns the path of kubectl of the server's version.
func (e *Env) Kubectl() string { return e.kubectl }

// Kubeconfig renders a configuration as the file that kubectl and other
// programs read. It holds credentials: give it mode 0600.
func Kubeconfig(c *rest.Config) ([]byte, error) {
	const name = "test"
	return clientcmd.Write(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{name: {
			Server: c.Host, CertificateAuthorityData: c.CAData,
		}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{name: {
			ClientCertificateData: c.CertData, ClientKeyData: c.KeyData, Token: c.BearerToken,
		}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	})
}

// moduleRoot returns the folder with the go.mod around the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod around the working directory")
		}
		dir = parent
	}
}
