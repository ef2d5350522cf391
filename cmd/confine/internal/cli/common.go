package cli

import (
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/confine-dev/confine/pkg/artifact/registry"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/kinds"
	"github.com/confine-dev/confine/pkg/profile/seccomp/compile"
	"github.com/confine-dev/confine/pkg/version"
)

// knownKinds are the kinds as nodes judge them.
func knownKinds() profile.Set { return kinds.All(compile.Resolver()) }

// client speaks to registries with the user's credentials.
func (a *app) client() (*registry.Client, error) {
	return registry.New(registry.Options{
		DockerConfig: a.dockerConfigPath(),
		CAFile:       a.caFile,
		UserAgent:    "confine/" + version.String(),
		Log:          a.logger(),
	})
}

// dockerConfigPath is the flag's file, or docker's own where it exists.
func (a *app) dockerConfigPath() string {
	if a.dockerConfig != "" {
		return a.dockerConfig
	}
	dir, ok := a.LookupEnv("DOCKER_CONFIG")
	if !ok || dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		dir = filepath.Join(home, ".docker")
	}
	path := filepath.Join(dir, "config.json")
	if !exists(path) {
		return ""
	}
	return path
}

func (a *app) versionCommand() *cobra.Command {
	var o outputFlag
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := o.check(); err != nil {
				return err
			}
			out := map[string]any{"version": version.String(), "seccompCompiler": compile.Available()}
			return a.print(o, out, func() { a.printf("confine %s\n", version.String()) })
		},
	}
	o.add(cmd)
	return cmd
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
