package apitest

import "runtime"

// thread runs functions on one thread of the operating system. The kernel kills
// a tethered program when the thread that started it ends (prctl(2),
// PR_SET_PDEATHSIG), and Go ends threads as it likes unless one goroutine
// holds them.
type thread struct{ work chan func() }

func startThread() *thread {
	t := &thread{work: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for f := range t.work {
			f()
		}
	}()
	return t
}

// do runs f on the thread and waits for it.
func (t *thread) do(f func() error) error {
	done := make(chan error)
	t.work <- func() { done <- f() }
	return <-done
}

// end ends the thread, and with it every tethered program.
func (t *thread) end() { close(t.work) }
