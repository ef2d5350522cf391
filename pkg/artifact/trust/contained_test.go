package trust

import (
	"errors"
	"os"
	"runtime"
	"testing"
)

func TestContained(t *testing.T) {
	failure := errors.New("failed")
	for name, test := range map[string]struct {
		f    func() error
		want error
	}{
		"returns":            {func() error { return nil }, nil},
		"fails":              {func() error { return failure }, failure},
		"panics":             {func() error { panic("x") }, errPanicked},
		"leaves a slice":     {func() error { return []error{nil}[len(os.Args)+1] }, errPanicked},
		"ends its goroutine": {func() error { runtime.Goexit(); return nil }, errPanicked},
	} {
		t.Run(name, func(t *testing.T) {
			if err := contained(test.f); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}
