//go:build sources

// Package main names, for go.mod, the modules this program and the tests of
// pkg/profile/seccomp read as text.
package main

import (
	_ "github.com/containerd/containerd/v2/contrib/seccomp"
	_ "github.com/moby/profiles/seccomp"
	_ "go.podman.io/common/pkg/seccomp"
)
