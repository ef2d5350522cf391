package cli

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

// errInterrupted is the answer to a prompt that was given up.
var errInterrupted = errors.New("interrupted, and nothing was done")

// promptSecret asks at the terminal without echo. The program's own handling
// of signals ends its context, which nothing waits for while it reads from a
// terminal, so an interruption is heard here too.
func promptSecret(terminal *os.File, prompt string) ([]byte, error) {
	fd := int(terminal.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupted)

	type answer struct {
		secret []byte
		err    error
	}
	answered := make(chan answer, 1)
	_, _ = fmt.Fprint(os.Stderr, prompt)
	go func() {
		secret, err := term.ReadPassword(fd)
		answered <- answer{secret, err}
	}()
	defer func() { _, _ = fmt.Fprintln(os.Stderr) }()
	select {
	case a := <-answered:
		return a.secret, a.err
	case <-interrupted:
		return nil, errors.Join(errInterrupted, term.Restore(fd, before))
	}
}
