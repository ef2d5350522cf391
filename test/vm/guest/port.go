//go:build linux && amd64

package main

import (
	"errors"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// out writes bytes to an I/O port, one after the other.
//
//go:noescape
func out(port uint16, data []byte)

// port is a way out of the machine that needs no interrupt: on a busy host an
// emulated serial line loses one now and then, and is silent from then on.
// QEMU's device for it is isa-debugcon.
type port uint16

// Write never fails: a thread without access to ports does not get here.
func (p port) Write(data []byte) (int, error) {
	out(uint16(p), data)
	return len(data), nil
}

// openPorts gives the calling thread access to the ports, and ties the calling
// goroutine to it: Linux keeps that for each thread (ioperm(2)).
func openPorts(ports ...int) error {
	runtime.LockOSThread()
	for _, p := range ports {
		if _, _, errno := unix.Syscall(unix.SYS_IOPERM, uintptr(p), 1, 1); errno != 0 {
			return os.NewSyscallError("ioperm", errno)
		}
	}
	return nil
}

// ownOutput makes a pipe the standard output of this process and its children,
// and sends what comes out of it. The function it returns ends all of them, and
// waits until the rest is sent.
func ownOutput(to port) (drain func(), err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if err := standard(w); err != nil {
		return nil, err
	}
	sent := make(chan struct{})
	failed := openPorts(int(to)) // here, to tell of it
	go func() {
		defer close(sent)
		if openPorts(int(to)) == nil {
			_, _ = io.Copy(to, r)
		}
	}()
	return func() {
		_ = unix.Kill(-1, unix.SIGKILL) // all but this one
		if null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil || standard(null) != nil {
			return
		}
		<-sent
	}, failed
}

// standard makes a file, which it closes, the standard output and error of this
// process. There is nothing to read.
func standard(w *os.File) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	for fd, file := range []*os.File{null, w, w} {
		if err := unix.Dup3(int(file.Fd()), fd, 0); err != nil {
			return err
		}
	}
	return errors.Join(null.Close(), w.Close())
}
