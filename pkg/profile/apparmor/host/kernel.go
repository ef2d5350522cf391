package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// policyFolder is the kernel's policy in securityfs. Linux,
// security/apparmor/apparmorfs.c.
const policyFolder = "/sys/kernel/security/apparmor/policy"

// maxAttribute bounds a file of securityfs that is read whole.
const maxAttribute = 8 << 10

// Loaded is one profile that the kernel has.
type Loaded struct {
	// Name is the whole name, of children and hats as parent//child.
	Name string
	// Mode is enforce, complain, kill, unconfined or user.
	Mode string
	// sums are the kernel's checksums by their kind; none where the kernel was
	// built without.
	sums map[string]string
}

// holds reports whether the kernel has exactly these bytes. A kernel without
// checksums is believed.
func (l Loaded) holds(c compiled) bool {
	for kind, sum := range l.sums {
		if c.sums[kind] != sum {
			return false
		}
	}
	return true
}

// kernel is the policy that a kernel enforces.
type kernel interface {
	supported() error
	// list returns all profiles by name.
	list() (map[string]Loaded, error)
	// replace loads all profiles of a compiled policy, or none.
	replace(policy []byte) error
	// remove takes one profile and its children away; a missing one is no error.
	remove(name string) error
}

// securityfs is the kernel of this machine, or of one policy namespace in it.
type securityfs struct{ folder string }

func (s securityfs) supported() error {
	if _, err := os.Stat(filepath.Join(s.folder, ".replace")); err != nil {
		return fmt.Errorf("the kernel has no AppArmor policy: %w", err)
	}
	return nil
}

func (s securityfs) list() (map[string]Loaded, error) {
	found := map[string]Loaded{}
	err := s.walk(filepath.Join(s.folder, "profiles"), "", found)
	return found, err
}

// walk reads one folder of profiles, and those of their children.
func (s securityfs) walk(folder, prefix string, found map[string]Loaded) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		at := filepath.Join(folder, e.Name())
		p, err := readLoaded(at)
		if gone(err) {
			continue // removed between the two looks
		}
		if err != nil {
			return err
		}
		p.Name = prefix + p.Name
		found[p.Name] = p
		if strings.Count(p.Name, "//") > maxNesting {
			return fmt.Errorf("%s: nested deeper than %d", p.Name, maxNesting)
		}
		if err := s.walk(filepath.Join(at, "profiles"), p.Name+"//", found); err != nil && !gone(err) {
			return err
		}
	}
	return nil
}

func readLoaded(folder string) (Loaded, error) {
	name, err := attribute(folder, "name")
	if err != nil {
		return Loaded{}, err
	}
	mode, err := attribute(folder, "mode")
	if err != nil {
		return Loaded{}, err
	}
	p := Loaded{Name: name, Mode: mode, sums: map[string]string{}}
	for _, kind := range []string{"sha1", "sha256"} {
		sum, err := attribute(folder, kind)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Loaded{}, err
		}
		p.sums[kind] = sum
	}
	return p, nil
}

func attribute(folder, name string) (string, error) {
	f, err := os.Open(filepath.Join(folder, name))
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxAttribute))
	return strings.TrimSuffix(string(data), "\n"), err
}

// gone reports errors of profiles that ended while they were looked at.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOENT) }

func (s securityfs) replace(policy []byte) error { return s.write(".replace", policy) }

func (s securityfs) remove(name string) error {
	// A zero byte ends the name, as apparmor_parser sends it.
	err := s.write(".remove", append([]byte(name), 0))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// write hands over everything in one call: the kernel takes each call for a
// request of its own.
func (s securityfs) write(name string, data []byte) error {
	f, err := os.OpenFile(filepath.Join(s.folder, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	n, err := unix.Write(int(f.Fd()), data)
	if err == nil && n != len(data) {
		err = io.ErrShortWrite
	}
	return errors.Join(err, f.Close())
}

// sortedNames returns the names of compiled profiles, sorted.
func sortedNames(profiles []compiled) []string {
	names := make([]string, 0, len(profiles))
	for _, c := range profiles {
		names = append(names, c.name)
	}
	slices.Sort(names)
	return names
}
