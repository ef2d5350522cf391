package agent

import (
	"testing"
	"time"

	"github.com/confine-dev/confine/pkg/reason"
)

func TestPause(t *testing.T) {
	most := func(d time.Duration) time.Duration { return d }
	least := func(time.Duration) time.Duration { return 0 }
	for name, c := range map[string]struct {
		err         *reason.Error
		failures    int
		least, most time.Duration
	}{
		"retry, first":    {&reason.Error{Reason: reason.RegistryUnavailable}, 1, 100 * time.Millisecond, time.Second},
		"retry, fourth":   {&reason.Error{Reason: reason.RegistryUnavailable}, 4, 100 * time.Millisecond, 8 * time.Second},
		"retry, for long": {&reason.Error{Reason: reason.RegistryUnavailable}, 1 << 20, 100 * time.Millisecond, 5 * time.Minute},
		"wait, first":     {&reason.Error{Reason: reason.SignatureMissing}, 1, 3 * time.Second, 30 * time.Second},
		"wait, for long":  {&reason.Error{Reason: reason.SignatureMissing}, 99, 3 * time.Second, 30 * time.Minute},
		"stalled":         {&reason.Error{Reason: reason.Revoked}, 1, time.Minute, 10 * time.Minute},
		"stalled long":    {&reason.Error{Reason: reason.Revoked}, 99, time.Minute, 6 * time.Hour},
		"as long as told": {&reason.Error{Reason: reason.RateLimited, RetryAfter: time.Minute}, 99, time.Minute, 61 * time.Second},
		"not for ever":    {&reason.Error{Reason: reason.RateLimited, RetryAfter: 1 << 62}, 1, time.Hour, time.Hour + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			if got := pause(c.err, c.failures, least); got != c.least {
				t.Errorf("least %v, want %v", got, c.least)
			}
			if got := pause(c.err, c.failures, most); got != c.most {
				t.Errorf("most %v, want %v", got, c.most)
			}
		})
	}
}
