package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
)

// files are two texts whose profiles are called after their owner.
func files(o profile.Owner, v profiletest.Variant) []profile.File {
	text := func(name, rules string) []byte {
		return fmt.Appendf(nil, "profile confine.%s.%s.%s {\n  %s\n}\n", o.Namespace, o.Name, name, rules)
	}
	rules := "file,"
	if v == profiletest.Second {
		rules = "file,\n  deny /srv/** w,"
	}
	web := profile.File{Name: "web.aa", Data: text("web", rules)}
	worker := profile.File{Name: "worker.aa", Data: text("worker", rules+"\n  profile child {\n    file,\n  }")}
	if v == profiletest.Fewer {
		return []profile.File{web}
	}
	return []profile.File{web, worker}
}

// fastDir is a temporary folder in memory where there is one.
func fastDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "confine-host-") //nolint:usetesting // t.TempDir is on the disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// open starts a Host on a kernel and a compiler.
func open(o Options, k kernel, c compiler) (*Host, error) {
	h, err := New(o)
	if err != nil {
		return nil, err
	}
	h.kernel, h.compiler = k, c
	if _, ok := k.(securityfs); !ok {
		h.proc = "testdata/proc" // of a machine with nothing but its first process
	}
	return h, nil
}

func machine(t *testing.T, k kernel, c compiler) profiletest.Machine {
	t.Helper()
	root := filepath.Join(fastDir(t), "apparmor")
	loadOther := func(rules string) func(profile.Installed) error {
		return func(in profile.Installed) error {
			text := "profile " + in.References[0] + " " + rules + "\n"
			policy, err := c.compile(context.Background(), profile.File{Name: "drift", Data: []byte(text)})
			if err != nil {
				return err
			}
			return k.replace(policy)
		}
	}
	onRecord := func(damage func(file string) error) func(profile.Installed) error {
		return func(in profile.Installed) error { return damage(filepath.Join(root, fileOf(in.Owner))) }
	}
	return profiletest.Machine{
		Open: func(before func() error) (profile.Host, error) {
			o := Options{Root: root}
			if before != nil {
				o.Before = func(durable.Step) error { return before() }
			}
			return open(o, k, c)
		},
		Unsupported: func() (profile.Host, error) {
			return New(Options{Root: root, PolicyFolder: filepath.Join(root, "none")})
		},
		State: func() (map[string]string, error) { return state(root, k) },
		Drift: map[string]func(profile.Installed) error{
			"a profile that was unloaded": func(in profile.Installed) error { return k.remove(in.References[0]) },
			"a child that was unloaded":   func(in profile.Installed) error { return k.remove(in.References[1] + "//child") },
			"a reboot": func(in profile.Installed) error {
				return errors.Join(k.remove(in.References[0]), k.remove(in.References[1]))
			},
			"other rules":                      loadOther("{\n  capability,\n}"),
			"complain mode":                    loadOther("flags=(complain) {\n  file,\n}"),
			"a missing record":                 onRecord(os.Remove),
			"a record that cannot be read":     onRecord(func(file string) error { return os.Truncate(file, 20) }),
			"an empty record":                  onRecord(func(file string) error { return os.Truncate(file, 0) }),
			"a record replaced by a link":      onRecord(func(file string) error { return errors.Join(os.Remove(file), os.Symlink("/etc/passwd", file)) }),
			"a record with another text in it": onRecord(otherText),
		},
	}
}

func otherText(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	// The first bytes of both texts in base64: "profile" and "Profile".
	return os.WriteFile(file, []byte(strings.Replace(string(data), `"cHJv`, `"UHJv`, 1)), 0o600)
}

// state renders the records and the kernel.
func state(root string, k kernel) (map[string]string, error) {
	found := map[string]string{}
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		data, err := os.ReadFile(filepath.Join(root, e.Name()))
		if err != nil {
			return nil, err
		}
		found[e.Name()] = info.Mode().String() + " " + string(data)
	}
	loaded, err := k.list()
	for name, l := range loaded {
		found["kernel "+name] = l.Mode + " " + l.sum
	}
	return found, err
}

func digestOf(text string) digest.Digest { return digest.FromString(text) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
