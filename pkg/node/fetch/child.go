package fetch

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/reason"
)

// Bounds on how often a child dials that finds nobody, or is sent away.
const (
	firstDial   = 200 * time.Millisecond
	longestDial = 15 * time.Second
)

// Child is what a fetch child runs. Confine must have been called.
type Child struct {
	// ControlFD is the descriptor of its end of the control connection; zero
	// means that it dials Socket.
	ControlFD int
	// Socket is where the parent listens.
	Socket string
	// DockerConfig and CAFile name the files that the registry client reads;
	// empty means none. Those of a child with a ControlFD were handed over.
	DockerConfig, CAFile string
	// Open returns what is served. It reads the files with readFile, which is
	// nil where they are read as files are.
	Open func(readFile func(string) ([]byte, error)) (artifact.Fetcher, error)
	// Log receives what is worth knowing; nil means nowhere.
	Log *slog.Logger
}

// Run serves until ctx ends or, with a ControlFD, until the parent is gone.
// Neither is an error.
func (c Child) Run(ctx context.Context) error {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.ControlFD == 0 {
		return c.dial(ctx)
	}
	control, err := controlOf(os.NewFile(uintptr(c.ControlFD), "control"))
	if err != nil {
		return reason.New(reason.InstallFailed, "fetch child", "descriptor %d: %w", c.ControlFD, err).
			WithAdvice("the agent starts this by itself; to start it as a service of its own, give --socket")
	}
	defer control.Close() //nolint:errcheck // the process ends with it
	if err := limitProcesses(control); err != nil {
		return err
	}
	server := NewServer(control)
	if err := server.Await(c.DockerConfig, c.CAFile); err != nil {
		return err
	}
	from, err := c.Open(server.ReadFile)
	if err != nil {
		return err
	}
	return server.Serve(ctx, from)
}

// dial serves one parent after another, as it is started again.
func (c Child) dial(ctx context.Context) error {
	from, err := c.Open(nil)
	if err != nil {
		return err
	}
	pause, said := firstDial, false
	for {
		began := time.Now()
		why := c.serveOnce(ctx, from)
		if time.Since(began) > longestDial {
			pause, said = firstDial, false
		}
		if !said && ctx.Err() == nil {
			c.Log.Warn("not connected to the agent; it is tried again", "socket", c.Socket, "why", why)
			said = true
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, longestDial)
	}
}

var errSentAway = errors.New("the agent ended the connection")

// serveOnce serves one connection until its end, and returns why it ended.
func (c Child) serveOnce(ctx context.Context, from artifact.Fetcher) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.Socket)
	if err != nil {
		return err
	}
	control, ok := conn.(*net.UnixConn)
	if !ok {
		return errors.Join(errors.New("it is no unix socket"), conn.Close())
	}
	defer control.Close() //nolint:errcheck // it is over
	if err := Serve(ctx, control, from); err != nil {
		return err
	}
	return errSentAway
}
