package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/cmd/confine/internal/fleet"
	"github.com/confine-dev/confine/cmd/confine/internal/kube"
)

const (
	// watchInterval is how often a rollout is looked at; the controller writes
	// a status at most once a second.
	watchInterval = time.Second
	// outage is how long an API server may be away before watching ends.
	outage = 2 * time.Minute
	// conflicts is how often a change is tried again that somebody else's came
	// before.
	conflicts = 5
)

func (a *app) rolloutCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollout",
		Short: "Watch, pause, resume or undo the rollout of a SecurityProfile",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.rolloutStatusCommand(), a.rolloutPauseCommand(true), a.rolloutPauseCommand(false), a.rolloutUndoCommand())
	return cmd
}

func (a *app) rolloutStatusCommand() *cobra.Command {
	var o outputFlag
	var f clusterFlags
	w := watcher{app: a, interval: watchInterval}
	watch := true
	cmd := &cobra.Command{
		Use:   "status PROFILE",
		Short: "Watch a rollout until it is over",
		Long: `Status shows how far the rollout of a SecurityProfile is, as a bar on a terminal
and else as one line for each change, until it is over: it exits 0 when it is
complete, and 1 when it failed, was rolled back, or the profile is deleted. With
--watch=false it looks once. Where the rollout is not over, it exits 3.

A paused rollout is waited for: give a --timeout in scripts.`,
		Example: `  confine rollout status nginx -n web
  confine rollout status web/nginx --timeout 10m
  confine rollout status web/nginx --watch=false -o json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeProfiles(&f),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			if w.timeout < 0 {
				return usagef("--timeout %s: give a duration of zero, which is no end, or more", w.timeout)
			}
			client, key, err := a.openProfile(args[0], f)
			if err != nil {
				return err
			}
			w.quiet, w.once = o.format != "", !watch
			w.read = func(ctx context.Context) (*v1alpha1.SecurityProfile, error) { return client.Profile(ctx, key) }
			progress, err := w.watch(cmd.Context())
			if err != nil {
				return err
			}
			if err := a.print(o, progress, func() {
				if progress.Outcome == fleet.Complete {
					a.printEffects(progress.Kinds)
				}
			}); err != nil {
				return err
			}
			return ended(progress)
		},
	}
	f.add(cmd)
	f.addNamespace(cmd)
	o.add(cmd)
	cmd.Flags().BoolVar(&watch, "watch", true, "go on until the rollout is over")
	cmd.Flags().DurationVar(&w.timeout, "timeout", 0, "how long to watch; zero means until it is over")
	return cmd
}

// printEffects says what an update means for what runs already.
func (a *app) printEffects(kinds []string) {
	for _, kind := range kinds {
		if effect := fleet.Effect(kind); effect != "" {
			a.printf("%s: %s\n", kind, effect)
		}
	}
}

// ended is the exit code of how far a rollout was.
func ended(p fleet.Progress) error {
	switch p.Outcome {
	case fleet.Complete:
		return nil
	case fleet.Failed:
		return &exitError{code: ExitRefused}
	default:
		return &exitError{code: ExitRetry}
	}
}

func (a *app) rolloutPauseCommand(pause bool) *cobra.Command {
	verb, done, short := "resume", "resumed", "Let a paused rollout go on"
	if pause {
		verb, done, short = "pause", "paused", "Stop a rollout where it is; nodes keep what they have"
	}
	var f clusterFlags
	var force bool
	cmd := &cobra.Command{
		Use:   verb + " PROFILE",
		Short: short,
		Long: short + `.

It patches spec.rollout.paused, and refuses where another field manager, such as
Argo CD or Flux, owns that field and would set it back.`,
		Example:           "  confine rollout " + verb + " nginx -n web",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeProfiles(&f),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeProfile(cmd.Context(), args[0], f, force, func(p *v1alpha1.SecurityProfile) (change, error) {
				is := p.Spec.Rollout != nil && p.Spec.Rollout.Paused
				if is == pause {
					return change{already: "already " + done}, nil
				}
				var value any // null takes the field away, and with it who owns it
				if pause {
					value = true
				}
				return change{
					field: fleet.FieldPaused(), done: done,
					spec: map[string]any{"rollout": map[string]any{"paused": value}},
				}, nil
			})
		},
	}
	addChangeFlags(cmd, &f, &force)
	return cmd
}

func (a *app) rolloutUndoCommand() *cobra.Command {
	var f clusterFlags
	var to string
	var force bool
	cmd := &cobra.Command{
		Use:   "undo PROFILE",
		Short: "Go back to the artifact before, or to another one that every node had",
		Long: `Undo patches spec.artifact to the newest artifact in status.history that it does
not name already, or to the one whose digest begins as --to says. Nodes verify it
again, under the policies of now. It refuses where another field manager, such as
Argo CD or Flux, owns spec.artifact and would set it back.`,
		Example: `  confine rollout undo nginx -n web
  confine rollout undo web/nginx --to sha256:3f1c9a0`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeProfiles(&f),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeProfile(cmd.Context(), args[0], f, force, func(p *v1alpha1.SecurityProfile) (change, error) {
				target, err := fleet.UndoTarget(p, to)
				if err != nil {
					return change{}, err
				}
				c := change{field: fleet.FieldArtifact(), done: "set back to " + target, spec: map[string]any{"artifact": target}}
				if p.Spec.Rollout != nil && p.Spec.Rollout.Paused {
					c.warning = "the rollout is paused: confine rollout resume lets it begin"
				}
				return c, nil
			})
		},
	}
	addChangeFlags(cmd, &f, &force)
	cmd.Flags().StringVar(&to, "to", "", "digest to go back to, or how it begins")
	return cmd
}

func addChangeFlags(cmd *cobra.Command, f *clusterFlags, force *bool) {
	f.add(cmd)
	f.addNamespace(cmd)
	cmd.Flags().BoolVar(force, "force", false, "change it even where another field manager owns it and may set it back")
}

// change is one change of a profile's spec.
type change struct {
	// already says that nothing needs to change.
	already string
	field   fleet.Field
	spec    map[string]any
	done    string
	warning string
}

// changeProfile makes a change that decide derives from the object as it is,
// and again where somebody else's change came first.
func (a *app) changeProfile(ctx context.Context, arg string, f clusterFlags, force bool, decide func(*v1alpha1.SecurityProfile) (change, error)) error {
	client, key, err := a.openProfile(arg, f)
	if err != nil {
		return err
	}
	ctx, cancel := a.within(ctx)
	defer cancel()
	for attempt := 1; ; attempt++ {
		err := a.changeOnce(ctx, client, key, force, decide)
		if !kube.IsConflict(err) || attempt == conflicts {
			return err
		}
	}
}

func (a *app) changeOnce(ctx context.Context, client *kube.Client, key types.NamespacedName, force bool, decide func(*v1alpha1.SecurityProfile) (change, error)) error {
	object, err := client.Profile(ctx, key)
	if err != nil {
		return err
	}
	c, err := decide(object)
	if err != nil {
		return err
	}
	if c.already != "" {
		a.printf("%s%s %s\n", profileResource, key.Name, c.already)
		return nil
	}
	if !force {
		if err := fleet.CheckOwner(object, c.field); err != nil {
			return err
		}
	}
	if _, err := client.PatchProfile(ctx, key, object.ResourceVersion, map[string]any{"spec": c.spec}); err != nil {
		return err
	}
	a.printf("%s%s %s\n", profileResource, key.Name, c.done)
	if tool := fleet.Tracked(object); tool != "" {
		a.errorf("warning: %s tracks %s and may set it back: change it at its source too\n", tool, key)
	}
	if c.warning != "" {
		a.errorf("warning: %s\n", c.warning)
	}
	return nil
}

// watcher follows one rollout.
type watcher struct {
	app      *app
	read     func(context.Context) (*v1alpha1.SecurityProfile, error)
	interval time.Duration
	timeout  time.Duration
	once     bool
	quiet    bool
}

// watch returns the last progress seen: a rollout that is over, or where once is
// set or the time is up, one that is not. It shows what it sees, unless quiet.
func (w *watcher) watch(ctx context.Context) (fleet.Progress, error) {
	if w.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, w.timeout)
		defer cancel()
	}
	tick := time.NewTicker(w.interval)
	defer tick.Stop()
	view := &rolloutView{app: w.app, bar: w.app.ErrTerminal && !w.once && !w.quiet, begun: time.Now()}
	defer view.clear()
	var last fleet.Progress
	seen := false
	answered := time.Now()
	for {
		object, err := w.read(ctx)
		switch {
		case err == nil:
			last, seen, answered = fleet.ProgressOf(object), true, time.Now()
			if !w.quiet {
				view.show(last)
			}
			if w.once || last.Outcome != fleet.Waiting {
				return last, nil
			}
		case seen && ctx.Err() != nil:
			return last, w.stopped(ctx, last)
		case !seen || !kube.IsAgain(err) || time.Since(answered) > outage:
			return last, err
		default:
			view.away(err)
		}
		select {
		case <-ctx.Done():
			return last, w.stopped(ctx, last)
		case <-tick.C:
		}
	}
}

// stopped says that the time is up, or that the user ended it.
func (w *watcher) stopped(ctx context.Context, last fleet.Progress) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &kube.Error{
			What:   fmt.Sprintf("%s is not over after %s: %s", last.Profile, w.timeout, last.Stage),
			Advice: "confine why " + last.Profile + " says what it waits for", Again: true,
		}
	}
	return &exitError{code: ExitRetry}
}

// rolloutView shows a rollout: a bar that is drawn over where a person looks,
// one line for each change where a program does.
type rolloutView struct {
	app   *app
	bar   bool
	begun time.Time
	line  string
	drawn bool
}

func (v *rolloutView) show(p fleet.Progress) {
	over := p.Outcome != fleet.Waiting
	if v.bar && !over {
		width := 0
		if v.app.Width != nil {
			width = v.app.Width()
		}
		v.app.errorf("\r\x1b[K%s", oneLine(p.Bar(width, time.Since(v.begun))))
		v.drawn = true
	}
	line := oneLine(p.Line())
	if line == v.line || v.app.OutTerminal && v.bar && !over {
		return
	}
	v.clear()
	v.line = line
	v.app.printf("%s\n", line)
	if over {
		for _, f := range p.Failures {
			v.app.printf("  %s: %s: %s\n", oneLine(f.Node), oneLine(f.Reason), oneLine(f.Message))
		}
	}
}

// away says that the API server does not answer, once while it does not.
func (v *rolloutView) away(err error) {
	line := "warning: " + oneLine(err.Error()) + "; trying again"
	if line == v.line {
		return
	}
	v.clear()
	v.line = line
	v.app.errorf("%s\n", line)
}

func (v *rolloutView) clear() {
	if v.drawn {
		v.app.errorf("\r\x1b[K")
		v.drawn = false
	}
}
