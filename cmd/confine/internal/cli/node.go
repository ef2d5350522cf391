package cli

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/confine-dev/confine/cmd/confine/internal/fleet"
	"github.com/confine-dev/confine/cmd/confine/internal/purge"
)

func (a *app) nodeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Work on the machine this runs on",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.purgeCommand())
	return cmd
}

func (a *app) purgeCommand() *cobra.Command {
	var o outputFlag
	var root, kubelet, hostRoot string
	var priority int
	var yes bool
	cmd := &cobra.Command{
		Use:   "purge",
		Short: "Remove from this machine what Confine installed, after it was uninstalled",
		Long: `Purge removes what Confine installed on this machine, and nothing else: the
AppArmor profiles and SELinux modules it loaded, its folder "confine" in the
kubelet's seccomp folder, and the agent's state. Without --yes it only lists that.
What does not look like Confine's own work stays, and is listed too. So does an
AppArmor profile or SELinux module that confines a process: end the process, and
run it again. It refuses while an agent runs here, and follows no link.

Run it as root. Where only seccomp profiles were installed, the agent's user may, too.`,
		Example: `  confine node purge
  confine node purge --yes
  confine node purge --kubelet-root /var/lib/k0s/kubelet --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			if root == "" || kubelet == "" {
				return usagef("--root and --kubelet-root name folders")
			}
			return a.purge(cmd.Context(), purge.Options{
				Root: root, SeccompRoots: []string{filepath.Join(kubelet, "seccomp")}, HostRoot: hostRoot, SELinuxPriority: priority,
			}, yes, o)
		},
	}
	cmd.Flags().StringVar(&root, "root", "/var/lib/confine", "the agent's state folder, its --root")
	cmd.Flags().StringVar(&kubelet, "kubelet-root", "/var/lib/kubelet", "the kubelet's folder, its --root-dir")
	cmd.Flags().StringVar(&hostRoot, "host-root", "", "the host's root folder, where this runs in a container (default: its own)")
	cmd.Flags().IntVar(&priority, "selinux-priority", 0, "the agent's --selinux-priority, where it had one")
	cmd.Flags().BoolVar(&yes, "yes", false, "remove it, rather than list it")
	o.add(cmd)
	return cmd
}

type purged struct {
	// Removed is false for a mere list.
	Removed bool `json:"removed"`
	*purge.Plan
}

func (a *app) purge(ctx context.Context, options purge.Options, yes bool, o outputFlag) error {
	work := purge.Survey
	if yes {
		work = purge.Run
	}
	plan, err := work(ctx, options)
	if errors.Is(err, fs.ErrPermission) {
		return &fleet.Refusal{What: err.Error(), Advice: "run it as root, or as the user that the agent runs as"}
	}
	if err != nil {
		return err
	}
	return a.print(o, purged{Removed: yes, Plan: plan}, func() { a.printPurged(plan, yes) })
}

func (a *app) printPurged(plan *purge.Plan, yes bool) {
	if plan.NoState && plan.Profiles > 0 {
		a.errorf("warning: the state folder is not there, so nothing tells whether an agent runs; --root names it\n")
	}
	verb := "would remove"
	if yes {
		verb = "removed"
	}
	var bytes int64
	for _, e := range plan.Remove {
		a.printf("%s %s (%s)\n", verb, oneLine(e.Path), oneLine(e.What))
		bytes += e.Bytes
	}
	for _, e := range plan.Keep {
		a.printf("kept %s (%s)\n", oneLine(e.Path), oneLine(e.What))
	}
	if len(plan.Remove) == 0 {
		a.printf("Confine installed nothing here.\n")
		return
	}
	a.printf("%s %d entries, %d bytes\n", verb, len(plan.Remove), bytes)
	if plan.Profiles > 0 {
		a.errorf("warning: containers that run keep the seccomp filter they started with; one that names one of these %d profiles cannot be started again here\n", plan.Profiles)
	}
	if !yes {
		a.errorf("Nothing was removed: --yes removes it.\n")
	}
}
