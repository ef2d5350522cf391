package sandbox

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestShell(t *testing.T) {
	if err := Shell(""); err != nil {
		t.Errorf("of this machine: %v", err)
	}
	for name, tc := range map[string]struct {
		links map[string]string
		file  string
		there bool
	}{
		"a file":                   {nil, "bin/sh", true},
		"Debian's links":           {map[string]string{"bin": "usr/bin", "usr/bin/sh": "dash"}, "usr/bin/dash", true},
		"links from the root":      {map[string]string{"bin": "/usr/bin", "usr/bin/sh": "/bin/busybox"}, "usr/bin/busybox", true},
		"links over the root":      {map[string]string{"bin": "../../../usr/../usr/bin"}, "usr/bin/sh", true},
		"links that lead nowhere":  {map[string]string{"bin/sh": "/bin/dash"}, "", false},
		"links to this machine's":  {map[string]string{"bin/sh": "/usr/bin/dash"}, "", false},
		"links without end":        {map[string]string{"bin/sh": "sh2", "bin/sh2": "sh"}, "", false},
		"a folder":                 {nil, "bin/sh/x", false},
		"nothing":                  {nil, "usr/bin/dash", false},
		"a file in the way of one": {nil, "bin", false},
	} {
		root := t.TempDir()
		create := func(file string, do func(string) error) {
			file = filepath.Join(root, file)
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), do(file)); err != nil {
				t.Fatal(err)
			}
		}
		if tc.file != "" {
			create(tc.file, func(file string) error { return os.WriteFile(file, nil, 0o600) })
		}
		for link, target := range tc.links {
			create(link, func(file string) error { return os.Symlink(target, file) })
		}
		if err := Shell(root); (err == nil) != tc.there || (err != nil && !errors.Is(err, exec.ErrNotFound)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
