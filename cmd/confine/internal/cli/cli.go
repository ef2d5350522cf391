// Package cli is the confine command line: wiring of the use cases, and how
// their results and refusals are shown. It decides nothing itself.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/confine-dev/confine/cmd/confine/internal/kube"
	"github.com/confine-dev/confine/pkg/reason"
)

// Exit codes of every command; `confine --help` lists them.
const (
	ExitOK      = 0
	ExitRefused = 1 // refused, or the answer is no (diff: they differ)
	ExitUsage   = 2 // the command line is wrong
	ExitRetry   = 3 // it could not be done now; the same command may work later
)

// Streams are what a command reads and writes.
type Streams struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
	// LookupEnv reads an environment variable.
	LookupEnv func(string) (string, bool)
	// ReadPassword asks for a secret without echo; nil where there is no terminal.
	ReadPassword func(prompt string) ([]byte, error)
	// ErrTerminal is set where Err is a terminal: then progress is shown there.
	ErrTerminal bool
	// OutTerminal is set where Out is a terminal: a person looks at it now.
	OutTerminal bool
	// Color is set where Out is a terminal that wants color.
	Color bool
	// Width returns how many columns the terminal has; nil where there is none.
	Width func() int
}

// SystemStreams returns the process's own streams.
func SystemStreams() Streams {
	s := Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, LookupEnv: os.LookupEnv}
	s.ErrTerminal = isTerminal(os.Stderr)
	s.OutTerminal = isTerminal(os.Stdout)
	s.Width = func() int {
		width, _, err := term.GetSize(int(os.Stderr.Fd()))
		if err != nil {
			return 0
		}
		return width
	}
	s.Color = s.OutTerminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	if isTerminal(os.Stdin) {
		s.ReadPassword = func(prompt string) ([]byte, error) { return promptSecret(os.Stdin, prompt) }
	}
	return s
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// app is what the commands share.
type app struct {
	Streams

	dockerConfig string
	caFile       string
	timeout      time.Duration
}

// Run executes one command line (args[0] is the program's name) and returns
// the exit code. Only errors, warnings and progress go to Err.
func Run(ctx context.Context, args []string, streams Streams) int {
	a := &app{Streams: streams}
	root := a.root(filepath.Base(args[0]))
	root.SetArgs(args[1:])
	ran, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return ExitOK
	case errors.Is(err, errDiffers):
		return ExitRefused
	}
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	a.printError(ran, err)
	return exitCode(err)
}

func exitCode(err error) int {
	var usage *usageError
	e, ok := reason.Of(err)
	switch {
	case errors.As(err, &usage):
		return ExitUsage
	case ok && e.Reason.Fate() == reason.Retry, kube.IsAgain(err):
		return ExitRetry
	default:
		return ExitRefused
	}
}

func (a *app) root(name string) *cobra.Command {
	if strings.HasPrefix(name, "kubectl-") {
		name = "kubectl confine"
	}
	root := &cobra.Command{
		Use:   "confine",
		Short: "Deliver signed seccomp, AppArmor and SELinux profiles as OCI artifacts",
		Long: `Confine packs, signs and pushes security profiles as OCI artifacts, verifies
them against trust policies, and shows what nodes made of them.

Exit codes: 0 done; 1 refused, for "diff" the two differ, for "rollout status" it
failed, for "why" it is stuck; 2 wrong usage; 3 it could not be done now, or is
still under way: the same command may work later.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.timeout <= 0 {
				return usagef("--timeout %s: give a duration above zero, such as 30s", a.timeout)
			}
			return nil
		},
	}
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: name}
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usagef("%w", err) })
	flags := root.PersistentFlags()
	flags.StringVar(&a.dockerConfig, "docker-config", "", "docker config file with registry credentials (default ~/.docker/config.json where it exists)")
	flags.StringVar(&a.caFile, "ca-file", "", "PEM file of certificate authorities to trust for registries, beside the system's")
	flags.DurationVar(&a.timeout, "timeout", 2*time.Minute, "how long the command may take in all")
	root.AddCommand(
		a.pushCommand(), a.pullCommand(), a.verifyCommand(), a.inspectCommand(), a.resolveCommand(),
		a.lintCommand(), a.diffCommand(), a.runCommand(), a.keygenCommand(),
		a.statusCommand(), a.rolloutCommand(), a.whyCommand(), a.nodeCommand(), a.versionCommand(),
	)
	wrapUsage(root)
	return root
}

// wrapUsage makes wrong arguments and missing flags usage errors, for the exit
// code.
func wrapUsage(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := errors.Join(check(cmd, args), cmd.ValidateRequiredFlags()); err != nil {
				return usagef("%w", err)
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		wrapUsage(sub)
	}
}

// usageError is a wrong command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...)}
}

// exitError ends the program with another program's exit code.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// errDiffers is diff's answer that the two are not the same.
var errDiffers = errors.New("they differ")

// printError shows what happened, to which object, and what to do.
func (a *app) printError(cmd *cobra.Command, err error) {
	var usage *usageError
	if errors.As(err, &usage) {
		a.errorf("error: %s\n", oneLine(err.Error()))
		a.errorf("usage: %s\n", cmd.UseLine())
		a.errorf("see:   %s --help\n", cmd.CommandPath())
		return
	}
	a.errorf("error: %s\n", oneLine(err.Error()))
	var advisor advisor
	if errors.As(err, &advisor) && advisor.WhatToDo() != "" {
		a.errorf("what to do: %s\n", oneLine(advisor.WhatToDo()))
	}
}

// advisor is an error that says what to do, such as *reason.Error.
type advisor interface {
	error
	WhatToDo() string
}

// oneLine keeps foreign text from drawing on the terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r): // also what reorders text
			return -1
		default:
			return r
		}
	}, s)
}

func (a *app) printf(format string, args ...any) { _, _ = fmt.Fprintf(a.Out, format, args...) }
func (a *app) errorf(format string, args ...any) { _, _ = fmt.Fprintf(a.Err, format, args...) }

// progress shows what long work is at, on a terminal only.
func (a *app) progress(format string, args ...any) func() {
	if !a.ErrTerminal {
		return func() {}
	}
	a.errorf("\r\x1b[K%s", oneLine(fmt.Sprintf(format, args...)))
	return func() { a.errorf("\r\x1b[K") }
}

// within bounds a command's time.
func (a *app) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, a.timeout)
}
