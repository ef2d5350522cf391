package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/confine-dev/confine/pkg/node/prepare"
)

// ordinaryUID is the agent's user where it needs no privilege; the chart and the
// unit say the same.
const ordinaryUID = 65527

// prepareCommand makes the folders of an agent and gives them to its user.
func prepareCommand(ran *bool) *cobra.Command {
	var kubelet, state string
	var uid, gid, from int
	cmd := &cobra.Command{
		Use:   "prepare --kubelet-root DIR --state DIR --uid N [--gid N] [--from-uid N]",
		Short: "Make the folders of an agent and give them to its user",
		Long: `Make the folders of an agent and give them to its user, in an init container.

It makes DIR/seccomp/confine below the kubelet's root and the agent's own folder,
and gives both to the agent's user. With --uid 0 it takes them back from the
ordinary user that the agent was before, --from-uid, for an agent that loads
policy into the kernel. Either may follow the other. It follows no link and
touches nothing that belongs to anybody else. What an agent that is root keeps
for itself below its folder stays root's.
It needs root with CAP_CHOWN, and no network.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			*ran = true
			if gid == 0 {
				gid = uid
			}
			state = filepath.Clean(state)
			folders := []prepare.Folder{
				{Below: kubelet, Path: "seccomp/confine"},
				{Below: filepath.Dir(state), Path: filepath.Base(state), Private: stateFolders()},
			}
			if uid == 0 {
				return prepare.Take(from, folders...)
			}
			return prepare.Prepare(uid, gid, folders...)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&kubelet, "kubelet-root", "", "the kubelet's folder, such as /var/lib/kubelet (required)")
	fs.StringVar(&state, "state", "", "the agent's folder, its --root (required)")
	fs.IntVar(&uid, "uid", 0, "user the agent runs as (required)")
	fs.IntVar(&gid, "gid", 0, "group the agent runs as (default: the number of --uid)")
	fs.IntVar(&from, "from-uid", ordinaryUID, "with --uid 0: the ordinary user that the agent may have been before")
	for _, name := range []string{"kubelet-root", "state", "uid"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // a flag of that name stands above
		}
	}
	return cmd
}
