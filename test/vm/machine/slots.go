package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// enter waits until fewer machines run than there are processors, and returns
// what ends the stay. A machine takes a whole processor: more of them at a time
// would only make each look slow to the tests in it. Places are locks on files,
// which the kernel gives back whatever becomes of their holder.
func enter(ctx context.Context) (leave func(), err error) {
	folder := filepath.Join(os.TempDir(), fmt.Sprintf("confine-vm-places-%d", os.Getuid()))
	if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	const pause = 50 * time.Millisecond
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		for place := range runtime.NumCPU() {
			held, err := hold(filepath.Join(folder, fmt.Sprint(place)))
			if err != nil {
				return nil, err
			}
			if held != nil {
				return func() { _ = held.Close() }, nil
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for other machines to end: %w", context.Cause(ctx))
		}
	}
}

// hold locks a file, or returns nil where another holds it.
func hold(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, f.Close()
	default:
		return nil, errors.Join(err, f.Close())
	}
}
