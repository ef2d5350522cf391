package purge

import (
	"regexp"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	apparmorhost "github.com/confine-dev/confine/pkg/profile/apparmor/host"
	"github.com/confine-dev/confine/pkg/profile/selinux"
	selinuxhost "github.com/confine-dev/confine/pkg/profile/selinux/host"
)

// loadedKinds are those that the agent loads into a kernel, in the folders that
// it gives them (cmd/confine-agent, hosts.go).
func loadedKinds() []loadedKind {
	return []loadedKind{
		{
			kind: apparmor.Name, folder: apparmor.Name, file: regexp.MustCompile(`^[a-f0-9]{64}\.json$`),
			open: func(o Options, folder string) (profile.Host, error) {
				return apparmorhost.New(apparmorhost.Options{Root: folder, HostRoot: o.HostRoot})
			},
		},
		{
			kind: selinux.Name, folder: selinux.Name, file: regexp.MustCompile(`^transaction$`),
			open: func(o Options, folder string) (profile.Host, error) {
				return selinuxhost.New(selinuxhost.Options{Root: folder, HostRoot: o.HostRoot, Priority: o.SELinuxPriority})
			},
		},
	}
}
