// Package seccomp is the kind of seccomp profiles: runtime-spec JSON, read
// strictly, judged against policies, compared by meaning, and made from the
// dialect that moby and containers-common use.
//
// It is pure Go and never touches a kernel; package compile does, behind the
// build tag libseccomp.
package seccomp
