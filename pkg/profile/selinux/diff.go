package selinux

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/confine-dev/confine/pkg/profile"
)

// Diff returns what updated allows more or less than old: first the block's
// name, then templates, then permissions by target and class, then statements
// outside of the closed grammar, which are compared as text. Order, spelling
// and repetition mean nothing.
func (k *Kind) Diff(old, updated profile.Profile) ([]profile.Change, error) {
	a, okOld := old.(*Profile)
	b, okNew := updated.(*Profile)
	if !okOld || !okNew || a == nil || b == nil {
		return nil, errors.New("only two SELinux profiles can be compared")
	}
	var changes []profile.Change
	if a.model.block != b.model.block {
		changes = append(changes, profile.Change{Sense: profile.Altered, Subject: "block", Old: a.model.block, New: b.model.block})
	}
	changes = append(changes, compareSets("template", keys(a.model.templates), keys(b.model.templates))...)
	for _, at := range accesses(a, b) {
		lost, gained := difference(keys(a.model.rules[at]), keys(b.model.rules[at]))
		pair := []profile.Change{
			{Sense: profile.Lost, Subject: at.String(), Old: strings.Join(lost, " ")},
			{Sense: profile.Gained, Subject: at.String(), New: strings.Join(gained, " ")},
		}
		pair = slices.DeleteFunc(pair, func(c profile.Change) bool { return c.Old+c.New == "" })
		// By text, not by sense, so that the way back is the same list.
		slices.SortFunc(pair, func(x, y profile.Change) int { return strings.Compare(x.Old+x.New, y.Old+y.New) })
		changes = append(changes, pair...)
	}
	for _, c := range compareSets("statement", slices.Compact(slices.Clone(a.model.others)), slices.Compact(slices.Clone(b.model.others))) {
		c.Sense, c.Old, c.New = profile.Altered, clipStatement(c.Old), clipStatement(c.New)
		changes = append(changes, c)
	}
	return changes, nil
}

func keys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// accesses lists what either profile has rules for.
func accesses(a, b *Profile) []access {
	all := slices.Collect(maps.Keys(a.model.rules))
	all = slices.AppendSeq(all, maps.Keys(b.model.rules))
	slices.SortFunc(all, func(x, y access) int {
		return cmp.Or(strings.Compare(x.target, y.target), strings.Compare(x.class, y.class))
	})
	return slices.Compact(all)
}

// difference returns what is only in old and only in updated, both sorted.
func difference(old, updated []string) (lost, gained []string) {
	lost = slices.DeleteFunc(slices.Clone(old), func(s string) bool { return contains(updated, s) })
	gained = slices.DeleteFunc(slices.Clone(updated), func(s string) bool { return contains(old, s) })
	return lost, gained
}

func contains(sorted []string, s string) bool {
	_, found := slices.BinarySearch(sorted, s)
	return found
}

// compareSets makes one change of each item that only one side has, by item.
func compareSets(subject string, old, updated []string) []profile.Change {
	lost, gained := difference(old, updated)
	var changes []profile.Change
	for _, s := range lost {
		changes = append(changes, profile.Change{Sense: profile.Lost, Subject: subject, Old: s})
	}
	for _, s := range gained {
		changes = append(changes, profile.Change{Sense: profile.Gained, Subject: subject, New: s})
	}
	slices.SortFunc(changes, func(x, y profile.Change) int { return strings.Compare(x.Old+x.New, y.Old+y.New) })
	return changes
}

func clipStatement(text string) string {
	const shown = 200
	if len(text) <= shown {
		return text
	}
	return strings.ToValidUTF8(text[:shown], "") + "..."
}
