package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// maxEventBytes bounds one line of the event stream.
const maxEventBytes = 16 << 20

// event is one line of `go test -json` (go doc test2json; build events:
// go help buildjson).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build events
	Test        string
	Output      string
	FailedBuild string
	Elapsed     float64 // seconds
}

// options say what counts, and what is printed.
type options struct {
	// strict lets a skip fail that has no kernel reason.
	strict bool
	// none accepts that no test ran, where strict is not set.
	none bool
	// slow is from when on the time of a test is printed; zero means never.
	slow time.Duration
}

// testKey names one test of one package; an empty test is the package itself.
type testKey struct{ pkg, test string }

func (k testKey) String() string { return strings.TrimSpace(k.pkg + " " + k.test) }

// summary gathers the events.
type summary struct {
	out     io.Writer
	slow    time.Duration
	output  map[testKey][]string
	build   map[string][]string // output of builds by import path
	passed  int
	failed  []testKey
	skipped []testKey
	broken  []string // packages that failed, whatever the reason
}

// summarize reads events from in and prints them to out. The error says in one
// line why the run does not count as good.
func summarize(in io.Reader, out io.Writer, o options) error {
	s := &summary{out: out, slow: o.slow, output: map[testKey][]string{}, build: map[string][]string{}}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), maxEventBytes)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			// The go command itself speaks plainly, such as about an unknown flag.
			fmt.Fprintln(out, lines.Text())
			continue
		}
		s.add(e)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading test events: %w", err)
	}
	return s.close(o.strict, o.none)
}

func (s *summary) add(e event) {
	key := testKey{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		s.build[e.ImportPath] = append(s.build[e.ImportPath], e.Output)
	case "output":
		s.output[key] = append(s.output[key], e.Output)
	case "pass", "fail", "skip":
		s.end(key, e)
	}
}

// end handles the last event of a test or of a package.
func (s *summary) end(key testKey, e event) {
	if key.test == "" {
		s.endPackage(e)
		return
	}
	if took := time.Duration(e.Elapsed * float64(time.Second)); s.slow > 0 && took >= s.slow {
		fmt.Fprintf(s.out, "%s %6.1f s %s\n", e.Action, took.Seconds(), key.test)
	}
	switch e.Action {
	case "pass":
		s.passed++
		delete(s.output, key)
	case "skip":
		s.skipped = append(s.skipped, key)
	case "fail":
		s.failed = append(s.failed, key)
	}
}

func (s *summary) endPackage(e event) {
	if e.Action != "fail" {
		s.printPackage(e.Package)
		return
	}
	s.broken = append(s.broken, e.Package)
	for _, line := range s.build[e.FailedBuild] {
		fmt.Fprint(s.out, line)
	}
	// What is left is the output of failed tests and of tests that never ended,
	// because the test binary died.
	for _, key := range slices.SortedFunc(maps.Keys(s.output), compareKeys) {
		if key.pkg != e.Package || key.test == "" || slices.Contains(s.skipped, key) {
			continue
		}
		for _, line := range s.output[key] {
			fmt.Fprint(s.out, line)
		}
		delete(s.output, key)
	}
	for _, line := range s.output[testKey{pkg: e.Package}] {
		fmt.Fprint(s.out, line)
	}
}

// printPackage prints the line with which the go command sums a package up.
func (s *summary) printPackage(pkg string) {
	for _, line := range s.output[testKey{pkg: pkg}] {
		if strings.HasPrefix(line, "ok  \t") {
			fmt.Fprint(s.out, line)
		}
	}
}

func (s *summary) close(strict, none bool) error {
	var unexplained []testKey
	for _, key := range s.skipped {
		why := s.skipReason(key)
		fmt.Fprintf(s.out, "SKIP %s: %s\n", key, why)
		if !kernelReason().MatchString(why) {
			unexplained = append(unexplained, key)
		}
	}
	for _, key := range s.failed {
		fmt.Fprintf(s.out, "FAIL %s\n", key)
	}
	fmt.Fprintf(s.out, "%d passed, %d failed, %d skipped\n", s.passed, len(s.failed), len(s.skipped))
	switch {
	case len(s.failed) > 0 || len(s.broken) > 0:
		return fmt.Errorf("failed packages: %s", strings.Join(s.broken, " "))
	case s.passed == 0 && (strict || !none):
		return errors.New("no test passed, so nothing was tested")
	case strict && len(unexplained) > 0:
		return fmt.Errorf("%d tests were skipped for another reason than a feature the kernel lacks", len(unexplained))
	}
	return nil
}

// kernelReason matches the only reason to skip that CI accepts.
func kernelReason() *regexp.Regexp { return regexp.MustCompile(`(?i)\bkernel\b`) }

// skipReason returns what the test said when it skipped itself.
func (s *summary) skipReason(key testKey) string {
	var said []string
	for _, line := range s.output[key] {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "===") || strings.HasPrefix(line, "---") {
			continue
		}
		// The place "file.go:12: " is noise here.
		if _, after, ok := strings.Cut(line, ".go:"); ok {
			if _, text, ok := strings.Cut(after, ": "); ok {
				line = text
			}
		}
		said = append(said, line)
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, " ")
}

func compareKeys(a, b testKey) int {
	if c := strings.Compare(a.pkg, b.pkg); c != 0 {
		return c
	}
	return strings.Compare(a.test, b.test)
}
