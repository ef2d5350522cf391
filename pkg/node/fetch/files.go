package fetch

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxFileBytes bounds the files that are handed over, as package registry does.
const maxFileBytes = 4 << 20

// handedFile is a file that the parent opens for the child. It is handed over
// again when another file stands under its name or it was written to.
type handedFile struct {
	path string
	log  *slog.Logger
	mu   sync.Mutex
	last fileState
	// tried is set once it was handed over, or could not be opened.
	tried bool
}

// fileState tells a replaced or rewritten file from the one of before.
type fileState struct {
	device, inode uint64
	size          int64
	modified      unix.Timespec
}

// handOver opens the file and sends it, unless it is as it was. What cannot be
// opened is sent as a message without a descriptor, so that the child does not
// go on with what was withdrawn.
func (h *handedFile) handOver(l *link, kind byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tried && h.unchanged() {
		return nil
	}
	f, state, openErr := openRegular(h.path)
	if openErr != nil {
		if h.tried && h.last == (fileState{}) {
			return nil // it was said
		}
		h.log.Warn("the fetch child gets no file", "file", h.path, "error", openErr)
		f, state = nil, fileState{}
	}
	err := l.send(kind, f)
	h.last, h.tried = state, true
	return errors.Join(err, closeAny(f))
}

func (h *handedFile) unchanged() bool {
	var found unix.Stat_t
	return unix.Stat(h.path, &found) == nil && stateOf(&found) == h.last
}

func stateOf(s *unix.Stat_t) fileState {
	return fileState{device: uint64(s.Dev), inode: s.Ino, size: s.Size, modified: s.Mtim} //nolint:unconvert // not on every architecture
}

// openRegular opens a file for reading; it never waits, as for a pipe.
func openRegular(path string) (*os.File, fileState, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fileState{}, err
	}
	var found unix.Stat_t
	err = unix.Fstat(int(f.Fd()), &found)
	if err == nil && found.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errors.New("it is no regular file")
	}
	if err != nil {
		return nil, fileState{}, errors.Join(err, f.Close())
	}
	return f, stateOf(&found), nil
}

// received are the files as the parent handed them over, by kind of message.
type received struct {
	mu    sync.Mutex
	files map[byte]*os.File // nil: the parent could not open it
}

func (r *received) put(kind byte, f *os.File) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.files == nil {
		r.files = map[byte]*os.File{}
	}
	_ = closeAny(r.files[kind]) // only read
	r.files[kind] = f
}

// read returns the content of now.
func (r *received) read(kind byte) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.files[kind]
	if f == nil {
		return nil, errors.New("the agent cannot open it")
	}
	data, err := io.ReadAll(io.NewSectionReader(f, 0, maxFileBytes+1))
	if err == nil && len(data) > maxFileBytes {
		err = errors.New("the file is too large")
	}
	return data, err
}

func (r *received) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for kind, f := range r.files {
		_ = closeAny(f) // only read
		delete(r.files, kind)
	}
}

// soon is a deadline.
func soon(d time.Duration) time.Time { return time.Now().Add(d) }
