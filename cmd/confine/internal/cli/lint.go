package cli

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/profile/seccomp/compile"
	"github.com/confine-dev/confine/pkg/reason"
)

func (a *app) lintCommand() *cobra.Command {
	var o outputFlag
	var strict bool
	var namespace string
	cmd := &cobra.Command{
		Use:   "lint FILE...",
		Short: "Check profiles: errors with their position, warnings, and what the default constraints forbid",
		Long: `Lint reads each file strictly and prints what is wrong, what a reviewer should
see, and whether the default constraints of a TrustPolicy would forbid it. It
exits 1 where a file is invalid; with --strict also where the default
constraints forbid one.

The names of AppArmor and SELinux profiles belong to the namespace that they
say. Lint takes any that is well formed; with --namespace, only those of the
namespace that the SecurityProfile is in, as nodes do.`,
		Example: `  confine lint nginx.json
  confine lint profiles/*.json --strict -o json
  confine lint nginx.aa nginx.cil --namespace web --strict`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			by := profile.ForAnyone()
			if cmd.Flags().Changed("namespace") {
				by = profile.For(profile.Owner{Namespace: namespace})
			}
			return a.lint(args, by, o, strict)
		},
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "fail where the default constraints forbid a profile, too")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the SecurityProfile to judge names for (default any)")
	o.add(cmd)
	return cmd
}

type linted struct {
	File     string            `json:"file"`
	Kind     string            `json:"kind,omitempty"`
	Valid    bool              `json:"valid"`
	Reason   string            `json:"reason,omitempty"`
	Message  string            `json:"message,omitempty"`
	Findings []profile.Finding `json:"findings,omitempty"`
	// Forbidden says why the default constraints forbid the profile.
	Forbidden string `json:"forbidden,omitempty"`
}

func (a *app) lint(files []string, by profile.Scope, o outputFlag, strict bool) error {
	kinds := knownKinds()
	results := make([]linted, 0, len(files))
	failed := false
	for _, file := range files {
		result := lintFile(file, kinds, by)
		failed = failed || !result.Valid || (strict && result.Forbidden != "")
		results = append(results, result)
	}
	if err := a.print(o, results, func() { a.printLinted(results) }); err != nil {
		return err
	}
	if failed {
		return &exitError{code: ExitRefused}
	}
	return nil
}

func lintFile(file string, kinds profile.Set, by profile.Scope) linted {
	result := linted{File: file}
	input, err := readInput(file, kinds)
	if err != nil {
		return result.refused(err)
	}
	result.Kind = input.Kind
	parsed, err := parseInput(input, kinds)
	if err != nil {
		return result.refused(err)
	}
	result.Valid = true
	result.Findings = parsed.Findings()
	if p, ok := parsed.(*seccomp.Profile); ok {
		result = result.compiled(p)
	}
	if kind, ok := kinds.ByName(input.Kind); ok {
		if err := kind.Constrain(parsed, by, nil); err != nil {
			result.Forbidden = err.Error()
		}
	}
	return result
}

// compiled adds what the kernel's filter compiler says, where this build has it.
func (l linted) compiled(p *seccomp.Profile) linted {
	findings, err := within(compileLimit, func() ([]profile.Finding, error) { return compile.Check(p) })
	switch {
	case errors.Is(err, reason.KindUnsupported):
		return l
	case errors.Is(err, errTooSlow):
		l.Findings = append(l.Findings, profile.Finding{Message: "libseccomp did not compile it within " + compileLimit.String() +
			": container runtimes would hang on it as well"})
		return l
	case err != nil:
		return l.refused(err)
	}
	for _, f := range findings {
		// The compiler and the reader both report a misspelt name.
		if !slices.ContainsFunc(l.Findings, func(known profile.Finding) bool { return known.Position == f.Position && f.Position != "" }) {
			l.Findings = append(l.Findings, f)
		}
	}
	return l
}

// compileLimit bounds compiling one profile, which takes milliseconds: rules
// that contradict each other can make libseccomp take minutes.
const compileLimit = 15 * time.Second

var errTooSlow = errors.New("it took too long")

// within gives up waiting for work that cannot be interrupted. The work goes
// on until the program ends, which for a command is soon.
func within[T any](limit time.Duration, work func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := work()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-time.After(limit):
		var none T
		return none, errTooSlow
	}
}

func (l linted) refused(err error) linted {
	l.Valid = false
	l.Message = err.Error()
	if e, ok := reason.Of(err); ok {
		l.Reason, l.Message = string(e.Reason), fmt.Sprintf("%s: %s", e.Object, e.Detail)
	}
	return l
}

func (a *app) printLinted(results []linted) {
	for _, r := range results {
		if !r.Valid {
			a.printf("%s: error: %s\n", oneLine(r.File), oneLine(r.Message))
			continue
		}
		for _, f := range r.Findings {
			position := oneLine(r.File)
			if f.Position != "" {
				position += ":" + f.Position
			}
			a.printf("%s: warning: %s\n", position, oneLine(f.Message))
		}
		if r.Forbidden != "" {
			a.printf("%s: forbidden by the default constraints: %s\n", oneLine(r.File), oneLine(r.Forbidden))
		}
		a.printf("%s: valid %s profile\n", oneLine(r.File), r.Kind)
	}
}
