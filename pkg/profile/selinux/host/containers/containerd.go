package containers

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// The tables of the part of containerd that runs pods, by the version of the
// configuration (containerd, docs/cri/config.md).
const (
	podsVersion1 = "cri"
	podsVersion2 = "io.containerd.grpc.v1.cri"
	podsVersion3 = "io.containerd.cri.v1.runtime"

	enableSELinux = "enable_selinux"
	// splitVersion is from when on imports change settings one by one; before,
	// a table of an import replaced the whole plugin's.
	splitVersion = 3
	maxImports   = 64
)

// containerdLabels reads containerd's configuration with its imports. A setting
// that is false in one file counts, also where another says true: releases merge
// files differently. Without a file, labels are off.
func containerdLabels(h host, config string) (bool, error) {
	on, disabled := false, false
	seen := map[string]bool{}
	for pending := []string{config}; len(pending) > 0; pending = pending[1:] {
		name := pending[0]
		if seen[name] {
			continue
		}
		if len(seen) == maxImports {
			return false, fmt.Errorf("%s imports more than %d files", config, maxImports)
		}
		seen[name] = true
		tables, err := h.toml(name)
		if errors.Is(err, fs.ErrNotExist) && name == config {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		disabled = disabled || disablesPods(tables)
		value, said, err := podsSetting(tables)
		if err != nil {
			return false, fmt.Errorf("%s: %w", name, err)
		}
		if said && !value {
			return false, forPodsOr(disabled, nil)
		}
		on = on || value
		imports, err := h.imports(name, tables)
		if err != nil {
			return false, fmt.Errorf("%s: %w", name, err)
		}
		pending = append(pending, imports...)
	}
	return on, forPodsOr(disabled, nil)
}

// forPodsOr says of a containerd without the part that runs pods that it runs
// none, as docker's packages install it.
func forPodsOr(disabled bool, otherwise error) error {
	if disabled {
		return errNotForPods
	}
	return otherwise
}

func disablesPods(tables map[string]any) bool {
	list, _ := tables["disabled_plugins"].([]any)
	return slices.ContainsFunc(list, func(name any) bool {
		return name == podsVersion1 || name == podsVersion2 || name == podsVersion3
	})
}

// podsSetting is what one file says of labels.
func podsSetting(tables map[string]any) (value, said bool, err error) {
	version, _ := tables["version"].(int64) // missing is version 1
	for _, plugin := range []string{podsVersion3, podsVersion2, podsVersion1} {
		value, said, err = boolean(tables, "plugins", plugin, enableSELinux)
		if said || err != nil {
			return value, said, err
		}
		plugins, _ := tables["plugins"].(map[string]any)
		if _, replaced := plugins[plugin]; replaced && version < splitVersion {
			return false, true, nil
		}
	}
	return false, false, nil
}

// imports are the files that a file imports. Patterns are expanded in the last
// part of a path alone.
func (h host) imports(from string, tables map[string]any) ([]string, error) {
	list, _ := tables["imports"].([]any)
	var names []string
	for _, entry := range list {
		name, ok := entry.(string)
		if !ok {
			return nil, errors.New("an import is no text")
		}
		if name = filepath.Clean(name); !path.IsAbs(name) {
			name = path.Join(path.Dir(from), name)
		}
		if !strings.ContainsAny(name, "*?[") {
			names = append(names, name)
			continue
		}
		folder, pattern := path.Split(name)
		if strings.ContainsAny(folder, "*?[") {
			return nil, fmt.Errorf("the import %s has a pattern in a folder's name", name)
		}
		entries, err := h.list(folder)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			matches, err := path.Match(pattern, e)
			if err != nil {
				return nil, fmt.Errorf("the import %s: %w", name, err)
			}
			if matches {
				names = append(names, path.Join(folder, e))
			}
		}
	}
	return names, nil
}
