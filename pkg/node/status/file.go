package status

import (
	"bytes"
	"io/fs"

	"github.com/confine-dev/confine/pkg/durable"
)

// fileMode lets people read the status without being root: it holds no secret.
const fileMode fs.FileMode = 0o644

// Writer writes reports into a folder, each only when its meaning changed. It
// is not safe for concurrent use.
type Writer struct {
	dir     *durable.Dir
	written []byte
}

// NewWriter returns a Writer for dir, which the caller keeps open. It compares
// with what an earlier process left.
func NewWriter(dir *durable.Dir) *Writer {
	w := &Writer{dir: dir}
	if data, err := dir.ReadFile(FileName, MaxBytes); err == nil {
		w.written = data
	}
	return w
}

// Write writes r unless the same is there, and reports whether it wrote.
func (w *Writer) Write(r Report) (bool, error) {
	data, err := r.Encode()
	if err != nil || bytes.Equal(data, w.written) {
		return false, err
	}
	w.written = nil // until it is known what is there
	if err := w.dir.WriteFile(FileName, data, fileMode); err != nil {
		return false, err
	}
	w.written = data
	return true, nil
}
