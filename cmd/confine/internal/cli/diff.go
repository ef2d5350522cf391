package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

func (a *app) diffCommand() *cobra.Command {
	var o outputFlag
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Say what B allows that A does not, and the other way round",
		Long: `Diff compares the meaning of two profiles, not their text. A and B are files or
references; an artifact's profiles are compared by file name. References are
read without verifying signatures: nothing is installed. Like diff(1) it exits
1 where the two differ.`,
		Example: `  confine diff old.json new.json
  confine diff registry.example.com/profiles/web:1.3.0 nginx.json`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			ctx, cancel := a.within(cmd.Context())
			defer cancel()
			return a.diff(ctx, args[0], args[1], o)
		},
	}
	o.add(cmd)
	return cmd
}

type difference struct {
	File    string           `json:"file"`
	Kind    string           `json:"kind"`
	Changes []profile.Change `json:"changes"`
}

func (a *app) diff(ctx context.Context, left, right string, o outputFlag) error {
	kinds := knownKinds()
	old, err := a.sideOf(ctx, left, kinds)
	if err != nil {
		return err
	}
	updated, err := a.sideOf(ctx, right, kinds)
	if err != nil {
		return err
	}
	differences, err := compare(old, updated, kinds)
	if err != nil {
		return err
	}
	if err := a.print(o, differences, func() { a.printDifferences(differences) }); err != nil {
		return err
	}
	if len(differences) > 0 {
		return errDiffers
	}
	return nil
}

// sideOf reads one side: a file, or all payloads of an artifact.
func (a *app) sideOf(ctx context.Context, arg string, kinds profile.Set) ([]pack.Input, error) {
	if exists(arg) {
		input, err := readInput(arg, kinds)
		return []pack.Input{input}, err
	}
	ref, err := reference.Parse(arg)
	if err != nil {
		return nil, usagef("it is no file, and no reference either: %w", err) // arg may hold a password
	}
	client, err := a.client()
	if err != nil {
		return nil, err
	}
	if ref, err = a.pin(ctx, client, ref); err != nil {
		return nil, err
	}
	return artifact.ReadUnverified(ctx, client, kinds, ref.Repository, ref.Digest)
}

// compare pairs the two sides: the only ones of both, else by file name.
func compare(old, updated []pack.Input, kinds profile.Set) ([]difference, error) {
	differences := []difference{}
	if len(old) == 1 && len(updated) == 1 {
		updated[0].File = old[0].File
	}
	byFile := map[string]pack.Input{}
	for _, u := range updated {
		byFile[u.File] = u
	}
	for _, o := range old {
		u, ok := byFile[o.File]
		delete(byFile, o.File)
		if !ok {
			differences = append(differences, difference{File: o.File, Kind: o.Kind, Changes: []profile.Change{{Sense: profile.Lost, Subject: "the whole file"}}})
			continue
		}
		changes, err := compareFile(o, u, kinds)
		if err != nil {
			return nil, err
		}
		if len(changes) > 0 {
			differences = append(differences, difference{File: o.File, Kind: u.Kind, Changes: changes})
		}
	}
	for _, u := range updated {
		if _, ok := byFile[u.File]; ok {
			differences = append(differences, difference{File: u.File, Kind: u.Kind, Changes: []profile.Change{{Sense: profile.Gained, Subject: "the whole file"}}})
		}
	}
	return differences, nil
}

func compareFile(old, updated pack.Input, kinds profile.Set) ([]profile.Change, error) {
	if old.Kind != updated.Kind {
		return []profile.Change{{Sense: profile.Altered, Subject: "kind", Old: old.Kind, New: updated.Kind}}, nil
	}
	before, err := parseInput(old, kinds)
	if err != nil {
		return nil, err
	}
	after, err := parseInput(updated, kinds)
	if err != nil {
		return nil, err
	}
	kind, _ := kinds.ByName(old.Kind)
	differ, ok := kind.(profile.Differ)
	if ok {
		return differ.Diff(before, after)
	}
	if string(old.Data) == string(updated.Data) {
		return nil, nil
	}
	return nil, reason.New(reason.KindUnsupported, old.File, "the two differ in their bytes, but this version cannot say what that means for %s", old.Kind)
}

func (a *app) printDifferences(differences []difference) {
	if len(differences) == 0 {
		a.printf("both allow the same\n")
		return
	}
	for _, d := range differences {
		a.printf("%s (%s)\n", oneLine(d.File), d.Kind)
		for _, c := range d.Changes {
			a.printf("  %s %s\n", a.senseMark(c.Sense), oneLine(changeText(c)))
		}
	}
}

func (a *app) senseMark(s profile.ChangeSense) string {
	marks := map[profile.ChangeSense][2]string{
		profile.Gained: {"+", "\x1b[31m"}, profile.Lost: {"-", "\x1b[32m"}, profile.Altered: {"~", "\x1b[33m"},
	}
	mark := marks[s]
	if !a.Color {
		return mark[0]
	}
	return mark[1] + mark[0] + "\x1b[0m"
}

func changeText(c profile.Change) string {
	switch {
	case c.Old != "" && c.New != "":
		return c.Subject + ": " + c.Old + " -> " + c.New
	case c.New != "":
		return c.Subject + ": " + c.New
	case c.Old != "":
		return c.Subject + ": was " + c.Old
	default:
		return c.Subject
	}
}
