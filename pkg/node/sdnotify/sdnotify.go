// Package sdnotify tells systemd what state a service is in
// (https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html).
package sdnotify

import (
	"context"
	"net"
	"strconv"
	"time"
)

// Notify sends one state, such as "READY=1", to the socket that systemd named
// in NOTIFY_SOCKET. An empty socket means that nobody asked.
func Notify(ctx context.Context, socket, state string) error {
	if socket == "" {
		return nil
	}
	// A leading @ is an abstract socket; net knows that form.
	conn, err := (&net.Dialer{}).DialContext(ctx, "unixgram", socket)
	if err != nil {
		return err
	}
	if _, err := conn.Write([]byte(state)); err != nil {
		_ = conn.Close()
		return err
	}
	return conn.Close()
}

// WatchdogEvery returns how often the process pid should say that it is alive:
// half of what WATCHDOG_USEC allows, or zero where nobody asked for it.
func WatchdogEvery(lookup func(string) (string, bool), pid int) time.Duration {
	if forPID, ok := lookup("WATCHDOG_PID"); ok && forPID != strconv.Itoa(pid) {
		return 0
	}
	text, _ := lookup("WATCHDOG_USEC")
	usec, err := strconv.ParseInt(text, 10, 64)
	const longest = int64(24 * time.Hour / time.Microsecond)
	if err != nil || usec <= 0 || usec > longest {
		return 0
	}
	return time.Duration(usec) * time.Microsecond / 2
}
