package cluster

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// DirEnv names the environment variable that moves the folder with the clusters.
const DirEnv = "CONFINE_CLUSTER_DIR"

const (
	defaultName = "confine"
	// maxNodes keeps a node's number in one octet of its addresses.
	maxNodes = 100
	// idBytes is short, since the name of a network interface has 15 bytes at most.
	idBytes = 4
)

// Options describe a cluster. The zero value is one without nodes.
type Options struct {
	// Name tells clusters of one folder apart; empty means "confine".
	Name string
	// Dir is where clusters keep their state, each in a folder called after it.
	// Empty means DirEnv, else confine/cluster in the user's cache folder. It
	// must not be below /run, /var/lib or /var/log, where nodes have their own.
	Dir string
	// Nodes is how many nodes to start, at most 100.
	Nodes int
	// Images are OCI archives that every node imports at each boot, beside
	// pause and busybox (package image).
	Images []string
	// NodeGrace is how long a silent node counts as ready; zero means 40 s, as
	// Kubernetes has it. Its pods are evicted 5 minutes later.
	NodeGrace time.Duration
	// Log says what happens; nil means nowhere.
	Log *slog.Logger
}

// Cluster is a cluster that is up, or was.
type Cluster struct {
	dir  string
	id   string
	log  *slog.Logger
	seen settings
}

// settings are what of the options outlives the process, in the file "cluster.json".
type settings struct {
	NodeGrace time.Duration
}

// Open returns the cluster of these options as another process left it, without
// a look at whether it is up. Only Name, Dir and Log count.
func Open(o Options) (*Cluster, error) {
	name := cmp.Or(o.Name, defaultName)
	if !regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`).MatchString(name) {
		return nil, fmt.Errorf("cluster %q: a name is 1 to 31 of a-z, 0-9 and -", name)
	}
	dir := cmp.Or(o.Dir, os.Getenv(DirEnv))
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, err
		}
		dir = filepath.Join(cache, "confine", "cluster")
	}
	dir, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	for _, hidden := range []string{"/run", "/var/run", "/var/lib", "/var/log", "/proc", "/sys"} {
		if strings.HasPrefix(dir+"/", hidden+"/") {
			return nil, fmt.Errorf("a cluster cannot be kept in %s: nodes have a %s of their own", dir, hidden)
		}
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Cluster{dir: dir, id: idOf(dir), log: log}
	if err := c.load(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return c, nil
}

// idOf derives what is in the names of namespaces and cgroups.
func idOf(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return "confine-" + hex.EncodeToString(sum[:idBytes])
}

// Dir returns the folder with the cluster's state, logs and credentials.
func (c *Cluster) Dir() string { return c.dir }

// file returns a path below the cluster's folder.
func (c *Cluster) file(elements ...string) string {
	return filepath.Join(append([]string{c.dir}, elements...)...)
}

// NodeName returns what Kubernetes calls node n, counted from 1.
func NodeName(n int) string { return fmt.Sprintf("node%d", n) }

// NodeDisk returns the folder that node n has as /var/lib: its kubelet's
// seccomp profiles are below kubelet/seccomp. It outlives the node's death.
func (c *Cluster) NodeDisk(n int) string { return c.file("nodes", NodeName(n), "lib") }

// ControlAddress is where the control plane's namespace is reached from nodes
// and pods: what Command starts can serve there.
const ControlAddress = "10.99.0.1"

// NodeAddress returns the address of node n and of its hostNetwork pods.
func NodeAddress(n int) string { return fmt.Sprintf("10.99.0.%d", nodeOctet+n) }

const (
	nodeOctet      = 10
	serviceAddress = "10.96.0.1"
	serviceRange   = "10.96.0.0/16"
	bridge         = "nodes"
)

func podRange(n int) string { return fmt.Sprintf("10.88.%d.0/24", n) }

// netns returns the name of the control plane's network namespace.
func (c *Cluster) netns() string { return c.id }

func (c *Cluster) nodeNetns(n int) string { return fmt.Sprintf("%s-%d", c.id, n) }
