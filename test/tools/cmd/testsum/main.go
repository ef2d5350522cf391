// Command testsum reads the events of `go test -json` and prints them for
// people: one line a package, the whole output of what failed, every skip with
// its reason, and the counts last. It fails where a test or a build failed,
// where no test ran, and, in CI, where a test was skipped for any other reason
// than a kernel that lacks the feature. With -slow it also prints how long each
// test took that took at least so long; with -none it is no failure, but in CI,
// that nothing ran: who makes the events has said why.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	o := options{strict: os.Getenv("CI") == "true"}
	flag.DurationVar(&o.slow, "slow", 0, "print how long tests took that took at least so long (0: none)")
	flag.BoolVar(&o.none, "none", false, "accept, but in CI, that no test ran")
	flag.Parse()
	if err := summarize(os.Stdin, os.Stdout, o); err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(1)
	}
}
