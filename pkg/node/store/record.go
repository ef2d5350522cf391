package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/node/unit"
)

// Bounds on one record.
const (
	// MaxRecordBytes leaves room for eight signatures of the greatest size,
	// and hundreds of usual ones.
	MaxRecordBytes = 12 << 20
	maxSignatures  = 64

	recordVersion = 1
)

// Record is the evidence of one source as it is kept.
type Record struct {
	Version  int               `json:"version"`
	Evidence artifact.Evidence `json:"evidence"`
	// Files say what the payloads were taken for. That is a label to keep
	// things by, never a reason to install them.
	Files []KindFile `json:"files"`
}

// KindFile is one payload by kind.
type KindFile struct {
	Kind string `json:"kind"`
	unit.File
}

// Source names what the record is about.
func (r Record) Source() unit.Source {
	return unit.Source{Repository: r.Evidence.Repository, Digest: r.Evidence.Digest}
}

// Blobs are the digests of all blobs the record needs.
func (r Record) Blobs() []digest.Digest {
	blobs := append([]digest.Digest{}, r.Evidence.Manifests...)
	for _, p := range r.Evidence.Payloads {
		blobs = append(blobs, p.Digest)
	}
	for _, f := range r.Files {
		blobs = append(blobs, f.Digest)
	}
	return blobs
}

func recordOf(art *artifact.Artifact) Record {
	r := Record{Version: recordVersion, Evidence: art.Evidence}
	for _, p := range art.Payloads {
		r.Files = append(r.Files, KindFile{Kind: p.Kind, File: unit.File{Name: p.File, Digest: p.Digest, Size: int64(len(p.Data))}})
	}
	return r
}

func encodeRecord(r Record) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(r)
	if err == nil && len(data) > MaxRecordBytes {
		err = fmt.Errorf("%d bytes exceed %d", len(data), MaxRecordBytes)
	}
	return data, err
}

// DecodeRecord reads a record strictly and within bounds.
func DecodeRecord(data []byte) (Record, error) {
	if len(data) > MaxRecordBytes {
		return Record{}, fmt.Errorf("%d bytes exceed %d", len(data), MaxRecordBytes)
	}
	var r Record
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		return Record{}, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Record{}, errors.New("data after the end")
	}
	return r, r.check()
}

func (r Record) check() error {
	if r.Version != recordVersion {
		return fmt.Errorf("version %d, not %d", r.Version, recordVersion)
	}
	e := r.Evidence
	if len(e.Manifests) > 2 || len(e.Payloads) > artifact.MaxLayers || len(r.Files) > artifact.MaxLayers || len(e.Signatures) > maxSignatures {
		return fmt.Errorf("%d manifests, %d payloads, %d files and %d signatures are out of bounds",
			len(e.Manifests), len(e.Payloads), len(r.Files), len(e.Signatures))
	}
	for _, d := range append(r.Blobs(), e.Digest) {
		if _, err := blobName(d); err != nil {
			return err
		}
	}
	for _, s := range e.Signatures {
		if len(s.Payload) > trust.MaxCandidateBytes {
			return fmt.Errorf("a signature of %d bytes exceeds %d", len(s.Payload), trust.MaxCandidateBytes)
		}
	}
	return nil
}

// Revision returns the unit of one kind that the record describes.
func (r Record) Revision(kind string) unit.Revision {
	var files []unit.File
	for _, f := range r.Files {
		if f.Kind == kind {
			files = append(files, f.File)
		}
	}
	return unit.Follow(nil, r.Source(), files, unit.Terms{})
}
