//go:build !linux

package main

import "os"

// A test machine runs Linux.
func main() { os.Exit(1) }
