// Package e2e holds tests from end to end on kernels that enforce AppArmor or
// SELinux: from a signed artifact in a registry, through the agent as nodes run
// it, to what a process may do. They run in virtual machines (see test/vm), with
// the programs that testdata/programs lists.
package e2e
