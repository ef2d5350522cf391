package host

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/selinux"
	"github.com/confine-dev/confine/pkg/profile/selinux/host/semodule"
	"github.com/confine-dev/confine/pkg/reason"
)

// judge says whether a transaction is needed for it, or refuses it. planned are
// the units that will be there beside it.
func (w *work) judge(ctx context.Context, planned map[profile.Owner]*record, it *want) (bool, error) {
	name := moduleName(it.owner)
	if _, there := w.s.listed[name]; it.record == nil && !there {
		return false, nil
	}
	if it.record != nil {
		for _, other := range planned {
			if other.Owner != it.owner && other.Digest == it.record.Digest && !other.same(it.record) {
				return false, reason.New(reason.InstallFailed, it.owner.String(), "%s is installed for %s with other files", other.Digest, other.Owner)
			}
		}
		have := w.s.units[it.owner]
		if have.same(it.record) && have.whole() && w.s.as(name, w.modules[name]) {
			return w.mendKernel(ctx, it)
		}
		if err := w.claim(ctx, planned, it); err != nil {
			return false, err
		}
	}
	return true, w.unused(planned, it)
}

// mendKernel reloads the policy where only the kernel lacks a unit.
func (w *work) mendKernel(ctx context.Context, it *want) (bool, error) {
	missing, err := w.missing(it.record)
	if err != nil || missing == "" {
		return false, err
	}
	if !w.reloaded {
		if err := w.reload(ctx); err != nil {
			return false, err
		}
		it.outcome.Changed = true
		missing, err = w.missing(it.record)
	}
	return missing != "", err // or it is built anew
}

// claim refuses blocks that belong to another owner, with another text, or to
// the host.
func (w *work) claim(ctx context.Context, planned map[profile.Owner]*record, it *want) error {
	for _, t := range it.record.Files {
		if other := holder(planned, it.owner, t.Block); other != nil {
			if theirs, _ := other.text(t.Block); theirs.Sum != t.Sum {
				return reason.New(reason.NameConflict, it.owner.String(), "the block %s belongs to %s, with another text", t.Block, other.Owner).
					WithAdvice("rename the block, or take it out of %s", other.Owner)
			}
			continue
		}
		if slices.Contains(w.s.blocksOf(it.owner), t.Block) || holder(w.s.units, it.owner, t.Block) != nil {
			continue
		}
		if err := w.free(ctx, it.owner, t.Block); err != nil {
			return err
		}
	}
	return nil
}

// free refuses a block whose type the policy has though no unit has it.
func (w *work) free(ctx context.Context, o profile.Owner, block string) error {
	taken, err := w.h.kernel.known(selinux.ProcessType(block))
	if taken && err == nil && !w.reloaded {
		// The kernel may have what somebody took out of the store.
		if err := w.reload(ctx); err != nil {
			return err
		}
		taken, err = w.h.kernel.known(selinux.ProcessType(block))
	}
	if err != nil || !taken {
		return err
	}
	return hostsBlock(o, "the host's policy has the type "+selinux.ProcessType(block)+" already, and not by Confine", nil)
}

func hostsBlock(o profile.Owner, detail string, cause error) error {
	e := reason.New(reason.NameConflict, o.String(), "%s", detail).
		WithAdvice("rename the block, or remove the host's module: semodule -lfull, semodule -r NAME")
	e.Err = cause
	return e
}

// unused refuses to take away types that a process runs as.
func (w *work) unused(planned map[profile.Owner]*record, it *want) error {
	var dropped []string
	for _, block := range w.s.blocksOf(it.owner) {
		if slices.Contains(it.record.blocks(), block) || holder(planned, it.owner, block) != nil {
			continue
		}
		dropped = append(dropped, selinux.ProcessType(block))
	}
	return w.h.unused(it.owner, dropped)
}

// explain gives an error of the store, the kernel or the disk its reason.
func explain(object string, err error) error {
	if _, ok := reason.Of(err); ok {
		return err
	}
	refused, said := errors.AsType[*semodule.Error](err)
	switch {
	case errors.Is(err, semodule.ErrBusy):
		return reason.New(reason.InstallFailed, object, "%w", err).
			WithAdvice("wait until semodule, semanage or the package manager of the host has ended; it is tried again by itself")
	case errors.Is(err, exec.ErrNotFound):
		return reason.New(reason.KindUnsupported, object, "the host has no %w", err).
			WithAdvice("install the package policycoreutils on the host")
	case said && isFull(refused):
		return reason.New(reason.NoSpace, object, "the disk of the policy store is full: %w", err).
			WithAdvice("free space on the file system of /var/lib/selinux, about three times what is in it; it is tried again by itself")
	case said && isOld(refused):
		return reason.New(reason.KindUnsupported, object, "semodule of the host is too old: %w", err).
			WithAdvice("use a host with policycoreutils 3.4 or newer")
	case said:
		return reason.New(reason.InstallFailed, object, "semodule: %w", err)
	case errors.Is(err, context.DeadlineExceeded):
		return reason.New(reason.InstallFailed, object, "semodule had not ended in time: %w", err).
			WithAdvice("look for another program that holds the policy store, and for little memory; it is tried again by itself")
	case errors.Is(err, context.Canceled):
		return reason.New(reason.InstallFailed, object, "stopped before it was done: %w", err)
	}
	return durable.Explain(object, err)
}

// explainRefusal is explain for the one unit that the policy does not take.
func explainRefusal(it *want, err error) error {
	refused, _ := errors.AsType[*semodule.Error](err)
	switch {
	case it.record == nil:
		return reason.New(reason.InstallFailed, it.owner.String(), "the host's policy does not compile without it: %w", err).
			WithAdvice("remove the host's modules that name its types: semodule -lfull")
	case strings.Contains(refused.Log, "Re-declaration of block"):
		return hostsBlock(it.owner, "the host's policy has a block of this name: "+refused.Summary, err)
	case strings.Contains(refused.Log, "blockinherit"):
		return reason.New(reason.InstallFailed, it.owner.String(), "the host's policy lacks a template that it inherits: %w", err).
			WithAdvice("install container-selinux on the host, and its templates: semodule -i /usr/share/udica/templates/*.cil")
	}
	return reason.New(reason.InstallFailed, it.owner.String(), "the host's policy does not take it: %w", err).
		WithAdvice("compare the types, classes and permissions of the profile with those of the host's policy")
}

// isRefusal reports that the policy does not compile with what was asked, so
// that less may do.
func isRefusal(err error) bool {
	refused, said := errors.AsType[*semodule.Error](err)
	return said && !errors.Is(err, semodule.ErrBusy) && !isFull(refused) && !isOld(refused)
}

// isFull knows the words of the C library. libsemanage takes the last part of a
// file that still found room for an I/O error.
func isFull(e *semodule.Error) bool {
	return strings.Contains(e.Log, "No space left on device") || strings.Contains(e.Log, "Disk quota exceeded") ||
		strings.Contains(e.Log, "Could not copy files to sandbox") && strings.Contains(e.Log, "Input/output error")
}

func isOld(e *semodule.Error) bool { return strings.Contains(e.Log, "unrecognized option") }

// logNames reports whether the compiler speaks of a module: it gives places as
// .../NAME/cil:LINE, or as a line of .../NAME/cil.
func logNames(err error, module string) bool {
	refused, said := errors.AsType[*semodule.Error](err)
	return said && strings.Contains(refused.Log, "/"+module+"/cil")
}
