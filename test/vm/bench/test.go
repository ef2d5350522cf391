package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/confine-dev/confine/test/vm/image"
	"github.com/confine-dev/confine/test/vm/machine"
)

// Bounds in time: of all suites together, and of one test package, which then
// says where it hangs before its machine is ended.
const (
	maxTime        = 25 * time.Minute
	maxPackageTime = "-timeout=9m"
)

// runTests runs `go test` once for each security module, and once for the tests
// of the machines themselves. All start as soon as they are compiled, one after
// the other; how many machines run at a time, those decide.
func runTests(ctx context.Context, args []string) (int, error) {
	modules, flags, named, err := split(args)
	if err != nil {
		return usage, err
	}
	if err := machine.Possible(); err != nil {
		return failed, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, maxTime, fmt.Errorf("the tests took longer than %s", maxTime))
	defer cancel()
	suites, err := suitesOf(ctx, modules, named)
	if err != nil {
		return failed, err
	}
	made, remove, err := prepare(ctx, os.Stderr, programsOf(suites))
	if err != nil {
		return failed, err
	}
	defer remove()
	program, err := self()
	if err != nil {
		return failed, err
	}
	for i := range suites {
		if suites[i].module != "" {
			// The kernel is no input that go test knows, so results are never reused.
			suites[i].flags = []string{"-exec", quote(program, "exec", "-lsm", string(suites[i].module),
				"-packages", made.source.Packages, "-init", made.source.Init, "-programs", made.programs, "--")}
		}
	}
	return runAll(ctx, suites, flags, os.Stdout)
}

// outsideTag is the build tag of tests that start machines themselves.
const outsideTag = "vm"

// suite is one run of go test.
type suite struct {
	name, tag string
	module    image.LSM // empty for tests outside of machines
	packages  []testPackage
	flags     []string
}

// suitesOf are those of the modules, the longest first; and where nothing is
// named, the one of the machines themselves.
func suitesOf(ctx context.Context, modules []image.LSM, named []string) ([]suite, error) {
	all := make([]suite, 0, len(modules)+1)
	for _, module := range slices.Backward(modules) {
		all = append(all, suite{name: string(module), tag: module.Tag(), module: module})
	}
	if len(named) == 0 && len(modules) == len(image.All()) {
		all = append(all, suite{name: "the machines", tag: outsideTag})
	}
	if len(named) == 0 {
		named = []string{"./..."}
	}
	for i := range all {
		var err error
		if all[i].packages, err = wanted(ctx, all[i].tag, named); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// runAll runs the suites and says whether all passed. What one prints comes in
// one piece, for they may have packages in common; a single one prints at once.
func runAll(ctx context.Context, suites []suite, flags []string, out io.Writer) (int, error) {
	var running sync.WaitGroup
	var printing sync.Mutex
	status, errs := ok, make([]error, len(suites))
	for i, s := range suites {
		// Compiled apart, what suites have in common is compiled once.
		if err := s.compile(ctx, flags); err != nil {
			errs[i] = err
			continue
		}
		running.Go(func() {
			var printed bytes.Buffer
			to := io.Writer(&printed)
			if len(suites) == 1 {
				to = out
			}
			passed, err := s.run(ctx, flags, to)
			printing.Lock()
			defer printing.Unlock()
			_, printErr := printed.WriteTo(out)
			if errs[i] = errors.Join(err, printErr); !passed {
				status = failed
			}
		})
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		return failed, err
	}
	return status, nil
}

// compile compiles and runs nothing. What does not compile shows when it is run.
func (s suite) compile(ctx context.Context, flags []string) error {
	nowhere := []string{"-exec", "true", "-run", "^$"}
	cmd := s.command(ctx, slices.Concat(flags, nowhere))
	return ended(ctx, cmd.Run())
}

func (s suite) run(ctx context.Context, flags []string, out io.Writer) (passed bool, err error) {
	start := time.Now()
	cmd := s.command(ctx, slices.Concat([]string{maxPackageTime}, s.flags, flags))
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	err = cmd.Run()
	fmt.Fprintf(os.Stderr, "vmrun: %s: %d packages, %.0f s\n", s.name, len(s.packages), time.Since(start).Seconds())
	return err == nil, ended(ctx, err)
}

func (s suite) command(ctx context.Context, flags []string) *exec.Cmd {
	args := slices.Concat([]string{"test", "-count=1", "-tags", s.tag}, flags)
	for _, p := range s.packages {
		args = append(args, p.ImportPath)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // a machine has no C library of the host's
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	return cmd
}

// ended tells a program that failed from one that could not be run to its end.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if _, itself := errors.AsType[*exec.ExitError](err); itself {
		return nil
	}
	return err
}

// split takes vmrun's own flag out of the arguments, and tells flags of go test
// from packages, which are paths.
func split(args []string) (modules []image.LSM, flags, packages []string, err error) {
	modules = image.All()
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == "-lsm" && i+1 < len(args):
			i++
			one, err := image.Parse(args[i])
			if err != nil {
				return nil, nil, nil, err
			}
			modules = []image.LSM{one}
		case strings.HasPrefix(args[i], "./"):
			packages = append(packages, args[i])
		default:
			flags = append(flags, args[i])
		}
	}
	return modules, flags, packages, nil
}

// quote joins words for the flag -exec, which splits at spaces and knows quotes.
func quote(words ...string) string {
	for i, word := range words {
		if word == "" || strings.ContainsAny(word, " \t") {
			words[i] = "'" + word + "'"
		}
	}
	return strings.Join(words, " ")
}
