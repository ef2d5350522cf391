package fetch

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pair returns the two ends of a fresh connection. No program started from
// here inherits them.
func pair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "fetch"), os.NewFile(uintptr(fds[1]), "fetch"), nil
}

// controlOf returns the connection that f is an end of, and closes f.
func controlOf(f *os.File) (*net.UnixConn, error) {
	conn, err := net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	control, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("it is no unix socket"), conn.Close())
	}
	return control, nil
}

// sendMessage sends one message, and a descriptor unless file is nil.
func sendMessage(control *net.UnixConn, kind byte, file *os.File, within time.Duration) error {
	if err := control.SetWriteDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if file == nil {
		_, err := control.Write([]byte{kind})
		return err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		_, _, sent = control.WriteMsgUnix([]byte{kind}, unix.UnixRights(int(fd)), nil)
	})
	return errors.Join(err, sent)
}

// receiveMessage returns the next message, and its descriptor if it has one.
func receiveMessage(control *net.UnixConn) (byte, *os.File, error) {
	var kind [1]byte
	rights := make([]byte, unix.CmsgSpace(4)) // one descriptor; the kernel closes others
	n, rightsLen, _, _, err := control.ReadMsgUnix(kind[:], rights)
	if err != nil {
		return 0, nil, err
	}
	file, err := descriptorOf(rights[:rightsLen])
	switch {
	case err != nil:
		return 0, nil, err
	case n == 0:
		return 0, nil, errors.Join(io.EOF, closeAny(file))
	}
	return kind[0], file, nil
}

func descriptorOf(rights []byte) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) == 0 {
		return nil, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	if len(fds) != 1 {
		for _, fd := range fds {
			err = errors.Join(err, unix.Close(fd))
		}
		return nil, errors.Join(fmt.Errorf("a message has %d descriptors", len(fds)), err)
	}
	return os.NewFile(uintptr(fds[0]), "received"), nil
}

func closeAny(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}
