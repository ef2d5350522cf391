// Command nodeinit is process 1 of a node of the test cluster; package cluster
// starts it.
package main

import (
	"fmt"
	"os"

	"github.com/confine-dev/confine/test/kube/internal/nodeinit"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: nodeinit CONFIG")
		os.Exit(2)
	}
	if err := nodeinit.Main(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "nodeinit:", err)
		os.Exit(1)
	}
}
