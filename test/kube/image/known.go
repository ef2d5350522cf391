package image

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Names of the images that every node of a test cluster has.
const (
	PauseName   = "localhost/pause:1"
	BusyboxName = "localhost/busybox:1"
)

// pausePackage is the program of the pause image.
const pausePackage = "github.com/confine-dev/confine/test/kube/image/pause"

// busyboxFile is where Debian's package busybox-static puts it; that of the
// package busybox has the same name and needs a libc.
const busyboxFile = "/bin/busybox"

// Pause builds the image of the process that holds a pod's namespaces. The
// program is built to the file bin. The working directory must be inside of
// this module.
func Pause(ctx context.Context, bin string) (Image, error) {
	if err := GoBuild(ctx, bin, pausePackage); err != nil {
		return Image{}, err
	}
	return Image{
		Name:   PauseName,
		Files:  []File{{Path: "pause", Source: bin, Mode: 0o755}},
		Config: ocispec.ImageConfig{Entrypoint: []string{"/pause"}},
	}, nil
}

// GoBuild builds a Go program without cgo, and so static, into a file.
func GoBuild(ctx context.Context, bin, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", bin, pkg)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// Busybox makes an image with a shell and the usual commands, from Debian's
// busybox-static. A user "nobody" (65534) is in it.
func Busybox(ctx context.Context) (Image, error) {
	if err := checkStatic(busyboxFile); err != nil {
		return Image{}, fmt.Errorf("%w: install busybox-static", err)
	}
	out, err := exec.CommandContext(ctx, busyboxFile, "--list").Output()
	if err != nil {
		return Image{}, fmt.Errorf("listing the commands of %s: %w", busyboxFile, err)
	}
	files := []File{
		{Path: "bin/busybox", Source: busyboxFile, Mode: 0o755},
		{Path: "etc/passwd", Data: []byte("root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")},
		{Path: "etc/group", Data: []byte("root:x:0:\nnogroup:x:65534:\n")},
		{Path: "tmp", Dir: true, Mode: 0o777 | fs.ModeSticky},
	}
	commands := strings.Fields(string(out))
	slices.Sort(commands)
	for _, command := range slices.Compact(commands) {
		if command != "busybox" {
			files = append(files, File{Path: "bin/" + command, Link: "busybox"})
		}
	}
	return Image{
		Name:   BusyboxName,
		Files:  files,
		Config: ocispec.ImageConfig{Cmd: []string{"/bin/sh"}, Env: []string{"PATH=/bin"}},
	}, nil
}

// checkStatic refuses a program that wants a loader, which an image lacks.
func checkStatic(file string) error {
	program, err := elf.Open(file)
	if err != nil {
		return err
	}
	dynamic := slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
	if err := program.Close(); err != nil {
		return err
	}
	if dynamic {
		return errors.New(file + " is linked dynamically")
	}
	return nil
}
