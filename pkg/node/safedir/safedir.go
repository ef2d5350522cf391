// Package safedir makes sure that nobody but root, or but this process's own
// user where that is not root, can change what a folder says.
package safedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/confine-dev/confine/pkg/reason"
)

const (
	// maxLinks bounds the links followed on the way, as the kernel does
	// (path_resolution(7)).
	maxLinks = 40
	// maxEntries bounds the files looked at.
	maxEntries = 8192

	writableByOthers fs.FileMode = 0o022
)

// Check returns TrustPolicyInvalid unless the folder, everything in it and
// every folder on the way to it belong to root (or to the caller, where that is
// not root) and can be written by nobody else: no write permission for group or
// others, no access control list. A folder for everybody with the sticky bit,
// such as /tmp, may stand on the way, because there nobody can replace what is
// not theirs. Links are followed the same way, step by step.
func Check(dir string) error { return check(dir, os.Geteuid()) }

func check(dir string, uid int) error {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return invalid(dir, err)
	}
	w := walker{uid: uid}
	resolved, err := w.walk(abs)
	if err != nil {
		return err
	}
	return w.folder(resolved)
}

type walker struct {
	uid   int
	links int
}

// walk checks every step of an absolute path and returns it without links.
func (w *walker) walk(abs string) (string, error) {
	at := "/"
	if err := w.entry(at, true); err != nil {
		return "", err
	}
	rest := strings.Split(strings.Trim(filepath.Clean(abs), "/"), "/")
	for len(rest) > 0 {
		segment := rest[0]
		rest = rest[1:]
		if segment == "" || segment == "." {
			continue
		}
		next := filepath.Join(at, segment)
		info, err := os.Lstat(next)
		if err != nil {
			return "", invalid(next, err)
		}
		if err := w.owner(next, info); err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			if len(rest) > 0 {
				if err := w.entry(next, true); err != nil {
					return "", err
				}
			}
			at = next
			continue
		}
		if w.links++; w.links > maxLinks {
			return "", invalid(next, errors.New("too many links"))
		}
		target, err := os.Readlink(next)
		if err != nil {
			return "", invalid(next, err)
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		// ".." is resolved against where the link really is.
		rest = append(strings.Split(filepath.Clean(target), "/"), rest...)
	}
	return at, nil
}

// folder checks the folder itself and what is in it.
func (w *walker) folder(dir string) error {
	if err := w.entry(dir, false); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return invalid(dir, err)
	}
	if !info.IsDir() {
		return invalid(dir, errors.New("it is no folder"))
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return invalid(dir, err)
	}
	if len(entries) > maxEntries {
		return invalid(dir, fmt.Errorf("more than %d entries", maxEntries))
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if e.IsDir() {
			continue // not read
		}
		resolved, err := w.walk(name)
		if err != nil {
			return err
		}
		if err := w.entry(resolved, false); err != nil {
			return err
		}
		w.links = 0
	}
	return nil
}

// entry checks one existing file or folder that is no link.
func (w *walker) entry(name string, onTheWay bool) error {
	info, err := os.Lstat(name)
	if err != nil {
		return invalid(name, err)
	}
	if err := w.owner(name, info); err != nil {
		return err
	}
	sticky := onTheWay && info.IsDir() && info.Mode()&fs.ModeSticky != 0
	if info.Mode()&writableByOthers != 0 && !sticky {
		return invalid(name, fmt.Errorf("its mode %v lets others write", info.Mode().Perm())).
			WithAdvice("chmod go-w %s", name)
	}
	listed, err := hasACL(name)
	if err != nil {
		return invalid(name, err)
	}
	if listed {
		return invalid(name, errors.New("an access control list may let others write")).
			WithAdvice("setfacl -b %s", name)
	}
	return nil
}

func (w *walker) owner(name string, info fs.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return invalid(name, errors.New("its owner cannot be told"))
	}
	if stat.Uid == 0 || int64(stat.Uid) == int64(w.uid) {
		return nil
	}
	return invalid(name, fmt.Errorf("it belongs to user %d", stat.Uid)).WithAdvice("chown root %s", name)
}

func invalid(name string, err error) *reason.Error {
	return reason.New(reason.TrustPolicyInvalid, name, "others could say who is trusted: %w", err).
		WithAdvice("make %s, and every folder above it, writable by root alone", name)
}
