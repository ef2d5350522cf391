// Package tools builds the foreign programs that the tests and the Makefile
// use (oras, cosign, a registry, the linter and so on) from their Go modules.
//
// Each has a module of its own below this folder, whose go.mod pins it by a
// tool line and whose go.sum pins all it is made of. Binaries are built once
// into a cache outside of the checkout, and built again when the module files
// or the Go toolchain change.
package tools

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// CacheEnv names the environment variable that moves the cache folder.
const CacheEnv = "CONFINE_TOOLS_CACHE"

const (
	folder    = "test/tools"
	stampFile = "built-from"
)

// Path returns the absolute path of the program that the module
// test/tools/<name> pins, and builds it first where the cache lacks it. It must
// be called with a working directory inside of the main module, as tests have.
// It is safe to call from several processes at once: one builds, the rest wait.
func Path(ctx context.Context, name string) (string, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", fmt.Errorf("cache of tools: %w", err)
	}
	bin, err := pathIn(ctx, filepath.Join(root, filepath.FromSlash(folder), name), cache)
	if err != nil {
		return "", fmt.Errorf("tool %s: %w", name, err)
	}
	return bin, nil
}

// pathIn returns the program that the module in dir pins, built into the cache.
func pathIn(ctx context.Context, dir, cache string) (string, error) {
	pin, err := readPin(ctx, dir)
	if err != nil {
		return "", err
	}
	home := filepath.Join(cache, filepath.FromSlash(pin.module+"@"+pin.version))
	bin := filepath.Join(home, "bin", path.Base(pin.pkg))
	if err := build(ctx, dir, home, bin, pin); err != nil {
		return "", err
	}
	return bin, nil
}

// Names returns the names of all pinned tools, sorted.
func Names(ctx context.Context) ([]string, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return nil, err
	}
	mods, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(folder), "*", "go.mod"))
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(mods))
	for _, m := range mods {
		names = append(names, filepath.Base(filepath.Dir(m)))
	}
	slices.Sort(names)
	return names, nil
}

// pin is what a tool module pins.
type pin struct {
	pkg     string // package path of the tool line
	module  string // the module the package is in
	version string // the module's version
	stamp   string // digest over all that decides the binary
}

func readPin(ctx context.Context, dir string) (pin, error) {
	raw, err := goCommand(ctx, dir, "mod", "edit", "-json")
	if err != nil {
		return pin{}, err
	}
	var mod struct {
		Tool    []struct{ Path string }
		Require []struct{ Path, Version string }
	}
	if err := json.Unmarshal(raw, &mod); err != nil {
		return pin{}, fmt.Errorf("reading %s: %w", filepath.Join(dir, "go.mod"), err)
	}
	if len(mod.Tool) != 1 {
		return pin{}, fmt.Errorf("%s has %d tool lines, want 1", filepath.Join(dir, "go.mod"), len(mod.Tool))
	}
	found := pin{pkg: mod.Tool[0].Path}
	for _, r := range mod.Require {
		// The longest module path that the package path begins with owns it.
		if strings.HasPrefix(found.pkg+"/", r.Path+"/") && len(r.Path) > len(found.module) {
			found.module, found.version = r.Path, r.Version
		}
	}
	if found.module == "" {
		return pin{}, fmt.Errorf("%s requires no module for tool %s", filepath.Join(dir, "go.mod"), found.pkg)
	}
	found.stamp, err = stamp(dir)
	return found, err
}

func stamp(dir string) (string, error) {
	sum := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(data), data)
	}
	fmt.Fprintf(sum, "%s %s/%s", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// build makes bin from the tool package, unless it is there already.
func build(ctx context.Context, dir, home, bin string, p pin) error {
	if err := os.MkdirAll(filepath.Dir(bin), 0o755); err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(home, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if built, err := isBuilt(home, bin, p.stamp); err != nil || built {
		return err
	}
	// Built under another name: a build that is cut short never looks finished.
	temp := bin + ".new"
	if _, err := goCommand(ctx, dir, "build", "-trimpath", "-ldflags=-s -w", "-o", temp, p.pkg); err != nil {
		return err
	}
	if err := os.Rename(temp, bin); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(home, stampFile), []byte(p.stamp), 0o644)
}

func isBuilt(home, bin, want string) (bool, error) {
	got, err := os.ReadFile(filepath.Join(home, stampFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if _, err := os.Stat(bin); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	return string(got) == want, nil
}

// lock waits until this process alone holds the lock file.
func lock(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", file, err), f.Close())
	}
	// Closing the file releases the lock; nothing was written through it.
	return func() { _ = f.Close() }, nil
}

func cacheDir() (string, error) {
	if dir := os.Getenv(CacheEnv); dir != "" {
		return filepath.Abs(dir)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(base, "confine", "tools"), nil
}

// moduleRoot returns the folder of the main module around the working directory.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := goCommand(ctx, ".", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(out)), nil
}

func goCommand(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	// Without cgo the tools need no C compiler and run on any libc.
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go %s in %s: %w\n%s", strings.Join(args, " "), dir, err, stderr.Bytes())
	}
	return stdout.Bytes(), nil
}
