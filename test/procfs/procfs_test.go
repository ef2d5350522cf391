package procfs

import (
	"os"
	"testing"
	"time"
)

func TestOwnProcess(t *testing.T) {
	for begin := time.Now(); time.Since(begin) < 30*time.Millisecond; { // two ticks and more
	}
	now, err := Resident(os.Getpid())
	peak, err2 := Peak(os.Getpid())
	if err != nil || err2 != nil || now < 1 || peak < now {
		t.Errorf("resident %v MiB, peak %v MiB: %v, %v", now, peak, err, err2)
	}
	if used, err := ProcessorTime(os.Getpid()); err != nil || used <= 0 || used > time.Hour {
		t.Errorf("processor time %v: %v", used, err)
	}
}

func TestNoProcess(t *testing.T) {
	if _, err := Resident(-1); err == nil {
		t.Error("a process that is not there has memory")
	}
	if _, err := ProcessorTime(-1); err == nil {
		t.Error("a process that is not there has used time")
	}
}
