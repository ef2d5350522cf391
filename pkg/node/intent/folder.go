package intent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/reason"
)

// ReadProfiles reads all SecurityProfiles of a folder: the files ending in
// .yaml, .yml or .json, not those of its sub-folders, nor hidden ones. The
// error says that the folder itself cannot be read; what is wrong with single
// files stands in Desired.
func ReadProfiles(dir string) (Desired, error) {
	files, err := manifestFiles(dir)
	if err != nil {
		return Desired{}, reason.New(reason.ProfileInvalid, dir, "the folder of manifests cannot be read: %w", err).
			WithAdvice("make the folder readable; what is installed stays meanwhile")
	}
	desired := Desired{Complete: true}
	for _, file := range files {
		data, err := readFile(filepath.Join(dir, file))
		if err != nil {
			desired.Complete = false
			desired.Invalid = append(desired.Invalid, Problem{Origin: file, Err: unreadable(file, err)})
			continue
		}
		found := DecodeProfiles(file, data)
		desired.Complete = desired.Complete && found.Complete
		desired.Profiles = append(desired.Profiles, found.Profiles...)
		desired.Invalid = append(desired.Invalid, found.Invalid...)
		if len(desired.Profiles)+len(desired.Invalid) > MaxObjects {
			return Desired{}, reason.New(reason.TooLarge, dir, "more than %d objects in one folder of manifests", MaxObjects)
		}
	}
	return desired, nil
}

// ReadPolicies reads and compiles all TrustPolicies of a folder, by the same
// rules. Any that cannot be read makes all of them TrustPolicyInvalid. An empty
// folder is a readable one that trusts nobody.
func ReadPolicies(dir string) (*trust.Policies, error) {
	files, err := manifestFiles(dir)
	if err != nil {
		return nil, policyInvalid(dir, fmt.Errorf("the folder of policies cannot be read: %w", err))
	}
	var policies []trust.Policy
	for _, file := range files {
		data, err := readFile(filepath.Join(dir, file))
		if err != nil {
			return nil, policyInvalid(file, err)
		}
		decoded, err := DecodePolicies(file, data)
		if err != nil {
			return nil, err
		}
		policies = append(policies, decoded...)
		if len(policies) > MaxObjects {
			return nil, policyInvalid(dir, fmt.Errorf("more than %d policies", MaxObjects))
		}
	}
	return trust.Compile(policies)
}

// ReadPolicyFile reads and compiles the TrustPolicies of one file.
func ReadPolicyFile(path string) (*trust.Policies, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, policyInvalid(path, err)
	}
	policies, err := DecodePolicies(path, data)
	if err != nil {
		return nil, err
	}
	if len(policies) == 0 {
		return nil, policyInvalid(path, errors.New("the file holds no TrustPolicy"))
	}
	return trust.Compile(policies)
}

func manifestFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		name := e.Name()
		ext := strings.ToLower(filepath.Ext(name))
		if strings.HasPrefix(name, ".") || e.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, ext) {
			continue
		}
		files = append(files, name)
	}
	if len(files) > MaxFiles {
		return nil, fmt.Errorf("more than %d files", MaxFiles)
	}
	return files, nil
}

// readFile reads a bounded regular file, following links as mounted
// configuration has them.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxFileBytes {
		return nil, fmt.Errorf("it exceeds %d bytes", MaxFileBytes)
	}
	return data, nil
}
