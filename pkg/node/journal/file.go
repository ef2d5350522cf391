package journal

import (
	"errors"
	"io/fs"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/durable"
)

const (
	// fileName is the journal, damagedName the last one that could not be read.
	fileName    = "journal.json"
	damagedName = "journal.damaged.json"

	fileMode fs.FileMode = 0o600
)

// File keeps a journal in a folder. It is not safe for concurrent use.
type File struct {
	dir *durable.Dir
	// written is the digest of what is on the disk; empty where not known.
	written digest.Digest
}

// Open returns the journal file of dir, which the caller keeps open.
func Open(dir *durable.Dir) *File { return &File{dir: dir} }

// Load reads the journal. A missing one is empty and found is false. One that
// is damaged is ErrDamaged; any other error says that it could not be read now.
func (f *File) Load() (j *Journal, found bool, err error) {
	data, err := f.dir.ReadFile(fileName, MaxBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &Journal{}, false, nil
	case errors.Is(err, durable.ErrTooLarge), errors.Is(err, durable.ErrNotRegular):
		return nil, true, errors.Join(ErrDamaged, err)
	case err != nil:
		return nil, true, err
	}
	j, err = Decode(data)
	if err != nil {
		return nil, true, err
	}
	f.written = digest.FromBytes(data)
	return j, true, nil
}

// SetAside moves a damaged journal out of the way, over an earlier one.
func (f *File) SetAside() error {
	f.written = ""
	if err := f.dir.RemoveAll(damagedName); err != nil {
		return err
	}
	return f.dir.Rename(fileName, damagedName)
}

// Save writes j, unless that is what was written last.
func (f *File) Save(j *Journal) error {
	data, err := Encode(j)
	if err != nil {
		return err
	}
	sum := digest.FromBytes(data)
	if sum == f.written {
		return nil
	}
	f.written = "" // until it is known what is there
	if err := f.dir.WriteFile(fileName, data, fileMode); err != nil {
		return err
	}
	f.written = sum
	return nil
}
