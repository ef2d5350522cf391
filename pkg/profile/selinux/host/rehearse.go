package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"

	"github.com/confine-dev/confine/pkg/profile/selinux"
	"github.com/confine-dev/confine/pkg/profile/selinux/host/secilc"
	"github.com/confine-dev/confine/pkg/profile/selinux/internal/policydb"
	"github.com/confine-dev/confine/pkg/reason"
)

// Bounds on what is compiled at once.
const (
	maxTogether      = 64
	maxTogetherBytes = 4 << 20
	maxRemembered    = 4096
)

// compiler shows what a policy compiles to; secilc.Compiler is the real one.
type compiler interface {
	Supported() error
	Compile(ctx context.Context, qualified bool, texts ...[]byte) ([]byte, error)
}

// Rehearses returns nil where texts are compiled without privileges before
// semodule sees them, and otherwise says what stands in front of it instead.
func (h *Host) Rehearses() error {
	if err := h.compiler.Supported(); err != nil {
		return fmt.Errorf("texts are not compiled before they are installed; the closed grammar and the bounds on semodule stand: the host has no %w", err)
	}
	return nil
}

// rehearse compiles the texts that are new in a child without privileges, and
// refuses those that the compiler reads otherwise than Confine did. It returns
// the wants that are left. It takes half of a call's time at most: new texts come
// first, together, and then one by one those that failed with others, or in
// earlier calls.
func (h *Host) rehearse(ctx context.Context, s *survey, wants []*want) []*want {
	if h.compiler.Supported() != nil {
		return wants
	}
	var unknown []*line
	for _, it := range wants {
		if it.record == nil || s.units[it.owner].same(it.record) {
			continue
		}
		for _, t := range it.record.Files {
			if !h.rehearsed[t.Sum] {
				unknown = append(unknown, &line{want: it, text: t})
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, h.opts.CallTime/2)
	defer cancel()
	fresh, again := order(&h.unrehearsed, unknown, (*line).sum)
	var single []*line
	for _, group := range together(fresh) {
		if len(group) == 1 {
			single = append(single, group...)
		} else if ctx.Err() == nil && h.play(ctx, group...) != nil {
			for _, l := range group {
				h.unrehearsed.note(l.sum())
			}
			single = append(single, group...)
		}
	}
	for _, l := range append(single, again...) {
		h.rehearseAlone(ctx, l)
	}
	for _, l := range fresh { // of groups that had no turn
		h.rehearseAlone(ctx, l)
	}
	return slices.DeleteFunc(slices.Clone(wants), func(it *want) bool { return it.outcome.Err != nil })
}

// rehearseAlone compiles one text, unless that is known, its unit is refused
// already, or the time is over. What took its time comes last next time.
func (h *Host) rehearseAlone(ctx context.Context, l *line) {
	if h.rehearsed[l.sum()] || l.want.outcome.Err != nil {
		return
	}
	if err := ctx.Err(); errors.Is(err, context.DeadlineExceeded) {
		l.want.outcome.Err = reason.New(reason.InstallFailed, l.object(), "there was no time left in this call to compile it without privileges: %w", err).
			WithAdvice("it is tried again by itself, before those that took the time")
		return
	}
	if err := h.play(ctx, l); err != nil {
		l.want.outcome.Err = err
		h.unrehearsed.note(l.sum())
	}
}

// line is one text to be rehearsed.
type line struct {
	want *want
	text text
}

func (l *line) object() string { return l.want.owner.String() + "/" + l.text.Name }

func (l *line) sum() string { return l.text.Sum }

// together splits texts into groups that are compiled at once.
func together(all []*line) [][]*line {
	var groups [][]*line
	size := 0
	for _, l := range all {
		if size += len(l.text.Data); len(groups) == 0 || len(groups[len(groups)-1]) == maxTogether || size > maxTogetherBytes {
			groups, size = append(groups, nil), len(l.text.Data)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], l)
	}
	return groups
}

// play compiles texts, and what Confine approved of in them, and compares.
func (h *Host) play(ctx context.Context, lines ...*line) error {
	profiles, texts, seen := make([]*selinux.Profile, 0, len(lines)), [][]byte{nil}, map[string]bool{}
	for _, l := range lines {
		if seen[l.text.Sum] { // owners share texts
			continue
		}
		seen[l.text.Sum] = true
		p, err := selinux.Parse(l.object(), l.text.Data)
		if err != nil {
			return err
		}
		profiles, texts = append(profiles, p), append(texts, l.text.Data)
	}
	r, err := selinux.Rehearse(profiles...)
	if err != nil {
		return err
	}
	texts[0] = r.Base
	made, err := h.compiler.Compile(ctx, false, texts...)
	if err != nil {
		return explainRehearsal(lines[0].object(), err)
	}
	approved, err := h.compiler.Compile(ctx, true, r.Flat)
	if err != nil {
		return explainRehearsal(lines[0].object(), err)
	}
	if err := compare(r.Types, made, approved); err != nil {
		return reason.New(reason.ProfileInvalid, lines[0].object(), "compiled, %w", err)
	}
	if len(h.rehearsed) >= maxRemembered {
		clear(h.rehearsed)
	}
	for _, l := range lines {
		h.rehearsed[l.sum()] = true
		h.unrehearsed.forget(l.sum())
	}
	return nil
}

// compare holds a compiled policy against the names that were approved, and
// then, bit by bit, against a policy made of nothing but what was approved.
func compare(types []string, made, approved []byte) error {
	p, err := policydb.Read(made)
	if err != nil {
		return fmt.Errorf("it is no policy: %w", err)
	}
	for _, name := range p.Types {
		if _, known := slices.BinarySearch(types, name); !known {
			return fmt.Errorf("it declares the type %q, which was not approved", name)
		}
	}
	for _, name := range slices.Concat(p.Attributes, p.Aliases) {
		return fmt.Errorf("it declares %q, which stands for other types", name)
	}
	if len(p.Types) != len(types) {
		return fmt.Errorf("it declares %d types instead of %d", len(p.Types), len(types))
	}
	for _, name := range p.Permissive {
		return fmt.Errorf("nothing is enforced for the type %q", name)
	}
	if !bytes.Equal(made, approved) {
		return errors.New("it is another policy than what was approved")
	}
	return nil
}

// explainRehearsal gives an error of the compiler its reason.
func explainRehearsal(object string, err error) error {
	refused, said := errors.AsType[*secilc.Error](err)
	switch {
	case said:
		if at := refused.Line(1); at > 0 {
			object += ":" + strconv.Itoa(at)
		}
		return reason.New(reason.ProfileInvalid, object, "secilc does not take it: %w", err)
	case errors.Is(err, secilc.ErrLimit):
		return reason.New(reason.InstallFailed, object, "secilc was started to look at it without privileges: %w", err).
			WithAdvice("look for little memory on the host; it is tried again by itself")
	case errors.Is(err, exec.ErrNotFound):
		return reason.New(reason.InstallFailed, object, "the host had a moment ago what it has no more: %w", err)
	}
	return explain(object, err)
}
