package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/confine-dev/confine/pkg/node/prepare"
)

// prepareCommand makes the folders of an agent that is not root.
func prepareCommand(ran *bool) *cobra.Command {
	var kubelet, state string
	var uid, gid int
	cmd := &cobra.Command{
		Use:   "prepare --kubelet-root DIR --state DIR --uid N [--gid N]",
		Short: "Make the folders of an agent that runs as an ordinary user",
		Long: `Make the folders of an agent that runs as an ordinary user, in an init container.

It makes DIR/seccomp/confine below the kubelet's root and the agent's own folder,
and gives both to the agent's user. It follows no link and gives away nothing that
belongs to anybody else. It needs root with CAP_CHOWN, and no network.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			*ran = true
			if gid == 0 {
				gid = uid
			}
			state = filepath.Clean(state)
			return prepare.Prepare(uid, gid,
				prepare.Folder{Below: kubelet, Path: "seccomp/confine"},
				prepare.Folder{Below: filepath.Dir(state), Path: filepath.Base(state)})
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&kubelet, "kubelet-root", "", "the kubelet's folder, such as /var/lib/kubelet (required)")
	fs.StringVar(&state, "state", "", "the agent's folder, its --root (required)")
	fs.IntVar(&uid, "uid", 0, "user the agent runs as (required)")
	fs.IntVar(&gid, "gid", 0, "group the agent runs as (default: the number of --uid)")
	for _, name := range []string{"kubelet-root", "state", "uid"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // a flag of that name stands above
		}
	}
	return cmd
}
