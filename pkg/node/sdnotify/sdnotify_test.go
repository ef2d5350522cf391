package sdnotify_test

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/confine-dev/confine/pkg/node/sdnotify"
)

func TestNotify(t *testing.T) {
	for name, socket := range map[string]string{"a file": filepath.Join(t.TempDir(), "s"), "abstract": "@confine-test-" + t.Name()} {
		t.Run(name, func(t *testing.T) {
			conn, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "unixgram", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if err := sdnotify.Notify(t.Context(), socket, "READY=1"); err != nil {
				t.Fatal(err)
			}
			buffer := make([]byte, 100)
			n, _, err := conn.ReadFrom(buffer)
			if err != nil || string(buffer[:n]) != "READY=1" {
				t.Errorf("got %q, %v", buffer[:n], err)
			}
		})
	}
	if err := sdnotify.Notify(t.Context(), "", "READY=1"); err != nil {
		t.Errorf("nobody asked: %v", err)
	}
	if err := sdnotify.Notify(t.Context(), filepath.Join(t.TempDir(), "none"), "READY=1"); err == nil {
		t.Error("a socket that is not there was told")
	}
}

func TestWatchdogEvery(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		want time.Duration
	}{
		"nobody asked":    {nil, 0},
		"half of it":      {map[string]string{"WATCHDOG_USEC": "60000000"}, 30 * time.Second},
		"for this one":    {map[string]string{"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "7"}, time.Second},
		"for another one": {map[string]string{"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "8"}, 0},
		"no number":       {map[string]string{"WATCHDOG_USEC": "x"}, 0},
		"beyond sense":    {map[string]string{"WATCHDOG_USEC": "9223372036854775807"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			lookup := func(key string) (string, bool) { v, ok := c.env[key]; return v, ok }
			if got := sdnotify.WatchdogEvery(lookup, 7); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}
