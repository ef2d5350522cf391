package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/profile/selinux"
	"github.com/confine-dev/confine/pkg/profile/selinux/host/semodule"
)

// memory is a policy store and a kernel that enforce nothing. It compiles as
// little as the tests need: blocks are unique, templates and types are known.
type memory struct {
	modules map[string]module
	// types are what the kernel has loaded, with the module they are from.
	types map[string]string
	// hostBlocks are of the host's own policy.
	hostBlocks []string
	// before is called between a commit and its load, where a crash leaves the
	// store ahead.
	before func() error
	// fails is what the next changes end with, before they happen.
	fails error
	// commits counts the transactions that were begun.
	commits int
	// reloads counts how often the kernel was handed the policy beside them.
	reloads int
}

type module struct {
	cil      []byte
	disabled bool
}

func (*memory) supported() error { return nil }

func (*memory) Supported() error { return nil }

func (m *memory) known(name string) (bool, error) {
	_, there := m.types[name]
	return there, nil
}

func (m *memory) List(ctx context.Context) ([]semodule.Listed, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var listed []semodule.Listed
	for _, name := range sortedKeys(m.modules) {
		listed = append(listed, semodule.Listed{Name: name, Checksum: checksumOf(m.modules[name].cil), Disabled: m.modules[name].disabled})
	}
	return listed, nil
}

func (m *memory) Extract(ctx context.Context, names []string) (map[string][]byte, error) {
	found := map[string][]byte{}
	for _, name := range names {
		if _, there := m.modules[name]; !there {
			return nil, refusal("Module " + name + " was not found")
		}
		found[name] = bytes.Clone(m.modules[name].cil)
	}
	return found, ctx.Err()
}

func (m *memory) Commit(ctx context.Context, c semodule.Change) error {
	if err := m.commitUnloaded(ctx, c); err != nil {
		return err
	}
	if m.before != nil {
		if err := m.before(); err != nil {
			return err
		}
	}
	m.load()
	return nil
}

func (m *memory) commitUnloaded(ctx context.Context, c semodule.Change) error {
	m.commits++
	if err := errors.Join(ctx.Err(), m.fails); err != nil {
		return err
	}
	next := maps.Clone(m.modules)
	for _, name := range c.Remove {
		delete(next, name)
	}
	for _, install := range c.Install {
		if strings.ContainsAny(install.Name, "./ ") || install.Name == "" {
			return semodule.ErrName
		}
		next[install.Name] = module{bytes.Clone(install.CIL), next[install.Name].disabled}
	}
	for _, name := range c.Enable {
		next[name] = module{next[name].cil, false}
	}
	if err := m.compile(next); err != nil {
		return err
	}
	m.modules = next
	return nil
}

func (m *memory) Reload(ctx context.Context) error {
	m.reloads++
	if err := errors.Join(ctx.Err(), m.fails); err != nil {
		return err
	}
	m.load()
	return nil
}

func (m *memory) disable(_ context.Context, name string) error {
	m.modules[name] = module{m.modules[name].cil, true}
	m.load()
	return nil
}

func (m *memory) hostModule(_ context.Context, block string) error {
	m.hostBlocks = append(m.hostBlocks, block)
	m.load()
	return nil
}

// load gives the kernel what the store has.
func (m *memory) load() {
	clear(m.types)
	for _, block := range m.hostBlocks {
		m.types[selinux.ProcessType(block)] = "host"
	}
	for name, in := range m.modules {
		for _, block := range declaredBlocks(in.cil) {
			if !in.disabled {
				m.types[selinux.ProcessType(block)] = name + " " + checksumOf(in.cil)
			}
		}
	}
}

func (m *memory) compile(modules map[string]module) error {
	declared := slices.Clone(m.hostBlocks)
	for _, name := range sortedKeys(modules) {
		cil, at := modules[name].cil, fmt.Sprintf(" at /var/lib/selinux/memory/tmp/modules/350/%s/cil:1", name)
		if modules[name].disabled {
			continue
		}
		for _, block := range declaredBlocks(cil) {
			if slices.Contains(declared, block) {
				return refusal("Re-declaration of block " + block + "\nBad block declaration" + at)
			}
			declared = append(declared, block)
		}
		comments := regexp.MustCompile(`(?m)^;.*\n`).ReplaceAll(cil, nil)
		if _, err := selinux.Parse(name, cil); err != nil && len(bytes.TrimSpace(comments)) > 0 {
			return refusal("Failed to build AST" + at)
		}
		if bytes.Contains(cil, []byte("blockinherit nosuch")) {
			return refusal("Failed to resolve blockinherit statement" + at)
		}
		if bytes.Contains(cil, []byte("nosuch_t")) {
			return refusal("Failed to resolve allow statement" + at)
		}
	}
	return nil
}

func refusal(log string) *semodule.Error {
	first, _, _ := strings.Cut(log, "\n")
	return &semodule.Error{Summary: first, Log: log + "\nsemodule:  Failed!\n", Err: &exec.ExitError{}}
}
