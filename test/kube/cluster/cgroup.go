package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	mountsFile = "/proc/self/mounts"
	// cgroupTimeout bounds the wait for a cgroup whose processes have ended to
	// let go of them.
	cgroupTimeout = 10 * time.Second
)

// hierarchies returns the mounted cgroup v1 hierarchies, and the v2 one where it
// is mounted beside them, from the text of /proc/self/mounts (proc_pid_mounts(5)).
func hierarchies(mounts string) []string {
	var found []string
	v1 := false
	for line := range strings.Lines(mounts) {
		fields := strings.Fields(line)
		if len(fields) < 3 || !strings.HasPrefix(fields[1], cgroupRoot+"/") {
			continue
		}
		if fields[2] == "cgroup" || fields[2] == "cgroup2" {
			found = append(found, fields[1])
			v1 = v1 || fields[2] == "cgroup"
		}
	}
	if !v1 {
		return nil
	}
	return found
}

func mountedHierarchies() ([]string, error) {
	mounts, err := os.ReadFile(mountsFile)
	if err != nil {
		return nil, err
	}
	return hierarchies(string(mounts)), nil
}

// nodeCgroup returns the cgroup of a node in each hierarchy.
func (c *Cluster) nodeCgroup(n int) string { return "/" + c.id + "/" + NodeName(n) }

// makeCgroup makes a cgroup in every hierarchy.
func makeCgroup(name string) error {
	all, err := mountedHierarchies()
	if err != nil {
		return err
	}
	for _, root := range all {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			return err
		}
		if filepath.Base(root) != "cpuset" {
			continue
		}
		// A new cpuset is empty, and nothing runs in an empty one (cpuset(7)).
		dir := root
		for _, element := range strings.Split(strings.Trim(name, "/"), "/") {
			if err := inheritCpuset(dir, filepath.Join(dir, element)); err != nil {
				return err
			}
			dir = filepath.Join(dir, element)
		}
	}
	return nil
}

func inheritCpuset(parent, child string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(parent, file))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(child, file), bytes.TrimSpace(value), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroup removes a cgroup with all below it in every hierarchy. Their
// processes must have been killed.
func removeCgroup(ctx context.Context, name string) error {
	all, err := mountedHierarchies()
	if err != nil {
		return err
	}
	return poll(ctx, cgroupTimeout, "cgroup "+name+" to be empty", func() (bool, error) {
		left := false
		for _, root := range all {
			err := removeTree(filepath.Join(root, name))
			if errors.Is(err, syscall.EBUSY) {
				left = true
			} else if err != nil {
				return false, fmt.Errorf("removing cgroup: %w", err)
			}
		}
		return !left, nil
	})
}

// removeTree removes folders alone: the files in a cgroup cannot be.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeTree(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}
