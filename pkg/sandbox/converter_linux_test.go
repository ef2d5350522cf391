//go:build amd64 || arm64

package sandbox

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestConverterIsACompiler but for files that it opens, into which it puts
// nothing.
func TestConverterIsACompiler(t *testing.T) {
	t.Parallel()
	for name := range attempts("") {
		if name == "a new file" || name == "a file that is there" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused(t, Converter, attempts(place(t))[name])
		})
	}
	for name, how := range map[string]string{"a new file": ">", "a file that is there": "+>", "a file that grows": ">>"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := place(t)
			refused(t, Converter, `open(my $f, "`+how+`", "`+dir+`/there") or die "refused: $!"; print $f "x"; close($f) or die "refused: $!"; print "done"`)
			if data, err := os.ReadFile(filepath.Join(dir, "there")); err != nil || len(data) > 0 {
				t.Errorf("it holds %q, %v", data, err)
			}
		})
	}
}

// TestConverterWritesToItsOutput by the name that it is given, both ways of
// fopen(3).
func TestConverterWritesToItsOutput(t *testing.T) {
	t.Parallel()
	out, in, err := os.Pipe()
	must(t, err)
	defer func() { _ = out.Close() }()
	must(t, in.Chmod(0o666))
	script := `for my $how (">", "+>") { open(my $f, $how, "/proc/self/fd/1") or die "$how: $!"; print $f "made by $how;"; close $f or die }`
	log := &Output{Max: 1 << 10}
	err = Run(t.Context(), Program{Path: perl, Args: []string{"-e", script}, Stdout: in, Stderr: log, Filter: Converter})
	must(t, in.Close())
	made, readErr := io.ReadAll(out)
	if err != nil || readErr != nil || string(made) != "made by >;made by +>;" {
		t.Errorf("%q, %v, %v: %s", made, err, readErr, log)
	}
}

func TestConverterOpensAsFopenDoes(t *testing.T) {
	m := newMachine(t, Converter)
	for flags, want := range map[uint64]bool{
		unix.O_RDONLY: true, unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC: true, unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC: true,
		unix.O_WRONLY: false, unix.O_RDWR: false, unix.O_WRONLY | unix.O_CREAT | unix.O_APPEND: false, unix.O_CREAT: false, unix.O_TMPFILE | unix.O_RDWR: false,
	} {
		if got := m.answer(t, auditArch, unix.SYS_OPENAT, 0, 0, flags); (got == allow) != want {
			t.Errorf("open with %#o: %#x, allowed should be %v", flags, got, want)
		}
	}
	if got := m.answer(t, auditArch, unix.SYS_OPENAT2); got == allow {
		t.Error("openat2 is allowed")
	}
}
