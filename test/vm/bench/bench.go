// Package bench runs Go's tests inside of virtual machines; it is the body of
// the command vmrun.
package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/confine-dev/confine/test/vm/image"
	"github.com/confine-dev/confine/test/vm/job"
	"github.com/confine-dev/confine/test/vm/machine"
)

// Exit statuses of vmrun beside those of the programs it runs.
const (
	ok     = 0
	failed = 1
	usage  = 2
)

// Main runs one command line and returns the exit status.
func Main(ctx context.Context, args []string) int {
	if len(args) > 0 && args[0] == "exec" {
		return report(execute(ctx, args[1:]))
	}
	if len(args) > 0 && args[0] == "test" {
		return report(runTests(ctx, args[1:]))
	}
	fmt.Fprintln(os.Stderr, "usage: vmrun test [-lsm NAME] [go test flags] [packages]\n       vmrun exec -lsm NAME -- PROGRAM [ARGUMENT...]")
	return usage
}

func report(status int, err error) int {
	if err == nil {
		return status
	}
	if errors.Is(err, machine.ErrImpossible) && os.Getenv("CI") != "true" {
		fmt.Fprintf(os.Stderr, "vmrun: SKIPPED: nothing was tested, because %v\n", err)
		return ok
	}
	fmt.Fprintln(os.Stderr, "vmrun:", err)
	return max(status, failed)
}

// execute is what `go test -exec` calls for each test binary.
func execute(ctx context.Context, args []string) (int, error) {
	flags := flag.NewFlagSet("vmrun exec", flag.ContinueOnError)
	lsm := flags.String("lsm", "", "security module of the machine's kernel: apparmor or selinux")
	packages := flags.String("packages", "", "folder of unpacked packages; empty fetches them where they are missing")
	initial := flags.String("init", "", "the machine's first process; empty builds it")
	programs := flags.String("programs", "", "folder of built programs of ./cmd; empty builds those that the working directory's "+programsFile+" lists")
	log := flags.String("kernel-log", "", "file to write the kernel's log to")
	memory := flags.Int("memory", 0, "memory in MiB")
	if err := flags.Parse(args); err != nil {
		return usage, err
	}
	module, err := image.Parse(*lsm)
	if err != nil {
		return usage, err
	}
	if err := machine.Possible(); err != nil {
		return failed, err
	}
	wanted, err := wantedPrograms(".")
	if err != nil {
		return usage, err
	}
	m := made{source: image.Source{Packages: *packages, Init: *initial}, programs: *programs}
	if *packages == "" || *initial == "" || *programs == "" {
		var remove func()
		if m, remove, err = prepare(ctx, os.Stderr, wanted); err != nil {
			return failed, err
		}
		defer remove()
	}
	files := map[string]string{}
	for _, name := range wanted {
		files[path.Join(job.Programs, name)] = filepath.Join(m.programs, name)
	}
	return machine.Run(ctx, machine.Options{
		Source: m.source, LSM: module, Args: flags.Args(), Env: environment(), Files: files, Memory: *memory, KernelLog: *log,
	})
}

// made is what machines have in common.
type made struct {
	source   image.Source
	programs string // folder
}

// prepare makes what machines have in common. The function it returns takes
// away what is not cached.
func prepare(ctx context.Context, progress io.Writer, programs []string) (made, func(), error) {
	packages, err := image.Packages(ctx, progress)
	if err != nil {
		return made{}, nil, fmt.Errorf("fetching the machine's packages: %w", err)
	}
	scratch, err := os.MkdirTemp("", "confine-vm-made-")
	if err != nil {
		return made{}, nil, err
	}
	remove := func() { _ = os.RemoveAll(scratch) }
	first, err := image.BuildInit(ctx, scratch)
	if err == nil {
		err = image.BuildPrograms(ctx, scratch, programs)
	}
	if err != nil {
		remove()
		return made{}, nil, err
	}
	return made{source: image.Source{Packages: packages, Init: first}, programs: scratch}, remove, nil
}

// environment is what a program in the machine sees of this process's: what
// steers Go's runtime and Confine's tests.
func environment() []string {
	var passed []string
	for _, assignment := range os.Environ() {
		name, _, _ := strings.Cut(assignment, "=")
		switch {
		case strings.HasPrefix(name, "CONFINE_TEST_"), name == "CI", name == "GODEBUG", name == "GOTRACEBACK", name == "GOMAXPROCS":
			passed = append(passed, assignment)
		}
	}
	return passed
}

// self is the path of this program, which `go test` calls again.
func self() (string, error) {
	name, err := os.Executable()
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(name)
}
