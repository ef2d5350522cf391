// Command bench compares, in one run against one registry on loopback, what
// Confine needs to pull, verify and install artifacts (a) with the least that
// any program must do for it (b), and with what a script of cosign and oras
// needs (c). Ratios are what to read: the machine's speed is in all three.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"time"
)

type options struct {
	bin     string
	cosign  string
	oras    string
	largest int
	script  int
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "folder of confine-agent")
	flag.StringVar(&o.cosign, "cosign", "", "the cosign program; empty leaves (c) out")
	flag.StringVar(&o.oras, "oras", "", "the oras program; empty leaves (c) out")
	flag.IntVar(&o.largest, "largest", 1000, "the largest number of artifacts")
	flag.IntVar(&o.script, "script", 10, "how many artifacts (c) is measured on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "confine-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s, err := newSite(ctx, dir, o.largest)
	if err != nil {
		return err
	}
	defer s.close()
	fmt.Printf("%d artifacts of one seccomp profile (%d bytes) and one bundle signature each, registry with the referrers API\n\n",
		len(s.artifacts), len(s.artifacts[0].payload))
	if err := compare(ctx, s, o); err != nil {
		return err
	}
	if err := requests(ctx, s); err != nil {
		return err
	}
	return memory(ctx, s, o)
}

// compare prints the table of (a), (b) and (c).
func compare(ctx context.Context, s *site, o options) error {
	perScript, err := script(ctx, s, o)
	if err != nil {
		return err
	}
	fmt.Printf("%9s %14s %14s %8s %16s %8s\n", "artifacts", "(a) confine", "(b) floor", "a/b", "(c) script", "c/a")
	for _, n := range []int{1, 100, 1000} {
		if n > o.largest {
			continue
		}
		rounds := max(1, min(9, 300/n))
		var as, bs []time.Duration
		for range rounds { // in turns, so that noise falls on both
			a, err := s.confine(ctx, n)
			if err != nil {
				return err
			}
			b, err := s.floor(ctx, n)
			if err != nil {
				return err
			}
			as, bs = append(as, a), append(bs, b)
		}
		a, b := median(as), median(bs)
		fmt.Printf("%9d %14s %14s %8.2f %16s %8s\n", n, round(a), round(b), ratio(a, b), scriptTime(perScript, n, o), scriptRatio(perScript, n, a))
	}
	if perScript > 0 {
		fmt.Printf("(c) is cosign verify + oras pull + install, measured on %d artifacts one after another, and multiplied\n", o.script)
	}
	return nil
}

func scriptTime(per time.Duration, n int, _ options) string {
	if per == 0 {
		return "-"
	}
	return round(per * time.Duration(n)).String()
}

func scriptRatio(per time.Duration, n int, a time.Duration) string {
	if per == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", ratio(per*time.Duration(n), a))
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

func round(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
