// Package store keeps what artifacts rest on, so that a node can judge them
// again without a registry: blobs by digest, and evidence by source.
//
//	store/blobs/sha256/<hex>   manifests and payloads, re-hashed before every use
//	store/evidence/<hex>.json  one record a source: signatures and what belongs together
//	store/units/<hex>.json     descriptions of units that hold dropped files
//
// It holds no verdict: whoever reads from it judges again. Everything in it can
// be fetched again, so what is damaged counts as missing.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/node/unit"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

const (
	blobsDir    = "blobs/sha256"
	evidenceDir = "evidence"
	unitsDir    = "units"

	fileMode fs.FileMode = 0o600
	dirMode  fs.FileMode = 0o700
)

// Options adjust a Store. The zero value works.
type Options struct {
	// Before is called before every change to the disk; see durable.Options.
	Before func(durable.Step) error
}

// Store is safe for concurrent use by one process.
type Store struct {
	dir *durable.Dir
	// mu keeps a collection from taking the blobs of a Put that has not
	// written its record yet.
	mu    sync.RWMutex
	group group
}

// Open opens the store in the folder path, makes it where it is missing and
// sweeps what killed writes left. The error is a *reason.Error.
func Open(path string, opts Options) (*Store, error) {
	dir, err := durable.Open(path, durable.Options{Before: opts.Before, Perm: dirMode})
	if err != nil {
		return nil, durable.Explain(path, err)
	}
	for _, folder := range []string{blobsDir, evidenceDir, unitsDir} {
		if err = dir.MkdirAll(folder, dirMode); err == nil {
			err = dir.SweepTemp(folder)
		}
		if err != nil {
			return nil, errors.Join(durable.Explain(path, err), dir.Close())
		}
	}
	return &Store{dir: dir}, nil
}

// Close releases the store's folder.
func (s *Store) Close() error { return s.dir.Close() }

// write replaces name, whatever stands there.
func (s *Store) write(name string, data []byte) error {
	if err := s.makeRoom(name); err != nil {
		return err
	}
	if err := s.dir.WriteFile(name, data, fileMode); err != nil {
		return durable.Explain(path.Join(s.dir.Path(), name), err)
	}
	return nil
}

// Record returns the evidence of a source. A missing one is ArtifactNotFound,
// a damaged one DigestMismatch.
func (s *Store) Record(source unit.Source) (Record, error) {
	data, err := s.dir.ReadFile(path.Join(evidenceDir, recordName(source)), MaxRecordBytes)
	if err != nil {
		return Record{}, unread(source.String(), err)
	}
	record, err := DecodeRecord(data)
	if err != nil {
		return Record{}, reason.New(reason.DigestMismatch, source.String(), "the kept evidence is damaged: %w", err)
	}
	if record.Source() != source {
		return Record{}, reason.New(reason.DigestMismatch, source.String(), "the kept evidence is that of %s", record.Source())
	}
	return record, nil
}

// File returns the bytes of one payload, re-hashed.
func (s *Store) File(ctx context.Context, f unit.File) ([]byte, error) {
	return s.blob(ctx, f.Digest, min(f.Size, profile.MaxPayloadBytes))
}

// blob reads at most limit bytes and compares them with d.
func (s *Store) blob(ctx context.Context, d digest.Digest, limit int64) ([]byte, error) {
	name, err := blobName(d)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, stopped(d, err)
	}
	data, err := s.dir.ReadFile(name, limit)
	if err != nil {
		return nil, unread(d.String(), err)
	}
	if got := digest.FromBytes(data); got != d {
		return nil, reason.New(reason.DigestMismatch, d.String(), "the kept bytes have the digest %s", got)
	}
	return data, nil
}

// PutUnit keeps the description of a unit that holds dropped files, so that a
// lost journal can be made anew.
func (s *Store) PutUnit(r unit.Revision) error {
	if err := r.Check(); err != nil {
		return reason.New(reason.InstallFailed, r.Source.String(), "the unit cannot be described: %w", err)
	}
	return s.write(unitName(r.Digest()), r.Encode())
}

// Unit returns the description of which d is the digest.
func (s *Store) Unit(d digest.Digest) (unit.Revision, error) {
	if _, err := blobName(d); err != nil {
		return unit.Revision{}, err
	}
	data, err := s.dir.ReadFile(unitName(d), unit.MaxBytes)
	if err != nil {
		return unit.Revision{}, unread(d.String(), err)
	}
	r, err := unit.Decode(data)
	if err == nil && r.Digest() != d {
		err = fmt.Errorf("it has the digest %s", r.Digest())
	}
	if err != nil {
		return unit.Revision{}, reason.New(reason.DigestMismatch, d.String(), "the kept description is damaged: %w", err)
	}
	return r, nil
}

func blobName(d digest.Digest) (string, error) {
	if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
		return "", reason.New(reason.UnsupportedArtifact, fmt.Sprintf("%.100q", string(d)), "only sha256 digests are kept")
	}
	return path.Join(blobsDir, d.Encoded()), nil
}

func unitName(d digest.Digest) string { return path.Join(unitsDir, d.Encoded()+".json") }

// recordName hides nothing; it makes one file name of a source.
func recordName(source unit.Source) string {
	return digest.FromString(source.String()).Encoded() + ".json"
}

// unread says what a failed read means: what is missing or damaged is to be
// fetched again, everything else is the disk's trouble.
func unread(object string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return reason.New(reason.ArtifactNotFound, object, "this node does not keep it")
	case errors.Is(err, durable.ErrTooLarge), errors.Is(err, durable.ErrNotRegular):
		return reason.New(reason.DigestMismatch, object, "what this node keeps is damaged: %w", err)
	}
	return durable.Explain(object, err)
}

func stopped(d digest.Digest, err error) error {
	return reason.New(reason.InstallFailed, d.String(), "stopped: %w", err)
}

// Find returns the evidence of a digest whose repository is not known: the
// first by name where several have it. None is ArtifactNotFound.
func (s *Store) Find(d digest.Digest) (Record, error) {
	found, err := names(s.dir, evidenceDir)
	if err != nil {
		return Record{}, durable.Explain(s.dir.Path(), err)
	}
	for _, name := range found {
		data, err := s.dir.ReadFile(path.Join(evidenceDir, name), MaxRecordBytes)
		if err != nil {
			continue
		}
		if record, err := DecodeRecord(data); err == nil && record.Evidence.Digest == d {
			return record, nil
		}
	}
	return Record{}, reason.New(reason.ArtifactNotFound, d.String(), "this node does not keep it")
}
