// Package unit says what one unit on a host consists of: the files of one kind
// from one artifact, and for a while those that an update dropped.
//
// An update that drops a file is a removal of that file's name, and waits like
// one. So for the removal delay the host gets a unit that holds the new files
// and the dropped ones. Its digest cannot be the new artifact's, because that
// one may be installed elsewhere without them; it is the digest of the unit's
// own description (see docs/decisions/2026-11-23-dropped-files.md).
package unit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/profile"
)

// Bounds on one unit, checked wherever a description is read or made.
const (
	// MaxFiles bounds all files, dropped ones included: hosts take no more.
	MaxFiles = artifact.MaxLayers
	// MaxBytes bounds an encoded description.
	MaxBytes = 1 << 20

	maxName = 255
)

// Source names an artifact and where it came from. It is comparable.
type Source struct {
	Repository reference.Repository `json:"repository"`
	Digest     digest.Digest        `json:"digest"`
}

// String renders repository@digest.
func (s Source) String() string { return s.Repository.String() + "@" + s.Digest.String() }

// Known is false for a unit found on a host of which only the digest is known.
func (s Source) Known() bool { return s.Repository != reference.Repository{} }

// Compare orders sources by repository, then digest.
func (s Source) Compare(o Source) int { return strings.Compare(s.String(), o.String()) }

// File is one payload by name and content.
type File struct {
	Name   string        `json:"name"`
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
}

// Retained is a file that an update dropped and that stays until Due.
type Retained struct {
	File
	// From is the artifact that it was verified with.
	From Source    `json:"from"`
	Due  time.Time `json:"due"`
}

// Revision is the content of one unit.
type Revision struct {
	Source Source `json:"source"`
	// Files of Source, sorted by name.
	Files []File `json:"files"`
	// Retained are sorted by name; none has the name of one of Files.
	Retained []Retained `json:"retained,omitempty"`
}

// Digest names the unit's content: the artifact's digest, or, with retained
// files, the digest of the unit's description.
func (r Revision) Digest() digest.Digest {
	if len(r.Retained) == 0 {
		return r.Source.Digest
	}
	return digest.FromBytes(r.Encode())
}

// Sources are all artifacts the unit's files come from, each once.
func (r Revision) Sources() []Source {
	sources := []Source{r.Source}
	for _, kept := range r.Retained {
		if !slices.Contains(sources, kept.From) {
			sources = append(sources, kept.From)
		}
	}
	return sources
}

// Encode returns the one encoding of r. It panics on nothing: all is plain data.
func (r Revision) Encode() []byte {
	data, err := json.Marshal(r)
	if err != nil {
		// Only a time outside the years of RFC 3339 comes here; Check refuses it.
		return nil
	}
	return data
}

// Decode reads strictly what Encode wrote. Anything else is an error.
func Decode(data []byte) (Revision, error) {
	if len(data) > MaxBytes {
		return Revision{}, fmt.Errorf("%d bytes exceed %d", len(data), MaxBytes)
	}
	var r Revision
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		return Revision{}, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Revision{}, errors.New("data after the end")
	}
	if err := r.Check(); err != nil {
		return Revision{}, err
	}
	if !bytes.Equal(r.Encode(), data) {
		return Revision{}, errors.New("not in the form it is written in")
	}
	return r, nil
}

// Check returns what is wrong with r: bounds, order, digests, names.
func (r Revision) Check() error {
	if err := checkSource(r.Source); err != nil {
		return err
	}
	if len(r.Files)+len(r.Retained) > MaxFiles {
		return fmt.Errorf("%d files and %d that wait for their removal are more than %d", len(r.Files), len(r.Retained), MaxFiles)
	}
	names := map[string]bool{}
	for i, f := range r.Files {
		if err := checkFile(f, names); err != nil {
			return err
		}
		if i > 0 && f.Name < r.Files[i-1].Name {
			return errors.New("files are not sorted")
		}
	}
	for i, kept := range r.Retained {
		if err := errors.Join(checkFile(kept.File, names), checkSource(kept.From)); err != nil {
			return err
		}
		if i > 0 && kept.Name < r.Retained[i-1].Name {
			return errors.New("retained files are not sorted")
		}
		if y := kept.Due.Year(); y < 1970 || y > 9999 || kept.Due.Location() != time.UTC {
			return fmt.Errorf("%s: %v is no usable due time", kept.Name, kept.Due)
		}
	}
	return nil
}

