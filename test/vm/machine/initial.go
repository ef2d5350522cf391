package machine

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/confine-dev/confine/test/vm/cpio"
	"github.com/confine-dev/confine/test/vm/job"
)

// maxKept bounds what a machine may send back.
const maxKept = 256 << 20

// writeInitial writes the machine's file system: the image, and on top of it
// the program, its test data and what is to be done.
func writeInitial(name string, opts Options) (j job.Job, err error) {
	out, err := os.Create(name)
	if err != nil {
		return job.Job{}, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := opts.Source.Write(out, opts.LSM); err != nil {
		return job.Job{}, fmt.Errorf("writing the machine's image: %w", err)
	}
	j, err = jobOf(opts)
	if err != nil {
		return job.Job{}, err
	}
	text, err := json.Marshal(j)
	if err != nil {
		return job.Job{}, err
	}
	c := cpio.NewWriter(out)
	c.Copy(opts.Args[0], job.Program)
	c.File(job.File, 0o600, text)
	c.Folder(j.Dir)
	for _, name := range slices.Sorted(maps.Keys(opts.Files)) {
		c.Copy(opts.Files[name], name)
	}
	data := filepath.Join(j.Dir, "testdata")
	if info, err := os.Stat(data); err == nil && info.IsDir() {
		c.Tree(data, data)
	}
	return j, c.Close()
}

func jobOf(opts Options) (job.Job, error) {
	if len(opts.Args) == 0 {
		return job.Job{}, errors.New("no program to run")
	}
	dir := opts.Dir
	if dir == "" {
		dir = "."
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return job.Job{}, err
	}
	return job.Job{
		LSM:  string(opts.LSM),
		Args: append([]string{job.Program}, opts.Args[1:]...),
		Env: append([]string{
			"PATH=" + job.Path, "HOME=/root", "TMPDIR=/tmp", "LC_ALL=C",
		}, opts.Env...),
		Dir:  dir,
		Keep: append(keptFolders(opts.Args[1:]), slices.Sorted(maps.Keys(opts.Keep))...),
	}, nil
}

// keptHere says where on this machine each folder of the machine is written:
// where it was there, or where Options.Keep has it.
func keptHere(folders []string, elsewhere map[string]string) map[string]string {
	here := map[string]string{}
	for _, folder := range folders {
		here[folder] = folder
	}
	maps.Copy(here, elsewhere)
	return here
}

// keptFolders are those that flags of a test binary write to: `go test` reads
// them when the binary has ended. (go help testflag)
func keptFolders(args []string) []string {
	var folders []string
	keep := func(folder string) {
		if filepath.IsAbs(folder) && !slices.Contains(folders, folder) {
			folders = append(folders, folder)
		}
	}
	for _, arg := range args {
		flag, value, ok := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch flag {
		case "test.gocoverdir", "test.outputdir":
			keep(value)
		case "test.coverprofile", "test.cpuprofile", "test.memprofile", "test.blockprofile", "test.mutexprofile",
			"test.trace", "test.testlogfile":
			if ok {
				keep(filepath.Dir(value))
			}
		}
	}
	return folders
}

// unpackKept writes what the machine sent back, where it was asked for and
// nowhere else, and returns the status that is its last entry. folders are
// those on this machine, by those in the other.
func unpackKept(archive string, folders map[string]string) (int, error) {
	f, err := os.Open(archive)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	left := int64(maxKept)
	for files := tar.NewReader(f); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return 0, errors.New("it sent no status")
		}
		if err != nil {
			return 0, err
		}
		if left -= h.Size; left < 0 {
			return 0, fmt.Errorf("it sent more than %d bytes", maxKept)
		}
		if h.Name == job.Status {
			text, err := io.ReadAll(files)
			if err != nil {
				return 0, err
			}
			return strconv.Atoi(string(text))
		}
		if err := unpackFile(h, files, folders); err != nil {
			return 0, err
		}
	}
}

func unpackFile(h *tar.Header, data io.Reader, folders map[string]string) error {
	for folder, here := range folders {
		name, below := strings.CutPrefix(h.Name, folder+"/")
		if !below {
			continue
		}
		root, err := os.OpenRoot(here)
		if err != nil {
			return err
		}
		defer root.Close()
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		out, err := root.Create(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, data)
		return errors.Join(err, out.Close())
	}
	return fmt.Errorf("%q was not asked for", h.Name)
}
