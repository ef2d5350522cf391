//go:build amd64 || arm64

package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// StatusOf reads what the kernel says of a process; 0 means this one. Of a
// process with several threads it is its first thread.
func StatusOf(pid int) (Status, error) {
	name := "self"
	if pid != 0 {
		name = strconv.Itoa(pid)
	}
	return readStatus(filepath.Join("/proc", name, "status"))
}

func readStatus(file string) (Status, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return Status{}, err
	}
	s, err := parseStatus(string(data))
	if err != nil {
		return Status{}, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

// parseStatus reads the lines that Status has. A missing one is an error: an old
// kernel's silence must not pass for a wall.
func parseStatus(text string) (Status, error) {
	var s Status
	fields := map[string]func(string) error{
		"Uid":        ids(&s.UID),
		"Gid":        ids(&s.GID),
		"CapInh":     set(&s.Inheritable),
		"CapPrm":     set(&s.Permitted),
		"CapEff":     set(&s.Effective),
		"CapBnd":     set(&s.Bounding),
		"CapAmb":     set(&s.Ambient),
		"NoNewPrivs": flag(&s.NoNewPrivs, "1"),
		"Seccomp":    flag(&s.Filtered, "2"),
	}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		parse, ok := fields[key]
		if !ok {
			continue
		}
		if err := parse(strings.TrimSpace(value)); err != nil {
			return Status{}, fmt.Errorf("%s: %w", key, err)
		}
		delete(fields, key)
	}
	for key := range fields {
		return Status{}, fmt.Errorf("no line %s", key)
	}
	return s, nil
}

func ids(to *[4]int) func(string) error {
	return func(value string) error {
		fields := strings.Fields(value)
		if len(fields) != len(to) {
			return fmt.Errorf("%d numbers", len(fields))
		}
		for i, field := range fields {
			n, err := strconv.Atoi(field)
			if err != nil {
				return err
			}
			to[i] = n
		}
		return nil
	}
}

func set(to *Capabilities) func(string) error {
	return func(value string) error {
		n, err := strconv.ParseUint(value, 16, 64)
		*to = Capabilities(n)
		return err
	}
}

func flag(to *bool, yes string) func(string) error {
	return func(value string) error {
		*to = value == yes
		return nil
	}
}

// eachThread calls do with the status of every thread of this process.
func eachThread(do func(Status) error) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		s, err := readStatus(filepath.Join("/proc/self/task", t.Name(), "status"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it ended
		}
		if err == nil {
			err = do(s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