func checkSource(s Source) error {
	if s.Digest.Validate() != nil || s.Digest.Algorithm() != digest.SHA256 {
		return fmt.Errorf("%.80q is no sha256 digest", s.Digest)
	}
	if !s.Known() {
		return nil
	}
	canonical, err := reference.ParseRepository(s.Repository.String())
	if err != nil || canonical != s.Repository {
		return fmt.Errorf("%.80q is no canonical repository", s.Repository)
	}
	return nil
}

func checkFile(f File, names map[string]bool) error {
	if f.Name == "" || len(f.Name) > maxName || strings.ContainsAny(f.Name, "/\\\x00\n") || strings.HasPrefix(f.Name, ".") {
		return fmt.Errorf("%.80q is no file name", f.Name)
	}
	if names[f.Name] {
		return fmt.Errorf("%q stands there twice", f.Name)
	}
	names[f.Name] = true
	if f.Digest.Validate() != nil || f.Digest.Algorithm() != digest.SHA256 {
		return fmt.Errorf("%s: %.80q is no sha256 digest", f.Name, f.Digest)
	}
	if f.Size < 0 || f.Size > profile.MaxPayloadBytes {
		return fmt.Errorf("%s: %d bytes are out of bounds", f.Name, f.Size)
	}
	return nil
}

// Equal reports whether both are the same unit with the same due times.
func (r Revision) Equal(o Revision) bool { return bytes.Equal(r.Encode(), o.Encode()) }

// Terms say when what nobody wants goes.
type Terms struct {
	Now time.Time
	// Delay is how long it stays.
	Delay time.Duration
	// Goes reports whether what is due at a time may go then. nil means that
	// it always may.
	Goes func(due time.Time) bool
}

// maxBump bounds the search for a due time of its own.
const maxBump = 16

// Due is when that goes which nobody wants from now on. A permission to remove
// that was given before never covers it.
func (t Terms) Due() time.Time {
	due := t.latest()
	for i := 0; t.Goes != nil && t.Goes(due) && i < maxBump; i++ {
		due = due.Add(time.Second)
	}
	return due
}

// Clamp returns due, or an earlier time where the clock or the delay was set
// back since.
func (t Terms) Clamp(due time.Time) time.Time {
	if due.After(t.latest().Add(maxBump * time.Second)) {
		return t.Due()
	}
	return due
}

// Over reports whether what was due may go now.
func (t Terms) Over(due time.Time) bool {
	return !t.Now.Before(due) && (t.Goes == nil || t.Goes(due))
}

func (t Terms) latest() time.Time { return t.Now.Add(t.Delay).UTC().Truncate(time.Second) }

// Follow returns the revision that replaces current (nil: nothing was there)
// when source with files is wanted: what it drops is retained until the terms
// let it go.
func Follow(current *Revision, source Source, files []File, terms Terms) Revision {
	next := Revision{Source: source, Files: sortedFiles(files)}
	if current == nil {
		return next
	}
	held := map[string]bool{}
	for _, f := range next.Files {
		held[f.Name] = true
	}
	keep := func(kept Retained) {
		if !held[kept.Name] && !terms.Over(kept.Due) {
			held[kept.Name] = true
			next.Retained = append(next.Retained, kept)
		}
	}
	for _, f := range current.Files {
		keep(Retained{File: f, From: current.Source, Due: terms.Due()})
	}
	for _, kept := range current.Retained {
		kept.Due = terms.Clamp(kept.Due)
		keep(kept)
	}
	slices.SortFunc(next.Retained, func(a, b Retained) int { return strings.Compare(a.Name, b.Name) })
	return next
}

func sortedFiles(files []File) []File {
	return slices.SortedFunc(slices.Values(files), func(a, b File) int { return strings.Compare(a.Name, b.Name) })
}
