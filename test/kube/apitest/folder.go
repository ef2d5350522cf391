package apitest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

const (
	folderPrefix = "confine-apitest-"
	lockFile     = "lock"
	logFile      = "log"
	etcdFolder   = "etcd"
	pkiFolder    = "pki"
	binFolder    = "bin"
	logTailBytes = 4 << 10
)

// folder is where one server keeps everything. Its lock is held as long as the
// process lives, so that a folder whose lock is free is left over.
type folder struct {
	path string
	lock *os.File
}

// newFolder makes a folder below parent and removes those of killed processes.
func newFolder(parent string) (folder, error) {
	// Making and locking are one step to those who sweep.
	all, err := lock(filepath.Join(parent, fmt.Sprintf("confine-apitest.%d.lock", os.Getuid())), syscall.LOCK_EX)
	if err != nil {
		return folder{}, err
	}
	defer func() { _ = all.Close() }()
	if err := sweep(parent); err != nil {
		return folder{}, err
	}
	dir, err := os.MkdirTemp(parent, folderPrefix)
	if err != nil {
		return folder{}, err
	}
	f := folder{path: dir}
	f.lock, err = lock(f.file(lockFile), syscall.LOCK_EX|syscall.LOCK_NB)
	return f, err
}

// sweep removes folders that no living process holds.
func sweep(parent string) error {
	left, err := filepath.Glob(filepath.Join(parent, folderPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		held, err := lock(filepath.Join(dir, lockFile), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, os.ErrPermission) {
			continue
		}
		if errors.Is(err, os.ErrNotExist) {
			continue // its process removes it at this moment
		}
		if err != nil {
			return err
		}
		if err := errors.Join(os.RemoveAll(dir), held.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (f folder) file(name string) string { return filepath.Join(f.path, name) }

func (f folder) remove() error {
	return errors.Join(os.RemoveAll(f.path), f.lock.Close())
}

// prepare makes the folders of the servers anew, and their log.
func (f folder) prepare() (*os.File, error) {
	for _, name := range []string{etcdFolder, pkiFolder} {
		if err := os.RemoveAll(f.file(name)); err != nil {
			return nil, err
		}
		if err := os.Mkdir(f.file(name), 0o700); err != nil {
			return nil, err
		}
	}
	return os.Create(f.file(logFile))
}

// tether writes a script that turns into the program, set to be killed when the
// thread that starts it ends, which the program itself knows nothing about.
func (f folder) tether(bin string) (string, error) {
	if err := os.MkdirAll(f.file(binFolder), 0o700); err != nil {
		return "", err
	}
	script := filepath.Join(f.file(binFolder), filepath.Base(bin))
	text := fmt.Sprintf("#!/bin/sh\nexec setpriv --pdeathsig KILL -- '%s' \"$@\"\n", bin)
	return script, os.WriteFile(script, []byte(text), 0o700)
}

func lock(file string, how int) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", file, err), f.Close())
	}
	return f, nil
}

// logTail returns the end of what the servers said.
func (e *Env) logTail() string {
	data, err := os.ReadFile(e.dir.file(logFile))
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-logTailBytes):])
}
