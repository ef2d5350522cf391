// Package tools builds the foreign programs that the tests and the Makefile
// use (oras, cosign, a registry, the linter and so on) from their Go modules.
//
// They come from modules of their own below this folder, each of whose go.mod
// pins one or more programs of one project by tool lines and whose go.sum pins
// all they are made of. Binaries are built once into a cache outside of the
// checkout, and built again when the module files, the program's settings
// (settingsOf) or the Go toolchain change.
//
// A module with one tool line is a name by itself, as in Path(ctx, "oras"); in
// one with several, the program comes after a slash, as in "kube/kubectl".
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
	folder      = "test/tools"
	stampSuffix = ".built-from"
	lockSuffix  = ".lock"
)

// Path returns the absolute path of the program with the given name, and builds
// it first where the cache lacks it, which may take minutes. It must be called
// with a working directory inside of the main module, as tests have. It is safe
// to call from several processes at once: one builds, the rest wait.
func Path(ctx context.Context, name string) (string, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", fmt.Errorf("cache of tools: %w", err)
	}
	bin, err := pathIn(ctx, filepath.Join(root, filepath.FromSlash(folder)), name, settingsOf(name), cache)
	if err != nil {
		return "", fmt.Errorf("tool %s: %w", name, err)
	}
	return bin, nil
}

// Link makes dir where it is missing and in it a symbolic link to each named
// program, called as the last element of its name says ("kube/kubectl":
// kubectl). Links that are there already are set anew, each in one step.
func Link(ctx context.Context, dir string, names ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range names {
		bin, err := Path(ctx, name)
		if err != nil {
			return err
		}
		if err := link(bin, filepath.Join(dir, path.Base(name))); err != nil {
			return err
		}
	}
	return nil
}

func link(bin, name string) error {
	if old, err := os.Readlink(name); err == nil && old == bin {
		return nil
	}
	// Another process may use the old link at this moment.
	temp := fmt.Sprintf("%s.%d.new", name, os.Getpid())
	if err := os.Symlink(bin, temp); err != nil {
		return err
	}
	if err := os.Rename(temp, name); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return nil
}

// Names returns the names of all pinned programs, sorted.
func Names(ctx context.Context) ([]string, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return nil, err
	}
	mods, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(folder), "*", "go.mod"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range mods {
		pins, err := readPins(ctx, filepath.Dir(m))
		if err != nil {
			return nil, err
		}
		module := filepath.Base(filepath.Dir(m))
		for _, p := range pins {
			if len(pins) == 1 {
				names = append(names, module)
			} else {
				names = append(names, module+"/"+p.program)
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// pathIn returns the named program, pinned below dir, built into the cache.
func pathIn(ctx context.Context, dir, name string, s settings, cache string) (string, error) {
	module, program, _ := strings.Cut(name, "/")
	dir = filepath.Join(dir, module)
	pins, err := readPins(ctx, dir)
	if err != nil {
		return "", err
	}
	p, err := choose(pins, program)
	if err != nil {
		return "", err
	}
	if p.stamp, err = stamp(dir, s); err != nil {
		return "", err
	}
	bin := filepath.Join(cache, filepath.FromSlash(p.module+"@"+p.version), "bin", p.program)
	if err := build(ctx, dir, bin, p, s); err != nil {
		return "", err
	}
	return bin, nil
}

// choose returns the pin of the program; an empty name stands for the only one.
func choose(pins []pin, program string) (pin, error) {
	if program == "" && len(pins) == 1 {
		return pins[0], nil
	}
	names := make([]string, 0, len(pins))
	for _, p := range pins {
		if p.program == program {
			return p, nil
		}
		names = append(names, p.program)
	}
	return pin{}, fmt.Errorf("program %q is not pinned: the module has %s", program, strings.Join(names, ", "))
}

// pin is what one tool line pins.
type pin struct {
	program string // what the binary is called
	pkg     string // package path of the tool line
	module  string // the module the package is in
	version string // the module's version
	stamp   string // digest over all that decides the binary
}

// readPins returns what the go.mod in dir pins, in its order.
func readPins(ctx context.Context, dir string) ([]pin, error) {
	raw, err := goCommand(ctx, dir, nil, "mod", "edit", "-json")
	if err != nil {
		return nil, err
	}
	var mod struct {
		Tool    []struct{ Path string }
		Require []struct{ Path, Version string }
	}
	file := filepath.Join(dir, "go.mod")
	if err := json.Unmarshal(raw, &mod); err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	if len(mod.Tool) == 0 {
		return nil, fmt.Errorf("%s has no tool line", file)
	}
	pins := make([]pin, 0, len(mod.Tool))
	for _, t := range mod.Tool {
		found := pin{pkg: t.Path, program: programName(t.Path, filepath.Base(dir))}
		for _, r := range mod.Require {
			// The longest module path that the package path begins with owns it.
			if strings.HasPrefix(found.pkg+"/", r.Path+"/") && len(r.Path) > len(found.module) {
				found.module, found.version = r.Path, r.Version
			}
		}
		if found.module == "" {
			return nil, fmt.Errorf("%s requires no module for tool %s", file, found.pkg)
		}
		if slices.ContainsFunc(pins, func(p pin) bool { return p.program == found.program }) {
			return nil, fmt.Errorf("%s has two tool lines for a program called %s", file, found.program)
		}
		pins = append(pins, found)
	}
	return pins, nil
}

// programName returns the last element of a package path; where that is only a
// major version, as in go.etcd.io/etcd/server/v3, the tool's module gives its name.
func programName(pkg, module string) string {
	base := path.Base(pkg)
	if digits, ok := strings.CutPrefix(base, "v"); ok && digits != "" && strings.Trim(digits, "0123456789") == "" {
		return module
	}
	return base
}

func stamp(dir string, s settings) (string, error) {
	sum := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(data), data)
	}
	fmt.Fprintf(sum, "%s %s/%s %s", runtime.Version(), runtime.GOOS, runtime.GOARCH, s)
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// build makes bin from the tool package, unless it is there already.
func build(ctx context.Context, dir, bin string, p pin, s settings) error {
	if err := os.MkdirAll(filepath.Dir(bin), 0o755); err != nil {
		return err
	}
	// Locks and stamps stand beside bin, which then holds programs alone.
	base := filepath.Join(filepath.Dir(filepath.Dir(bin)), p.program)
	unlock, err := lock(base + lockSuffix)
	if err != nil {
		return err
	}
	defer unlock()
	if built, err := isBuilt(base+stampSuffix, bin, p.stamp); err != nil || built {
		return err
	}
	// Built under another name: a build that is cut short never looks finished.
	temp := bin + ".new"
	if _, err := goCommand(ctx, dir, s.env(), append(s.buildArgs(p.version), "-o", temp, p.pkg)...); err != nil {
		return err
	}
	// An old stamp must not vouch for the new binary, nor for half of the change.
	if err := os.RemoveAll(base + stampSuffix); err != nil {
		return err
	}
	if err := os.Rename(temp, bin); err != nil {
		return err
	}
	return os.WriteFile(base+stampSuffix, []byte(p.stamp), 0o644)
}

func isBuilt(stampFile, bin, want string) (bool, error) {
	got, err := os.ReadFile(stampFile)
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
	out, err := goCommand(ctx, ".", nil, "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(out)), nil
}

func goCommand(ctx context.Context, dir string, env []string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go %s in %s: %w\n%s", strings.Join(args, " "), dir, err, stderr.Bytes())
	}
	return stdout.Bytes(), nil
}
