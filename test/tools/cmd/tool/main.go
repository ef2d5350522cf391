// Command tool builds pinned tools and prints the path of each, one a line:
//
//	go run ./test/tools/cmd/tool oras kube/kubectl
//
// With -list it prints the names of all programs instead.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"

	"github.com/confine-dev/confine/test/tools"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tool:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if slices.Equal(args, []string{"-list"}) {
		names, err := tools.Names(ctx)
		for _, n := range names {
			fmt.Println(n)
		}
		return err
	}
	if len(args) == 0 {
		return errors.New("name at least one tool, or -list")
	}
	for _, name := range args {
		bin, err := tools.Path(ctx, name)
		if err != nil {
			return err
		}
		fmt.Println(bin)
	}
	return nil
}
