//go:build libseccomp

package interop_test

// buildTags are those that this test was built with, for the program it tests.
const buildTags = "libseccomp"
