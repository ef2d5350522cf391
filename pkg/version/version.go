// Package version says which build of Confine is running. All binaries report
// the same word, so that a node's status and a bug report name the same build.
package version

import (
	"runtime"
	"runtime/debug"
)

// stamped is set by the linker: -X github.com/confine-dev/confine/pkg/version.stamped=v1.2.3.
var stamped string //nolint:gochecknoglobals // the linker can set nothing else; no code writes it

// unknown is reported where neither the linker nor the module says a version.
const unknown = "devel"

// Info is what is known about the running build.
type Info struct {
	// Version is the release, or git's description of the commit, or "devel".
	Version string `json:"version"`
	// Go is the toolchain that compiled it, such as "go1.26.8".
	Go string `json:"go"`
	// Platform is the GOOS/GOARCH it was compiled for.
	Platform string `json:"platform"`
}

// String returns the version of the running build: what the linker was given,
// else the version of the module (as `go install` records it), else "devel".
func String() string {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return choose(stamped, "")
	}
	return choose(stamped, build.Main.Version)
}

// Get returns all that is known about the running build.
func Get() Info {
	return Info{
		Version:  String(),
		Go:       runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
}

func choose(stamped, module string) string {
	if stamped != "" {
		return stamped
	}
	// "(devel)" is what go build records for a module built in place.
	if module != "" && module != "(devel)" {
		return module
	}
	return unknown
}
