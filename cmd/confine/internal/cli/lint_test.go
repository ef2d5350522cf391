package cli

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestWorkThatHangsIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		start := time.Now()
		_, err := within(time.Minute, func() (int, error) { <-release; return 1, nil })
		if !errors.Is(err, errTooSlow) || time.Since(start) != time.Minute {
			t.Errorf("error %v after %s", err, time.Since(start))
		}
	})
}

func TestWorkInTimeGivesItsResult(t *testing.T) {
	cause := errors.New("cause")
	if value, err := within(time.Minute, func() (int, error) { return 1, cause }); value != 1 || !errors.Is(err, cause) {
		t.Errorf("%d, %v", value, err)
	}
}
