package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The modules whose facts the baseline holds.
const (
	containerdModule = "github.com/containerd/containerd/v2"
	sysModule        = "golang.org/x/sys"
)

// goarches are the values of GOARCH that containerd's default profile tells
// apart or that stand for an architecture of the runtime-spec.
func goarches() []string {
	return []string{"amd64", "arm64", "loong64", "mips64", "mips64le", "ppc64", "ppc64le", "riscv64", "s390x"}
}

// tables are the architectures whose syscall tables golang.org/x/sys holds.
func tables() []string {
	return []string{"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc",
		"ppc64", "ppc64le", "riscv64", "s390x"}
}

// document is the file the program writes.
type document struct {
	Sources []string `json:"sources"`
	// Everywhere are the rules that all of Profiles share.
	Everywhere json.RawMessage            `json:"everywhere"`
	Profiles   map[string]json.RawMessage `json:"profiles"`
	// Syscalls maps each syscall to the indexes in Tables of those that have it.
	Tables   []string         `json:"tables"`
	Syscalls map[string][]int `json:"syscalls"`
	// Errnos are those of linux/amd64, which all but MIPS, SPARC and PA-RISC share.
	Errnos map[string]uint32 `json:"errnos"`
}

func main() {
	out := flag.String("o", "", "file to write")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(out string) error {
	containerd, containerdVersion, err := module(containerdModule)
	if err != nil {
		return err
	}
	sys, sysVersion, err := module(sysModule)
	if err != nil {
		return err
	}
	doc := document{
		Sources: []string{
			containerdModule + "@" + containerdVersion + " contrib/seccomp, no capabilities",
			sysModule + "@" + sysVersion + " unix/zsysnum_linux_*.go, unix/zerrors_linux_amd64.go",
		},
		Tables: tables(),
	}
	if doc.Everywhere, doc.Profiles, err = profiles(containerd); err != nil {
		return err
	}
	if doc.Syscalls, err = syscalls(sys); err != nil {
		return err
	}
	if doc.Errnos, err = errnos(sys); err != nil {
		return err
	}
	data, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	// One line for each table keeps diffs readable.
	data = bytes.ReplaceAll(data, []byte(`,"everywhere":`), []byte(",\n\"everywhere\":"))
	for _, key := range []string{"profiles", "tables", "syscalls", "errnos"} {
		data = bytes.ReplaceAll(data, []byte(`,"`+key+`":`), []byte(",\n\""+key+"\":"))
	}
	data = append(data, '\n')
	if out == "" {
		_, err = os.Stdout.Write(data)
		return err
	}
	return os.WriteFile(out, data, 0o644)
}

func module(path string) (dir, version string, err error) {
	text, err := command("", "go", "mod", "download", "-json", path)
	if err != nil {
		return "", "", err
	}
	var m struct{ Dir, Version string }
	if err := json.Unmarshal(text, &m); err != nil {
		return "", "", fmt.Errorf("go mod download %s: %w", path, err)
	}
	return m.Dir, m.Version, nil
}

// profiles runs containerd's own function for every GOARCH. It asks
// runtime.GOARCH, so its source is compiled here with a variable in that place.
func profiles(containerd string) (json.RawMessage, map[string]json.RawMessage, error) {
	source, err := os.ReadFile(filepath.Join(containerd, "contrib/seccomp/seccomp_default.go"))
	if err != nil {
		return nil, nil, err
	}
	text := strings.ReplaceAll(string(source), "runtime.GOARCH", "goarch")
	text = strings.Replace(text, "\t\"runtime\"\n", "", 1)
	text = strings.Replace(text, "package seccomp", "package main", 1)
	dir, err := os.MkdirTemp(".", "run-")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, "profile.go"), []byte(text), 0o600),
		os.WriteFile(filepath.Join(dir, "main.go"), []byte(dumpProgram), 0o600))
	if err != nil {
		return nil, nil, err
	}
	data, err := command("", "go", append([]string{"run", "./" + dir}, goarches()...)...)
	if err != nil {
		return nil, nil, err
	}
	var perArch map[string][]json.RawMessage
	if err := json.Unmarshal(data, &perArch); err != nil {
		return nil, nil, err
	}
	return split(perArch)
}

// dumpProgram prints the rules of each GOARCH given, as a JSON object.
const dumpProgram = `package main

import (
	"encoding/json"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
)

var goarch string

func main() {
	all := map[string][]specs.LinuxSyscall{}
	for _, goarch = range os.Args[1:] {
		spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}}
		profile := DefaultProfile(spec)
		if profile.DefaultAction != specs.ActErrno {
			panic("the default action is " + profile.DefaultAction)
		}
		all[goarch] = profile.Syscalls
	}
	if err := json.NewEncoder(os.Stdout).Encode(all); err != nil {
		panic(err)
	}
}
`

// split moves the rules all architectures share into one list.
func split(perArch map[string][]json.RawMessage) (json.RawMessage, map[string]json.RawMessage, error) {
	count := map[string]int{}
	for _, rules := range perArch {
		for _, rule := range rules {
			count[string(rule)]++
		}
	}
	shared := func(rule json.RawMessage) bool { return count[string(rule)] == len(perArch) }
	everywhere, err := json.Marshal(slices.DeleteFunc(slices.Clone(perArch["amd64"]),
		func(rule json.RawMessage) bool { return !shared(rule) }))
	if err != nil {
		return nil, nil, err
	}
	own := map[string]json.RawMessage{}
	for arch, rules := range perArch {
		if own[arch], err = json.Marshal(slices.DeleteFunc(slices.Clone(rules), shared)); err != nil {
			return nil, nil, err
		}
	}
	return everywhere, own, nil
}

func syscalls(sys string) (map[string][]int, error) {
	constant := regexp.MustCompile(`(?m)^\tSYS_([A-Z0-9_]+) +=`)
	all := map[string][]int{}
	for i, table := range tables() {
		text, err := os.ReadFile(filepath.Join(sys, "unix", "zsysnum_linux_"+table+".go"))
		if err != nil {
			return nil, err
		}
		found := constant.FindAllSubmatch(text, -1)
		if len(found) < 200 {
			return nil, fmt.Errorf("%s: only %d syscalls read", table, len(found))
		}
		for _, m := range found {
			name := strings.ToLower(string(m[1]))
			all[name] = append(all[name], i)
		}
	}
	return all, nil
}

func errnos(sys string) (map[string]uint32, error) {
	all := map[string]uint32{}
	for _, file := range []string{"zerrors_linux.go", "zerrors_linux_amd64.go"} {
		text, err := os.ReadFile(filepath.Join(sys, "unix", file))
		if err != nil {
			return nil, err
		}
		constant := regexp.MustCompile(`(?m)^\t(E[A-Z0-9]+) += syscall\.Errno\((0x[0-9a-f]+)\)`)
		for _, m := range constant.FindAllSubmatch(text, -1) {
			value, err := strconv.ParseUint(string(m[2]), 0, 12)
			if err != nil {
				return nil, err
			}
			all[string(m[1])] = uint32(value)
		}
	}
	if len(all) < 100 {
		return nil, fmt.Errorf("only %d errnos read", len(all))
	}
	return all, nil
}

func command(dir, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, stderr.String())
	}
	return out, nil
}
