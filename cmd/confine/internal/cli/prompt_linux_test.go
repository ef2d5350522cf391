package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// promptChild makes a re-executed test binary ask for a password.
const promptChild = "CONFINE_TEST_PROMPT"

// openTerminal returns both ends of a new terminal.
func openTerminal(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ours.Close() })
	if err := unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = theirs.Close() })
	return ours, theirs
}

func echoes(t *testing.T, terminal *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// Ctrl-C at a password prompt ends the command and leaves the terminal as it was.
func TestAnInterruptedPromptEnds(t *testing.T) {
	if prefix := os.Getenv(promptChild); prefix != "" {
		streams := SystemStreams()
		streams.LookupEnv = func(string) (string, bool) { return "", false }
		os.Exit(Run(t.Context(), []string{"confine", "keygen", "--output-key-prefix", prefix}, streams)) //nolint:revive // this process is the command line under test
	}
	ours, theirs := openTerminal(t)
	prefix := t.TempDir() + "/cosign"
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAnInterruptedPromptEnds$")
	child.Env = append(os.Environ(), promptChild+"="+prefix)
	child.Stdin, child.Stdout, child.Stderr = theirs, theirs, theirs
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	for deadline := time.Now().Add(time.Minute); echoes(t, theirs); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no password was asked for")
		}
	}
	if _, err := ours.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != ExitRefused {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(time.Minute):
		_ = child.Process.Kill()
		t.Fatal("it did not end")
	}
	if !echoes(t, theirs) {
		t.Error("the terminal no longer echoes")
	}
	_ = theirs.Close()
	said, _ := io.ReadAll(ours) // ends with an error, as no other end is left
	if !bytes.Contains(said, []byte("interrupted")) {
		t.Errorf("it said %q", said)
	}
	if exists(prefix + ".key") {
		t.Error("a key was written")
	}
}
