package store

import (
	"context"
	"path"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/node/unit"
	"github.com/confine-dev/confine/pkg/reason"
)

// maxGroup bounds the artifacts that go to the disk together.
const maxGroup = 32

// put is one artifact on its way to the disk.
type put struct {
	blobs  []blob
	record blob
	err    error
	// turn is closed when the artifact is done, or told to lead a group.
	turn chan bool
}

type blob struct {
	name   string
	digest digest.Digest // empty for a record
	data   []byte
}

// group collects the puts that come while others go to the disk: together they
// wait for it once. The first that finds nobody at work leads, and hands over.
type group struct {
	mu      sync.Mutex
	busy    bool
	waiting []*put
}

// Put keeps a verified artifact: blobs first, then the record that names them.
// Killed in between, it leaves blobs that a collection takes away. Puts at the
// same time share their waits for the disk; each fails alone.
func (s *Store) Put(ctx context.Context, art *artifact.Artifact) error {
	p, err := s.prepare(art)
	if err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := ctx.Err(); err != nil {
		return stopped(art.Evidence.Digest, err)
	}
	if s.group.join(p) {
		s.putAll(s.group.take())
		s.group.leave()
	}
	return p.err
}

// prepare checks all that can be checked without the disk.
func (s *Store) prepare(art *artifact.Artifact) (*put, error) {
	source := unit.Source{Repository: art.Evidence.Repository, Digest: art.Evidence.Digest}
	record, err := encodeRecord(recordOf(art))
	if err != nil {
		return nil, reason.New(reason.TooLarge, source.String(), "the evidence cannot be kept: %w", err)
	}
	if len(art.Evidence.Manifests) != len(art.Evidence.ManifestBytes) {
		return nil, reason.New(reason.InstallFailed, source.String(), "%d manifests have %d contents",
			len(art.Evidence.Manifests), len(art.Evidence.ManifestBytes))
	}
	p := &put{turn: make(chan bool, 1), record: blob{name: path.Join(evidenceDir, recordName(source)), data: record}}
	add := func(d digest.Digest, data []byte) error {
		name, err := blobName(d)
		if err != nil {
			return err
		}
		if got := digest.FromBytes(data); got != d {
			return reason.New(reason.DigestMismatch, d.String(), "the bytes to keep have the digest %s", got)
		}
		p.blobs = append(p.blobs, blob{name, d, data})
		return nil
	}
	for i, d := range art.Evidence.Manifests {
		if err := add(d, art.Evidence.ManifestBytes[i]); err != nil {
			return nil, err
		}
	}
	for _, payload := range art.Payloads {
		if err := add(payload.Digest, payload.Data); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// join adds p and waits until it is done, or until it has to lead a group.
func (g *group) join(p *put) (lead bool) {
	g.mu.Lock()
	g.waiting = append(g.waiting, p)
	lead = !g.busy
	g.busy = true
	g.mu.Unlock()
	return lead || <-p.turn
}

// take returns the puts of the next group, the leader's own among them.
func (g *group) take() []*put {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.waiting), maxGroup)
	taken := g.waiting[:n:n]
	g.waiting = slices.Clone(g.waiting[n:]) // holds no bytes of those taken
	return taken
}

// leave hands the lead to the first that waits.
func (g *group) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy = len(g.waiting) > 0; g.busy {
		g.waiting[0].turn <- true
	}
}

// putAll brings a group to the disk and tells all but its leader, the first.
func (s *Store) putAll(puts []*put) {
	batch := s.dir.Batch()
	entries := map[string]*durable.Staged{}
	mine := make([][]*durable.Staged, len(puts))
	for i, p := range puts {
		p.err = s.stage(batch, p, entries, &mine[i])
	}
	// The errors are looked up one by one below.
	_ = batch.Commit()
	for i, p := range puts {
		for _, e := range mine[i] {
			if err := e.Err(); err != nil && p.err == nil {
				p.err = durable.Explain(path.Join(s.dir.Path(), p.record.name), err)
			}
		}
		if i > 0 {
			p.turn <- false
		}
	}
}

// stage stages what of p is not there unharmed; entries are those of the whole
// group.
func (s *Store) stage(batch *durable.Batch, p *put, entries map[string]*durable.Staged, mine *[]*durable.Staged) error {
	for _, b := range p.blobs {
		if entries[b.name] == nil {
			if kept, err := s.dir.ReadFile(b.name, int64(len(b.data))); err == nil && digest.FromBytes(kept) == b.digest {
				continue
			}
			if err := s.makeRoom(b.name); err != nil {
				return err
			}
			entries[b.name] = batch.WriteFile(b.name, b.data, fileMode)
		}
		*mine = append(*mine, entries[b.name])
	}
	if err := s.makeRoom(p.record.name); err != nil {
		return err
	}
	record := batch.WriteFile(p.record.name, p.record.data, fileMode)
	record.After(*mine...)
	*mine = append(*mine, record)
	return nil
}

// makeRoom takes away a folder that stands where a file is to be written.
func (s *Store) makeRoom(name string) error {
	info, err := s.dir.Lstat(name)
	if err == nil && info.IsDir() {
		err = s.dir.RemoveAll(name)
		if err != nil {
			return durable.Explain(path.Join(s.dir.Path(), name), err)
		}
	}
	return nil
}
