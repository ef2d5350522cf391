package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// CacheEnv names the environment variable that moves the cache folder.
const CacheEnv = "CONFINE_VM_CACHE"

// kernelPackage depends on the newest stock kernel for virtual machines.
const kernelPackage = "linux-image-cloud-amd64"

// packages are unpacked and never installed. The libraries they need are named
// by the dynamic linker's own tables; Writer fails where one is missing.
func packages() []string {
	return []string{
		"busybox-static", "libc6", "apparmor", "apparmor-profiles", "apparmor-profiles-extra",
		"policycoreutils", "selinux-utils", "secilc", "coreutils", "libsemanage2", "libsemanage-common", "libsepol2", "libselinux1",
		"libaudit1", "libcap-ng0", "libpcre2-8-0", "libbz2-1.0",
	}
}

// unpacked is written last: a folder that has it is whole.
const unpacked = ".unpacked"

// maxFetchTime bounds all work with the archive.
const maxFetchTime = 10 * time.Minute

// Packages returns a folder with the unpacked Debian packages that images are
// made of, and fetches them first where the cache lacks these versions. It is
// safe to call from several processes at once: one fetches, the rest wait.
func Packages(ctx context.Context, progress io.Writer) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, maxFetchTime)
	defer cancel()
	root, err := provide(ctx, progress)
	if err == nil || os.Geteuid() != 0 || ctx.Err() != nil {
		return root, err
	}
	// apt's lists are missing, or name versions that the archive no longer has.
	fmt.Fprintf(progress, "vmrun: bringing apt's lists up to date: %v\n", err)
	if _, err := run(ctx, "", "apt-get", "update", "-qq"); err != nil {
		return "", err
	}
	return provide(ctx, progress)
}

// provide returns the folder for the versions in apt's lists.
func provide(ctx context.Context, progress io.Writer) (string, error) {
	wanted, err := versions(ctx)
	if err != nil {
		return "", err
	}
	cache, err := cacheFolder()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(strings.Join(wanted.lines, "\n")))
	root := filepath.Join(cache, "packages-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(filepath.Join(root, unpacked)); err == nil {
		return root, nil
	}
	unlock, err := lock(ctx, root+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(filepath.Join(root, unpacked)); err == nil {
		return root, nil
	}
	fmt.Fprintf(progress, "vmrun: fetching %d Debian packages, once\n", len(wanted.lines))
	if err := os.RemoveAll(root); err != nil {
		return "", err
	}
	if err := fetch(ctx, root, wanted); err != nil {
		return "", errors.Join(err, os.RemoveAll(root))
	}
	return root, os.WriteFile(filepath.Join(root, unpacked), []byte(strings.Join(wanted.lines, "\n")+"\n"), 0o600)
}

// pinned are the exact versions that the archive serves now.
type pinned struct {
	kernel string   // the package that holds the kernel itself
	lines  []string // file name and SHA-256 of each package, sorted
}

// versions asks apt for the packages' versions.
func versions(ctx context.Context) (pinned, error) {
	depends, err := run(ctx, "", "apt-cache", "depends", kernelPackage)
	if err != nil {
		return pinned{}, err
	}
	p := pinned{}
	for line := range strings.Lines(depends) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
		if ok && strings.HasPrefix(name, "linux-image-") {
			p.kernel = name
		}
	}
	if p.kernel == "" {
		return pinned{}, fmt.Errorf("apt knows no kernel behind %s: run apt-get update", kernelPackage)
	}
	printed, err := run(ctx, "", "apt-get", append([]string{"download", "--print-uris", p.kernel}, packages()...)...)
	if err != nil {
		return pinned{}, err
	}
	for line := range strings.Lines(printed) {
		// 'URL' FILE SIZE SHA256:HEX
		fields := strings.Fields(line)
		if len(fields) == 4 && strings.HasSuffix(fields[1], ".deb") {
			p.lines = append(p.lines, fields[1]+" "+fields[3])
		}
	}
	slices.Sort(p.lines)
	if len(p.lines) != len(packages())+1 {
		return pinned{}, fmt.Errorf("apt names %d of %d packages", len(p.lines), len(packages())+1)
	}
	return p, nil
}

// fetch downloads (apt verifies what it gets) and unpacks.
func fetch(ctx context.Context, root string, wanted pinned) error {
	debs := filepath.Join(root, "debs")
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return err
	}
	// apt would give the work to a user who may not write here.
	args := append([]string{"download", "-qq", "-o", "APT::Sandbox::User=root", wanted.kernel}, packages()...)
	if _, err := run(ctx, debs, "apt-get", args...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range files {
		if strings.HasPrefix(filepath.Base(deb), wanted.kernel+"_") {
			err = unpackKernel(ctx, deb, filepath.Join(root, "vmlinuz"))
		} else {
			_, err = run(ctx, "", "dpkg-deb", "-x", deb, root)
		}
		if err != nil {
			return err
		}
	}
	return os.RemoveAll(debs)
}

// unpackKernel takes the kernel alone out of its package: no module is needed.
func unpackKernel(ctx context.Context, deb, to string) (err error) {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = cmd.Process.Kill() // what follows the kernel is not wanted
		_ = cmd.Wait()
	}()
	for files := tar.NewReader(bufio.NewReaderSize(out, 1<<20)); ; {
		h, err := files.Next()
		if err != nil {
			return fmt.Errorf("%s holds no kernel: %w", filepath.Base(deb), err)
		}
		if !strings.HasPrefix(filepath.Clean(h.Name), "boot/vmlinuz-") {
			continue
		}
		data, err := io.ReadAll(files)
		if err != nil {
			return err
		}
		return os.WriteFile(to, data, 0o600)
	}
}

func cacheFolder() (string, error) {
	if moved := os.Getenv(CacheEnv); moved != "" {
		return filepath.Abs(moved)
	}
	user, err := os.UserCacheDir()
	return filepath.Join(user, "confine", "vm"), err
}

// lock waits until no other process holds the file.
func lock(ctx context.Context, name string) (func(), error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	held := make(chan error, 1)
	go func() { held <- syscall.Flock(int(f.Fd()), syscall.LOCK_EX) }()
	select {
	case err = <-held:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// run runs a program to its end; the error holds what it said.
func run(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return out.String(), nil
}
