package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Who signs in a lab.
const (
	// Team is whom policies of tests trust.
	Team = "team"
	// Stranger is trusted by nobody.
	Stranger = "stranger"
	// Nobody signs nothing.
	Nobody = ""
)

const password = "lab"

func (l *Lab) makeKey(ctx context.Context, signer string) error {
	_, err := l.Confine(ctx, "keygen", "--output-key-prefix", l.file(signer))
	return err
}

// PublicKey returns a signer's public key in PEM.
func (l *Lab) PublicKey(signer string) (string, error) {
	data, err := os.ReadFile(l.file(signer + ".pub"))
	return string(data), err
}

// Repository returns what a repository of the lab's registry is called.
func (l *Lab) Repository(name string) string { return l.Registry.Host + "/profiles/" + name }

// Push pushes a seccomp profile as the file "profile.json" with the built
// confine, signed by the signer, and returns REPOSITORY@DIGEST.
func (l *Lab) Push(ctx context.Context, repository, signer string, profile []byte) (string, error) {
	dir, err := os.MkdirTemp(l.file(), "push-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the lab's folder goes as a whole
	file := filepath.Join(dir, ProfileFile)
	if err := os.WriteFile(file, profile, 0o600); err != nil {
		return "", err
	}
	return l.PushFiles(ctx, l.Repository(repository)+":latest", signer, file)
}

// PushFiles pushes files to REPOSITORY:TAG and returns REPOSITORY@DIGEST.
func (l *Lab) PushFiles(ctx context.Context, target, signer string, files ...string) (string, error) {
	args := append([]string{"push", target}, files...)
	args = append(args, "--ca-file", l.Registry.CAFile, "--docker-config", l.Registry.DockerConfig)
	if signer != Nobody {
		args = append(args, "--key", l.file(signer+".key"))
	}
	out, err := l.Confine(ctx, args...)
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	reference := lines[len(lines)-1]
	if !strings.Contains(reference, "@sha256:") {
		return "", fmt.Errorf("confine push printed %q last: no digest", reference)
	}
	return reference, nil
}

// ProfileFile is what Push calls the file of a profile.
const ProfileFile = "profile.json"

// Without returns a seccomp profile that allows what containerd's default
// profile allows to a container without capabilities, but for the named
// syscalls, and in addition the extra ones.
func (l *Lab) Without(denied []string, extra ...string) ([]byte, error) {
	data, err := os.ReadFile(l.root("pkg/profile/seccomp/baseline.json"))
	if err != nil {
		return nil, err
	}
	type rule = map[string]json.RawMessage
	var known struct {
		Everywhere []rule            `json:"everywhere"`
		Profiles   map[string][]rule `json:"profiles"`
	}
	if err := json.Unmarshal(data, &known); err != nil {
		return nil, fmt.Errorf("reading what containerd allows: %w", err)
	}
	var rules []rule
	for _, r := range append(known.Everywhere, known.Profiles[runtime.GOARCH]...) {
		var names []string
		if err := json.Unmarshal(r["names"], &names); err != nil {
			return nil, fmt.Errorf("reading what containerd allows: %w", err)
		}
		names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(denied, name) })
		if len(names) == 0 {
			continue
		}
		if r["names"], err = json.Marshal(names); err != nil {
			return nil, err
		}
		rules = append(rules, r)
	}
	if len(extra) > 0 {
		names, err := json.Marshal(extra)
		if err != nil {
			return nil, err
		}
		rules = append(rules, rule{"names": names, "action": json.RawMessage(`"SCMP_ACT_ALLOW"`)})
	}
	return json.MarshalIndent(map[string]any{
		"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
		"architectures": []string{map[string]string{"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}[runtime.GOARCH]},
		"syscalls":      rules,
	}, "", " ")
}
