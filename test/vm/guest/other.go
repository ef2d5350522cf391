//go:build !linux || !amd64

package main

import "os"

// A test machine is one of linux/amd64.
func main() { os.Exit(1) }
