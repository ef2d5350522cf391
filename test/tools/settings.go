package tools

import (
	"fmt"
	"strings"
)

// settings say how a program is built where it differs from the rest. All of
// them are part of the stamp, so a change builds the program again.
type settings struct {
	// ldflags are added to "-s -w". In them ${version} is the pinned version
	// (v1.2.3), ${release} the same without v, ${major} and ${minor} its parts.
	ldflags []string
	tags    []string
	// cgo allows C code. Without it a program needs no C compiler to build and
	// runs on any libc; with it, link statically to keep the latter.
	cgo bool
}

// settingsOf returns the row of the table; programs without one have no settings.
func settingsOf(name string) settings { return table()[name] }

// table holds the settings by the name that Path takes.
func table() map[string]settings {
	// The API server and kubectl refuse to talk about a version that nobody
	// stamped; both ask these variables.
	kubernetes := settings{ldflags: []string{
		"-X k8s.io/component-base/version.gitVersion=${version}",
		"-X k8s.io/component-base/version.gitMajor=${major}",
		"-X k8s.io/component-base/version.gitMinor=${minor}",
		"-X k8s.io/client-go/pkg/version.gitVersion=${version}",
	}}
	return map[string]settings{
		"kube/kube-apiserver":          kubernetes,
		"kube/kube-controller-manager": kubernetes,
		"kube/kube-scheduler":          kubernetes,
		"kube/kubectl":                 kubernetes,
		"kube/kubelet":                 kubernetes,
		"node/containerd": {
			ldflags: []string{"-X github.com/containerd/containerd/v2/version.Version=${version}"},
			// Snapshots are kept by overlayfs; the others want C headers or devices.
			tags: []string{"no_btrfs", "no_devmapper", "no_zfs"},
		},
		"node/runc": {
			ldflags: []string{"-linkmode external", "-extldflags -static"},
			// As runc's own Makefile has it, without libpathrs, which is written in
			// Rust, and with what glibc cannot link statically kept out.
			tags: []string{"seccomp", "urfave_cli_no_docs", "netgo", "osusergo"},
			cgo:  true,
		},
	}
}

// buildArgs returns the arguments of go build but for the output file.
func (s settings) buildArgs(version string) []string {
	release := strings.TrimPrefix(version, "v")
	major, rest, _ := strings.Cut(release, ".")
	minor, _, _ := strings.Cut(rest, ".")
	expand := strings.NewReplacer("${version}", version, "${release}", release, "${major}", major, "${minor}", minor)
	args := []string{"build", "-trimpath", "-ldflags=" + expand.Replace(strings.Join(append([]string{"-s -w"}, s.ldflags...), " "))}
	if len(s.tags) > 0 {
		args = append(args, "-tags="+strings.Join(s.tags, ","))
	}
	return args
}

// env returns the environment that the go command gets on top.
func (s settings) env() []string {
	if s.cgo {
		return []string{"CGO_ENABLED=1"}
	}
	return []string{"CGO_ENABLED=0"}
}

// String renders all that decides the binary, for the stamp.
func (s settings) String() string { return fmt.Sprintf("%q %q %t", s.ldflags, s.tags, s.cgo) }
