//go:build linux && amd64

package main

import (
	"archive/tar"
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/test/vm/job"
)

// runProgram runs the program to its end, and collects what orphans leave.
func runProgram(j job.Job) (int, error) {
	for _, dir := range append([]string{j.Dir}, j.Keep...) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return 0, err
		}
	}
	child, err := os.StartProcess(j.Args[0], j.Args, &os.ProcAttr{
		Dir: j.Dir, Env: j.Env, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return 0, err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR) || err == nil && pid != child.Pid:
		case err != nil:
			return 0, err
		case status.Signaled():
			return job.Killed + int(status.Signal()), nil
		default:
			return status.ExitStatus(), nil
		}
	}
}

// sendBack writes the folders' files and the status to a port of their own.
func sendBack(folders []string, status int) error {
	if err := openPorts(job.Back); err != nil {
		return err
	}
	buffered := bufio.NewWriter(port(job.Back))
	archive := tar.NewWriter(buffered)
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(name string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			return send(archive, name, data)
		})
		if err != nil {
			return err
		}
	}
	return errors.Join(send(archive, job.Status, []byte(strconv.Itoa(status))), archive.Close(), buffered.Flush())
}

func send(archive *tar.Writer, name string, data []byte) error {
	if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err := archive.Write(data)
	return err
}
