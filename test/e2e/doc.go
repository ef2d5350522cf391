// Package e2e holds the end-to-end tests: real nodes, the built image, the
// chart, a registry with TLS and a password, and pods whose syscalls the kernel
// denies. They are behind the build tag e2e; `make test-e2e` builds what they
// need and runs them.
package e2e
