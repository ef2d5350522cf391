// Package compile is the one place that touches libseccomp: it compile-checks
// profiles, tells which names the library knows, and loads filters.
//
// It needs linux, cgo and the build tag libseccomp (and the library's headers);
// everything else gets the same functions, which say that they cannot. The
// tagged build links statically too:
//
//	go build -tags libseccomp,netgo,osusergo -ldflags '-extldflags -static'
//
// Rules become kernel rules exactly as runc v1.5 makes them
// (github.com/opencontainers/runc libcontainer/seccomp). Only the stub that
// runc puts in front, ENOSYS for syscalls newer than all a profile names, is
// left out: here those get the default action.
package compile
