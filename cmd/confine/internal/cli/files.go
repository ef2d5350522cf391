package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// readBounded reads a regular file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%s is a folder, not a file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if int64(len(data)) > limit {
		return nil, reason.New(reason.TooLarge, path, "the file exceeds %d bytes", limit)
	}
	return data, nil
}

// readInput reads one profile file and tells its kind by its name, else by its
// content.
func readInput(path string, kinds profile.Set) (pack.Input, error) {
	data, err := readBounded(path, profile.MaxPayloadBytes)
	if err != nil {
		return pack.Input{}, err
	}
	input := pack.Input{File: filepath.Base(path), Data: data}
	kind, err := kindOf(path, data, kinds)
	if err != nil {
		return pack.Input{}, err
	}
	input.Kind = kind.Name()
	return input, nil
}

func kindOf(path string, data []byte, kinds profile.Set) (profile.Kind, error) {
	if kind, ok := kinds.ByTitle(filepath.Base(path)); ok {
		return kind, nil
	}
	found := kinds.BySniff(data)
	if len(found) == 1 {
		return found[0], nil
	}
	return nil, reason.New(reason.UnsupportedArtifact, path, "neither its name nor its content says which kind of profile it is").
		WithAdvice("give the file the extension of its kind: .json for seccomp, .aa for AppArmor, .cil for SELinux")
}

// exists reports whether path names a file, so that an argument can be either
// a file or a reference.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil || !errors.Is(err, os.ErrNotExist)
}

// parseInput judges whether the input is a profile at all.
func parseInput(input pack.Input, kinds profile.Set) (profile.Profile, error) {
	kind, ok := kinds.ByName(input.Kind)
	if !ok {
		return nil, reason.New(reason.UnsupportedArtifact, input.File, "no kind of profile is called %q", input.Kind)
	}
	return kind.Parse(input.File, input.Data)
}
