//go:build linux && (amd64 || arm64)

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"time"
)

func roles() map[string]func() error {
	return map[string]func() error{
		"threads": threadsEnd,
	}
}

// threadsEnd runs programs beside each other and waits until no thread is left
// that they were started from.
func threadsEnd() error {
	before, err := StatusOf(0)
	if err != nil {
		return err
	}
	ended := make(chan error)
	const programs = 8
	for range programs {
		go func() {
			ended <- Run(context.Background(), Program{Path: "/bin/cat", Args: []string{"/dev/null"}})
		}()
	}
	for range programs {
		if err := <-ended; err != nil {
			return err
		}
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		err := eachThread(func(s Status) error {
			if s != before {
				return errors.New("a thread is under the filter")
			}
			return nil
		})
		if err == nil {
			fmt.Println("none is under a filter")
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}
