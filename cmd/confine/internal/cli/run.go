package cli

import (
	"github.com/spf13/cobra"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/profile/seccomp/compile"
)

func (a *app) runCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "run --seccomp FILE -- COMMAND [ARGUMENT...]",
		Short: "Run a command under a seccomp profile, to try it",
		Long: `Run loads the profile as a container runtime does, with no_new_privs, and then
executes the command in its place. The exit code is the command's.`,
		Example: `  confine run --seccomp nginx.json -- unshare --user true`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			data, err := readBounded(file, profile.MaxPayloadBytes)
			if err != nil {
				return err
			}
			parsed, err := seccomp.New(seccomp.Options{Resolver: compile.Resolver()}).Parse(file, data)
			if err != nil {
				return err
			}
			return execUnder(parsed, args)
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows the command is its own
	cmd.Flags().StringVar(&file, "seccomp", "", "seccomp profile to run under (required)")
	_ = cmd.MarkFlagRequired("seccomp")
	return cmd
}
