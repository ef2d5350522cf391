package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/durable"
)

const (
	// cacheFolder is below the agent's root, cacheName in it.
	cacheFolder = "cluster"
	cacheName   = "known.json"

	maxCacheBytes = 64 << 20
	cacheVersion  = 1

	rootMode      fs.FileMode = 0o755 // as the agent makes it
	cacheDirMode  fs.FileMode = 0o700
	cacheFileMode fs.FileMode = 0o600
)

// kept is what is known of the cluster, for a start without an API server.
type kept struct {
	// Node is the node's name: what belongs to another node counts for nothing.
	Node string
	// Spec is that of the ProfileNode; nil where it was never read.
	Spec []byte
	// Policies by name; nil where they were never read.
	Policies map[string][]byte
}

// cacheFile keeps one kept on the disk. It is not safe for concurrent use.
type cacheFile struct {
	dir *durable.Dir
	// written is the digest of what is on the disk; empty where not known.
	written digest.Digest
}

// envelope is the file. Sum is over the bytes of Known as they stand.
type envelope struct {
	Version int             `json:"version"`
	Sum     digest.Digest   `json:"sum"`
	Known   json.RawMessage `json:"known"`
}

// known is kept as it is encoded.
type known struct {
	Node     string                     `json:"node"`
	Spec     json.RawMessage            `json:"spec,omitempty"`
	Policies map[string]json.RawMessage `json:"policies"`
}

// openCache opens the folder below an agent's root.
func openCache(root string, before func(durable.Step) error) (*cacheFile, error) {
	whole, err := durable.Open(root, durable.Options{Before: before, Perm: rootMode})
	if err != nil {
		return nil, durable.Explain(root, err)
	}
	defer func() { _ = whole.Close() }()
	err = whole.MkdirAll(cacheFolder, cacheDirMode)
	if err == nil {
		err = whole.SweepTemp(cacheFolder)
	}
	var dir *durable.Dir
	if err == nil {
		dir, err = whole.Sub(cacheFolder)
	}
	if err != nil {
		return nil, durable.Explain(filepath.Join(root, cacheFolder), err)
	}
	return &cacheFile{dir: dir}, nil
}

func (c *cacheFile) name() string { return filepath.Join(c.dir.Path(), cacheName) }

func (c *cacheFile) close() error { return c.dir.Close() }

// load reads what was kept for a node. What is not there, or of another node,
// is empty and no error; what is damaged is an error, and counts for nothing.
func (c *cacheFile) load(node string) (kept, error) {
	data, err := c.dir.ReadFile(cacheName, maxCacheBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return kept{}, nil
	}
	if err != nil {
		return kept{}, err
	}
	k, err := decodeKept(data)
	if err != nil || k.Node != node {
		return kept{}, err
	}
	c.written = digest.FromBytes(data)
	return k, nil
}

// save writes k, unless that is what was written last.
func (c *cacheFile) save(k kept) error {
	data, err := encodeKept(k)
	if err != nil {
		return err
	}
	sum := digest.FromBytes(data)
	if sum == c.written {
		return nil
	}
	c.written = "" // until it is known what is there
	if err := c.dir.WriteFile(cacheName, data, cacheFileMode); err != nil {
		return err
	}
	c.written = sum
	return nil
}

func encodeKept(k kept) ([]byte, error) {
	encoded := known{Node: k.Node, Spec: k.Spec}
	if k.Policies != nil {
		encoded.Policies = make(map[string]json.RawMessage, len(k.Policies))
		for name, policy := range k.Policies {
			encoded.Policies[name] = policy
		}
	}
	raw, err := json.Marshal(encoded)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(envelope{Version: cacheVersion, Sum: digest.FromBytes(raw), Known: raw})
	if err == nil && len(data) > maxCacheBytes {
		err = fmt.Errorf("%d bytes exceed %d", len(data), maxCacheBytes)
	}
	return data, err
}

func decodeKept(data []byte) (kept, error) {
	var e envelope
	if err := decodeExactly(data, &e); err != nil {
		return kept{}, err
	}
	if e.Version != cacheVersion {
		return kept{}, fmt.Errorf("it has version %d, not %d", e.Version, cacheVersion)
	}
	if digest.FromBytes(e.Known) != e.Sum {
		return kept{}, errors.New("its checksum does not match")
	}
	var decoded known
	if err := decodeExactly(e.Known, &decoded); err != nil {
		return kept{}, err
	}
	k := kept{Node: decoded.Node, Spec: decoded.Spec}
	if decoded.Policies != nil {
		k.Policies = make(map[string][]byte, len(decoded.Policies))
		for name, policy := range decoded.Policies {
			k.Policies[name] = policy
		}
	}
	return k, nil
}

func decodeExactly(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after its end")
	}
	return nil
}
