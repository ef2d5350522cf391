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
	// sum is as in compiled; empty where the kernel was built to tell neither that
	// nor what it loaded.
	sum string
}

// holds reports whether the kernel has exactly these bytes. One that does not
// tell is believed.
func (l Loaded) holds(p loaded) bool { return l.sum == "" || l.is(p) }

// is reports whether the kernel says that it has exactly these bytes.
func (l Loaded) is(p loaded) bool { return l.sum != "" && l.sum == p.Sum }

// unknownSum is of profiles that are not what Confine loads.
const unknownSum = "unknown"

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
	l := listing{found: map[string]Loaded{}, sums: map[string]map[string]string{}}
	err := l.walk(filepath.Join(s.folder, "profiles"), "")
	return l.found, err
}

// listing is one look at the kernel's profiles.
type listing struct {
	found map[string]Loaded
	sums  map[string]map[string]string // by what was loaded at one time, and name
}

// walk reads one folder of profiles, and those of their children.
func (l listing) walk(folder, prefix string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		at := filepath.Join(folder, e.Name())
		p, err := l.read(at, prefix)
		if gone(err) {
			continue // removed between the two looks
		}
		if err != nil {
			return err
		}
		l.found[p.Name] = p
		if strings.Count(p.Name, "//") > maxNesting {
			return fmt.Errorf("%s: nested deeper than %d", p.Name, maxNesting)
		}
		if err := l.walk(filepath.Join(at, "profiles"), p.Name+"//"); err != nil && !gone(err) {
			return err
		}
	}
	return nil
}

func (l listing) read(folder, prefix string) (Loaded, error) {
	name, err := attribute(folder, "name", maxAttribute)
	if err != nil {
		return Loaded{}, err
	}
	mode, err := attribute(folder, "mode", maxAttribute)
	if err != nil {
		return Loaded{}, err
	}
	p := Loaded{Name: prefix + name, Mode: mode}
	p.sum, err = attribute(folder, "sha256", maxAttribute)
	if errors.Is(err, fs.ErrNotExist) {
		p.sum, err = l.sumOf(folder, p.Name)
	}
	return p, err
}

// sumOf finds a profile in what was loaded with it. Kernels before 6.8 report
// SHA-1 sums alone, and these are not asked: what was loaded can be read itself.
func (l listing) sumOf(folder, name string) (string, error) {
	leads, err := os.Readlink(filepath.Join(folder, "raw_data"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil // built without CONFIG_SECURITY_APPARMOR_EXPORT_BINARY
	}
	if err != nil {
		return "", err
	}
	leads = strings.ReplaceAll(leads, "../", "")
	if l.sums[leads] == nil {
		data, err := attribute(folder, "raw_data", maxCompiled)
		if err != nil && !errors.Is(err, errLong) {
			return "", err
		}
		l.sums[leads] = map[string]string{}
		profiles, err := readCompiled([]byte(data))
		if err != nil {
			profiles = nil // of the host, or of who replaced ours: not what we load
		}
		for _, c := range profiles {
			l.sums[leads][c.name] = c.sum
		}
	}
	if sum, ok := l.sums[leads][name]; ok {
		return sum, nil
	}
	return unknownSum, nil
}

var errLong = errors.New("longer than it may be")

// attribute reads a whole file of the kernel's; of one that is longer than limit
// nothing is believed.
func attribute(folder, name string, limit int64) (string, error) {
	f, err := os.Open(filepath.Join(folder, name))
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if int64(len(data)) > limit {
		return "", fmt.Errorf("%s: %w", f.Name(), errLong)
	}
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
