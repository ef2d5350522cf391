// Command testsum reads the events of `go test -json` and prints them for
// people: one line a package, the whole output of what failed, every skip with
// its reason, and the counts last. It fails where a test or a build failed,
// where no test ran, and, in CI, where a test was skipped for any other reason
// than a kernel that lacks the feature.
package main

import (
	"fmt"
	"os"
)

func main() {
	strict := os.Getenv("CI") == "true"
	if err := summarize(os.Stdin, os.Stdout, strict); err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(1)
	}
}
