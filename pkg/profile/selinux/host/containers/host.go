package containers

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sys/unix"
)

const (
	maxFile    = 1 << 20
	maxEntries = 1024
)

// host is the root folder of a host. Links in it lead where they lead there, not
// where they would lead here.
type host struct{ root *os.File }

func open(root string) (host, error) {
	if root == "" {
		root = "/"
	}
	f, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return host{f}, err
}

func (h host) close() { _ = h.root.Close() }

// open opens a file of the host.
func (h host) open(name string, flags uint64) (*os.File, error) {
	fd, err := unix.Openat2(int(h.root.Fd()), name, &unix.OpenHow{
		Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (h host) exists(name string) (bool, error) {
	f, err := h.open(name, unix.O_PATH)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, f.Close()
}

func (h host) read(name string) ([]byte, error) {
	f, err := h.open(name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s exceeds %d bytes", name, maxFile)
	}
	return data, err
}

// list returns the names in a folder, sorted; none where there is no folder.
func (h host) list(name string) ([]string, error) {
	f, err := h.open(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	names, err := f.Readdirnames(maxEntries + 1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err == nil && len(names) > maxEntries {
		err = fmt.Errorf("%s has more than %d entries", name, maxEntries)
	}
	slices.Sort(names)
	return names, err
}

func (h host) toml(name string) (map[string]any, error) {
	data, err := h.read(name)
	if err != nil {
		return nil, err
	}
	tables := map[string]any{}
	if err := toml.Unmarshal(data, &tables); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return tables, nil
}
