// Package controller will assign digests to nodes in waves and aggregate what
// nodes report. It is not written yet; see docs/decisions.
package controller
