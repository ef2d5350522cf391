package fetch

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/pkg/reason"
)

const (
	folderMode fs.FileMode = 0o711
	// socketMode lets every user connect, since the child's cannot be told by
	// a mode; who connects is compared with Options.UID.
	socketMode fs.FileMode = 0o666

	// helloWithin is how long a child that has connected may take to say so.
	helloWithin = 5 * time.Second
	// complainEvery bounds what strangers can write into the log.
	complainEvery = time.Minute
)

// listener is the socket that a child connects to.
type listener struct {
	*net.UnixListener
	path  string
	inode uint64
}

// listen makes the socket. One that nobody listens on any more is replaced, and
// nothing else is.
func (r *Remote) listen() error {
	path := r.opts.Socket
	l, err := listenAt(path)
	if err == nil {
		r.listening = l
		return nil
	}
	if _, ok := reason.Of(err); ok {
		return err
	}
	return reason.New(reason.InstallFailed, path, "cannot listen: %w", err).
		WithAdvice("give a --fetch-socket in a folder that this user can write to and nobody else")
}

func listenAt(path string) (*listener, error) {
	folder := filepath.Dir(path)
	if err := ensureFolder(folder); err != nil {
		return nil, err
	}
	if err := checkStale(path); err != nil {
		return nil, err
	}
	// It appears under its name when it is ready, and at no moment is there none.
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	made, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	made.SetUnlinkOnClose(false)
	l := &listener{UnixListener: made, path: path}
	var found unix.Stat_t
	err = os.Chmod(temp, socketMode)
	if err == nil {
		err = unix.Lstat(temp, &found)
	}
	if err == nil {
		l.inode = found.Ino
		err = os.Rename(temp, path)
	}
	if err != nil {
		return nil, errors.Join(err, made.Close(), os.Remove(temp))
	}
	return l, nil
}

// ensureFolder makes the folder, or sees that nobody but root and this user can
// change what is in it: another socket under the name would be another child's.
func ensureFolder(folder string) error {
	if err := os.Mkdir(folder, folderMode); err == nil {
		return os.Chmod(folder, folderMode)
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	var found unix.Stat_t
	if err := unix.Stat(folder, &found); err != nil {
		return err
	}
	own := found.Uid == 0 || int(found.Uid) == os.Geteuid()
	if !own || found.Mode&0o022 != 0 {
		return reason.New(reason.InstallFailed, folder, "others can write to the folder of the fetch socket").
			WithAdvice("name a folder below it, which is made then: %s", filepath.Join(folder, "fetch", "agent.sock"))
	}
	return nil
}

// checkStale returns nil where nothing stands at path but a socket that nobody
// listens on.
func checkStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return reason.New(reason.InstallFailed, path, "it is there and is no socket").WithAdvice("name another --fetch-socket")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return errors.Join(reason.New(reason.InstallFailed, path, "another process listens there").
			WithAdvice("stop the other agent, or give this one a --fetch-socket of its own"), conn.Close())
	case errors.Is(err, unix.ECONNREFUSED):
		return nil
	}
	return err
}

// accept takes one child after another until ctx ends.
func (r *Remote) accept(ctx context.Context) {
	defer r.listening.remove()
	stop := context.AfterFunc(ctx, func() { _ = r.listening.Close() })
	defer stop()
	var strangers time.Time
	turn := make(chan struct{}, 1) // of the one child that says hello or answers
	for {
		control, err := r.listening.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			_ = closeConn(control)
			return
		case err != nil:
			r.log.Warn("the fetch socket cannot be listened on; it is tried again", "error", err)
			select {
			case <-time.After(time.Second): // out of descriptors, say
			case <-ctx.Done():
				return
			}
			continue
		}
		if why := r.judge(control, turn); why != "" {
			_ = control.Close() // it is not spoken to
			if time.Since(strangers) > complainEvery {
				r.log.Warn("a connection to the fetch socket was refused", "why", why)
				strangers = time.Now()
			}
			continue
		}
		r.running.Go(func() {
			defer func() { <-turn }()
			r.serve(ctx, control)
		})
	}
}

// judge takes the turn for a connection, or returns why it is refused.
func (r *Remote) judge(control *net.UnixConn, turn chan<- struct{}) string {
	peer, err := peerOf(control)
	if err != nil {
		return "who it is cannot be told: " + err.Error()
	}
	if int(peer.Uid) != r.opts.UID {
		return "it is of the user " + strconv.Itoa(int(peer.Uid)) + ", and the fetch child's is " + strconv.Itoa(r.opts.UID)
	}
	select {
	case turn <- struct{}{}:
		return ""
	default:
		return "there is a fetch child already"
	}
}

// serve lets one child answer until its connection is over.
func (r *Remote) serve(ctx context.Context, control *net.UnixConn) {
	l := newLink(control, r.limits.respond)
	stop := context.AfterFunc(ctx, l.close)
	defer stop()
	defer l.close()
	if err := l.hello(min(helloWithin, r.limits.respond)); err != nil {
		if ctx.Err() == nil {
			r.log.Warn("a fetch child connected and said no hello", "error", err)
		}
		return
	}
	if !r.attach(l) {
		return
	}
	r.log.Info("the fetch child is connected", "socket", r.opts.Socket)
	l.watch()
	r.detach(l)
	if ctx.Err() == nil {
		r.log.Warn("the fetch child is gone", "why", l.ended())
	}
}

// remove removes the socket, unless another one stands there by now.
func (l *listener) remove() {
	_ = l.Close() // once more does no harm
	var found unix.Stat_t
	if unix.Lstat(l.path, &found) == nil && found.Ino == l.inode {
		_ = os.Remove(l.path) // what stays is replaced at the next start
	}
}

func closeConn(c *net.UnixConn) error {
	if c == nil {
		return nil
	}
	return c.Close()
}
