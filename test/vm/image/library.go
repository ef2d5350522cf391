package image

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/confine-dev/confine/test/vm/cpio"
)

// maxLinks bounds the links followed for one path.
const maxLinks = 16

// libraryFolders are where Debian's dynamic linker looks.
func libraryFolders() []string {
	return []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"}
}

// tree adds programs of the unpacked packages to an archive, with all they need.
type tree struct {
	root  string
	out   *cpio.Writer
	added map[string]bool
}

// program adds an executable and its libraries under their own names.
func (t *tree) program(name string) error {
	if t.added[name] {
		return nil
	}
	t.added[name] = true
	file, err := t.resolve(name)
	if err != nil {
		return err
	}
	t.out.Copy(file, name)
	binary, err := elf.Open(file)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer func() { _ = binary.Close() }()
	if loader := interpreter(binary); loader != "" {
		if err := t.program(loader); err != nil {
			return err
		}
	}
	needed, err := binary.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, library := range needed {
		if err := t.library(library); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (t *tree) library(name string) error {
	for _, folder := range libraryFolders() {
		full := path.Join(folder, name)
		if _, err := t.resolve(full); err == nil {
			return t.program(full)
		}
	}
	return fmt.Errorf("the library %s is in no package that was fetched", name)
}

// interpreter is the dynamic linker that a program asks for.
func interpreter(binary *elf.File) string {
	for _, p := range binary.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		name := make([]byte, p.Filesz)
		if _, err := p.ReadAt(name, 0); err == nil {
			return strings.TrimRight(string(name), "\x00")
		}
	}
	return ""
}

// resolve follows the links of a package as if root were the file system's.
func (t *tree) resolve(name string) (string, error) {
	at := path.Clean("/" + name)
	for range maxLinks {
		full := filepath.Join(t.root, at)
		leads, err := os.Readlink(full)
		if err != nil {
			if _, err := os.Stat(full); errors.Is(err, fs.ErrNotExist) {
				return "", fmt.Errorf("%s: %w", name, fs.ErrNotExist)
			}
			return full, nil
		}
		if !path.IsAbs(leads) {
			leads = path.Join(path.Dir(at), leads)
		}
		at = path.Clean(leads)
	}
	return "", fmt.Errorf("%s: too many links", name)
}
