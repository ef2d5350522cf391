package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"syscall"
)

// Shell returns nil where Run can start programs in a root folder: it does so through its
// /bin/sh. Hosts without one, such as Bottlerocket and Talos, give an error that is
// exec.ErrNotFound. Empty means this process's own root.
func Shell(root string) error {
	name, err := within(root, "/bin/sh")
	if err == nil {
		var info os.FileInfo
		if info, err = os.Stat(root + name); err == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("it is %s", info.Mode().Type())
		}
	}
	if err != nil {
		return fmt.Errorf("no /bin/sh, which sets the limits of programs: %w", errors.Join(exec.ErrNotFound, err))
	}
	return nil
}

// within follows the links of a path as a process does whose root folder it is.
func within(root, name string) (string, error) {
	const most = 40 // as the kernel, path_resolution(7)
	at, left, links := "/", strings.Split(name, "/"), 0
	for len(left) > 0 {
		part := left[0]
		left = left[1:]
		next := path.Join(at, part) // also for "", "." and "..", which stay within
		target, err := os.Readlink(root + next)
		switch {
		case errors.Is(err, syscall.EINVAL): // no link
			at = next
		case err != nil:
			return "", err
		case links == most:
			return "", syscall.ELOOP
		default:
			links++
			if path.IsAbs(target) {
				at = "/"
			}
			left = slices.Concat(strings.Split(target, "/"), left)
		}
	}
	return at, nil
}
