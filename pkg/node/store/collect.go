package store

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/node/unit"
)

// Live is all that must be kept.
type Live struct {
	// Sources whose evidence and blobs are kept.
	Sources []unit.Source
	// Units are the digests of descriptions that are kept.
	Units []digest.Digest
}

// Inventory is what a store holds.
type Inventory struct {
	// Records by file name; a nil record is there and could not be read.
	Records map[string]*Record
	// Blobs and Units by file name.
	Blobs, Units []string
}

// Garbage is what a collection takes away: paths below the store, records
// before the blobs they name.
type Garbage []string

// Mark says what of an inventory nothing alive needs. It is pure.
//
// Nothing goes because it could not be read: while the record of a live source
// is unreadable, it is not known which blobs it needs, so all blobs stay.
func Mark(held Inventory, live Live) Garbage {
	var garbage Garbage
	needed := map[string]bool{}
	blobsKnown := true
	alive := map[string]bool{}
	for _, source := range live.Sources {
		alive[recordName(source)] = true
	}
	for _, name := range sortedKeys(held.Records) {
		record := held.Records[name]
		switch {
		case !alive[name]:
			garbage = append(garbage, path.Join(evidenceDir, name))
		case record == nil:
			blobsKnown = false
		default:
			for _, d := range record.Blobs() {
				needed[d.Encoded()] = true
			}
		}
	}
	units := map[string]bool{}
	for _, d := range live.Units {
		units[path.Base(unitName(d))] = true
	}
	for _, name := range held.Units {
		if !units[name] {
			garbage = append(garbage, path.Join(unitsDir, name))
		}
	}
	if !blobsKnown {
		return garbage
	}
	for _, name := range held.Blobs {
		if !needed[name] {
			garbage = append(garbage, path.Join(blobsDir, name))
		}
	}
	return garbage
}

// Collect takes away what nothing alive needs and returns how much that was.
// Killed anywhere, it leaves whole entries, and a later call goes on.
func (s *Store) Collect(live Live) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, err := s.inventory()
	if err != nil {
		return 0, durable.Explain(s.dir.Path(), err)
	}
	removed := 0
	for _, name := range Mark(held, live) {
		if err := s.dir.RemoveAll(name); err != nil {
			return removed, durable.Explain(path.Join(s.dir.Path(), name), err)
		}
		removed++
	}
	return removed, nil
}

func (s *Store) inventory() (Inventory, error) {
	held := Inventory{Records: map[string]*Record{}}
	records, err := names(s.dir, evidenceDir)
	if err != nil {
		return held, err
	}
	for _, name := range records {
		held.Records[name] = nil
		data, err := s.dir.ReadFile(path.Join(evidenceDir, name), MaxRecordBytes)
		if err != nil {
			continue // there, and not readable: Mark knows what that means
		}
		if record, err := DecodeRecord(data); err == nil {
			// Only the digests are needed; signatures would fill the memory.
			record.Evidence.Signatures = nil
			held.Records[name] = &record
		}
	}
	if held.Blobs, err = names(s.dir, blobsDir); err != nil {
		return held, err
	}
	held.Units, err = names(s.dir, unitsDir)
	return held, err
}

func names(dir *durable.Dir, folder string) ([]string, error) {
	entries, err := dir.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	found := make([]string, 0, len(entries))
	for _, e := range entries {
		found = append(found, e.Name())
	}
	return found, err
}

func sortedKeys(m map[string]*Record) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, strings.Compare)
	return keys
}
