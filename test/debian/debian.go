// Package debian has real-world inputs of tests: Debian's own packages, which
// apt downloads and verifies, unpacked into a cache and never installed. Those of
// another release than the machine's come through apt too, with lists of their own.
package debian

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// Suite is a release of Debian by its code name.
type Suite string

// The suites that tests look at.
const (
	Bookworm Suite = "bookworm" // Debian 12, with AppArmor 3.0
	Trixie   Suite = "trixie"   // Debian 13, with AppArmor 4.1
)

// whole is written last: a folder that has it is complete.
const whole = ".unpacked"

// Unpack returns a folder with the packages unpacked on top of each other. The
// cache keeps it for as long as the archive serves these versions. It is safe to
// call from several processes at once.
func Unpack(ctx context.Context, suite Suite, packages ...string) (string, error) {
	cache, err := cacheFolder()
	if err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	apt, err := aptOf(ctx, cache, suite)
	if err != nil {
		return "", err
	}
	root, err := unpack(ctx, cache, apt, packages)
	if err != nil { // lists may be missing or old
		if _, updateErr := run(ctx, "", apt.get("update", "-qq")); updateErr != nil {
			return "", errors.Join(err, updateErr)
		}
		root, err = unpack(ctx, cache, apt, packages)
	}
	return root, err
}

// apt is how to call apt for a suite.
type apt struct{ config string }

func (a apt) get(args ...string) []string {
	// apt would give the work to a user who may not write into the cache.
	command := []string{"apt-get", "-o", "APT::Sandbox::User=root"}
	if a.config != "" {
		command = append(command, "-c", a.config)
	}
	return append(command, args...)
}

// aptOf makes a folder with sources and lists for a suite of the archive that
// this machine uses.
func aptOf(ctx context.Context, cache string, suite Suite) (apt, error) {
	if release, err := os.ReadFile("/etc/os-release"); err == nil && strings.Contains(string(release), "VERSION_CODENAME="+string(suite)+"\n") {
		return apt{}, nil // the machine's own lists will do
	}
	out, err := run(ctx, "", apt{}.get("indextargets", "--format", "$(SITE) $(COMPONENT) $(CREATED_BY) $(RELEASE)"))
	if err != nil {
		return apt{}, err
	}
	site := ""
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) == 4 && f[1] == "main" && f[2] == "Packages" && !strings.Contains(f[3], "-") && site == "" {
			site = f[0]
		}
	}
	if site == "" {
		return apt{}, errors.New("apt on this machine names no archive of Debian's")
	}
	folder := filepath.Join(cache, "apt-"+string(suite))
	for _, sub := range []string{"lists/partial", "archives/partial", "sources.list.d"} {
		if err := os.MkdirAll(filepath.Join(folder, sub), 0o755); err != nil {
			return apt{}, err
		}
	}
	config := filepath.Join(folder, "apt.conf")
	sources := fmt.Sprintf("deb [arch=%s signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", runtime.GOARCH, site, suite)
	settings := fmt.Sprintf("Dir::Etc::SourceList %q;\nDir::Etc::SourceParts %q;\nDir::State::Lists %q;\nDir::Cache %q;\n"+
		"Acquire::Languages \"none\";\nAcquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n",
		filepath.Join(folder, "sources.list"), filepath.Join(folder, "sources.list.d"), filepath.Join(folder, "lists"), folder)
	return apt{config}, errors.Join(os.WriteFile(filepath.Join(folder, "sources.list"), []byte(sources), 0o600),
		os.WriteFile(config, []byte(settings), 0o600))
}

func unpack(ctx context.Context, cache string, a apt, packages []string) (string, error) {
	versions, err := run(ctx, "", a.get(append([]string{"download", "--print-uris"}, packages...)...))
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(versions), "\n")
	slices.Sort(lines)
	if len(lines) != len(packages) {
		return "", fmt.Errorf("apt names %d of %d packages", len(lines), len(packages))
	}
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	root := filepath.Join(cache, "packages-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(filepath.Join(root, whole)); err == nil {
		return root, nil
	}
	debs := filepath.Join(root, "debs")
	if err := errors.Join(os.RemoveAll(root), os.MkdirAll(debs, 0o755)); err != nil {
		return "", err
	}
	if _, err := run(ctx, debs, a.get(append([]string{"download", "-qq"}, packages...)...)); err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil || len(files) != len(packages) {
		return "", fmt.Errorf("apt left %d of %d packages: %w", len(files), len(packages), err)
	}
	for _, deb := range files {
		if _, err := run(ctx, "", []string{"dpkg-deb", "-x", deb, root}); err != nil {
			return "", err
		}
	}
	return root, errors.Join(os.RemoveAll(debs), os.WriteFile(filepath.Join(root, whole), []byte(strings.Join(lines, "\n")), 0o600))
}

func cacheFolder() (string, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(user, "confine", "debian")
	return folder, os.MkdirAll(folder, 0o755)
}

func lock(name string) (func(), error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// run runs a program to its end; the error holds what it said.
func run(ctx context.Context, dir string, command []string) (string, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return out.String(), nil
}
