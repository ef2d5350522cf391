package status

import (
	"io/fs"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/durable"
)

// fileMode lets people read the status without being root: it holds no secret.
const fileMode fs.FileMode = 0o644

// Writer writes reports into a folder, each only when its meaning changed. It
// is not safe for concurrent use.
type Writer struct {
	dir *durable.Dir
	// written is the digest of what is on the disk; empty where not known.
	written digest.Digest
}

// NewWriter returns a Writer for dir, which the caller keeps open. It compares
// with what an earlier process left.
func NewWriter(dir *durable.Dir) *Writer {
	w := &Writer{dir: dir}
	if data, err := dir.ReadFile(FileName, MaxBytes); err == nil {
		w.written = digest.FromBytes(data)
	}
	return w
}

// Write writes r unless the same is there, and reports whether it wrote.
func (w *Writer) Write(r Report) (bool, error) {
	data, err := r.Encode()
	sum := digest.FromBytes(data)
	if err != nil || sum == w.written {
		return false, err
	}
	w.written = "" // until it is known what is there
	if err := w.dir.WriteFile(FileName, data, fileMode); err != nil {
		return false, err
	}
	w.written = sum
	return true, nil
}
