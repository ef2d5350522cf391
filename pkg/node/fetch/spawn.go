package fetch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// controlFD is where a child that was started here has its end.
const controlFD = 3

// spawn keeps a child running until ctx ends.
func (r *Remote) spawn(ctx context.Context) {
	r.hideMemory()
	// What somebody left open in this process is not for the child.
	if err := unix.CloseRange(controlFD, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		r.log.Warn("descriptors that this process inherited are inherited by the fetch child", "error", err)
	}
	told := ""
	for pause := r.limits.restart; ; {
		began := time.Now()
		why := r.live(ctx, func() {
			if told != "" {
				r.log.Info("the fetch child works again")
				told = ""
			}
		})
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > r.limits.healthy {
			pause = r.limits.restart
		}
		if why != told {
			r.log.Warn("the fetch child ended; it is started again", "why", why)
			told = why
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, longestRestart)
	}
}

// hideMemory keeps a child of the same user from reading this process's memory,
// where no Landlock does. Of another user it cannot be read anyway.
func (r *Remote) hideMemory() {
	if os.Geteuid() == 0 {
		return
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		r.log.Warn("the fetch child has this process's user and could look into it: run the agent as root or in two containers", "error", err)
	}
}

// live starts a child, lets it answer and returns why it ended. ready is called
// once it answers.
func (r *Remote) live(ctx context.Context, ready func()) string {
	p, err := r.start(ctx)
	if err != nil {
		why := clean(err.Error(), maxMessageBytes)
		r.failing(why)
		return why
	}
	defer p.gone(r.limits.leave)
	l := p.link
	stop := context.AfterFunc(ctx, l.close)
	defer stop()
	if err := r.greet(l, r.opts.CAFile); err != nil {
		l.close()
		why := p.end(r.limits.leave, "it was not ready: "+clean(err.Error(), maxMessageBytes))
		r.failing(why)
		return why
	}
	if !r.attach(l) {
		l.close()
		return p.end(r.limits.leave, "it was not wanted any more")
	}
	ready()
	l.watch()
	r.detach(l)
	return p.end(r.limits.leave, "it ended")
}

// greet hands the files over and waits until the child is ready.
func (r *Remote) greet(l *link, caFile string) error {
	if r.opts.DockerConfig != "" {
		l.dockerConfig = &handedFile{path: r.opts.DockerConfig, log: r.log}
		if err := l.dockerConfig.handOver(l, msgDockerConfig); err != nil {
			return err
		}
	}
	if caFile != "" {
		ca := &handedFile{path: caFile, log: r.log}
		if err := ca.handOver(l, msgCAFile); err != nil {
			return err
		}
	}
	return l.hello(r.limits.respond)
}

// child is one process.
type child struct {
	cmd    *exec.Cmd
	link   *link
	lines  *lines
	pipe   *os.File
	ended  chan struct{} // closed when it was waited for
	err    error
	listen sync.WaitGroup
}

// start starts a child.
func (r *Remote) start(ctx context.Context) (*child, error) {
	ours, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close() //nolint:errcheck // the child has its own
	control, err := controlOf(ours)
	if err != nil {
		return nil, err
	}
	c := &child{link: newLink(control, r.limits.respond), lines: &lines{log: r.log}, ended: make(chan struct{})}
	if err := r.run(ctx, c, theirs); err != nil {
		c.link.close()
		return nil, fmt.Errorf("it cannot be started: %w", err)
	}
	return c, nil
}

// run starts the process itself.
func (r *Remote) run(ctx context.Context, c *child, control *os.File) error {
	nothing, err := os.Open(os.DevNull) // for reading alone, as its output, too
	if err != nil {
		return err
	}
	defer nothing.Close() //nolint:errcheck // the child has its own
	stderr, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer theirs.Close() //nolint:errcheck // the child has its own
	args := r.command()
	// It outlives ctx for as long as it needs to end by itself.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nothing, nothing, theirs
	cmd.ExtraFiles = []*os.File{control}
	cmd.Env, cmd.Dir = childEnv(os.Environ()), "/"
	if len(r.opts.Program) == 0 {
		cmd.Args[0] = "confine-agent"
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		id := uint32(r.opts.UID) //nolint:gosec // checked by Start
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: id, Gid: id}
	}
	c.cmd, c.pipe = cmd, stderr
	started := make(chan error, 1)
	go func() {
		// The kernel kills the child when the thread ends that started it, so
		// that thread is nobody else's meanwhile.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			c.err = cmd.Wait()
			close(c.ended)
		}
	}()
	if err := <-started; err != nil {
		return errors.Join(err, stderr.Close())
	}
	c.listen.Go(func() { c.lines.forward(stderr) })
	return nil
}

func (r *Remote) command() []string {
	args := slices.Clone(r.opts.Program)
	if len(args) == 0 {
		args = []string{"/proc/self/exe", "fetch", "--control-fd", fmt.Sprint(controlFD)}
	}
	args = append(args, r.opts.Args...)
	if r.opts.DockerConfig != "" {
		args = append(args, "--docker-config", r.opts.DockerConfig)
	}
	if r.opts.CAFile != "" {
		args = append(args, "--ca-file", r.opts.CAFile)
	}
	return args
}

// childEnv keeps what says how to reach registries. Everything else, such as
// where the API server and the service manager are, is not the child's business.
func childEnv(all []string) []string {
	keep := []string{
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
		"SSL_CERT_FILE", "SSL_CERT_DIR", "GODEBUG",
	}
	return slices.DeleteFunc(slices.Clone(all), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return !slices.Contains(keep, name)
	})
}

// end waits for the process, whose connection is over, and ends it where it
// does not by itself. It returns why it ended.
func (c *child) end(leave time.Duration, otherwise string) string {
	c.gone(leave)
	why := c.link.ended()
	if why == "" && c.err != nil {
		why = c.err.Error()
	}
	if why == "" {
		why = otherwise
	}
	if last := c.lines.last(); last != "" {
		why += ": " + last
	}
	return clean(why, maxMessageBytes)
}

// gone returns when the process is.
func (c *child) gone(leave time.Duration) {
	timer := time.NewTimer(leave)
	defer timer.Stop()
	select {
	case <-c.ended:
	case <-timer.C:
		if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			c.lines.log.Error("the fetch child does not end and cannot be ended; no other is started", "pid", c.cmd.Process.Pid, "error", err)
		}
		<-c.ended
	}
	// What it wrote at last is in the pipe; nobody else may keep that open.
	_ = c.pipe.SetReadDeadline(soon(time.Second))
	c.listen.Wait()
	_ = c.pipe.Close() // only read
}

// Bounds on what a child can write into the log.
const (
	maxLineBytes = 1 << 10
	maxLines     = 50 // in one linePeriod
	linePeriod   = 10 * time.Second
)

// lines forwards what a child writes to stderr into the log.
type lines struct {
	log *slog.Logger

	mu      sync.Mutex
	newest  string
	began   time.Time
	written int
	dropped int
}

// forward returns at the end of from.
func (l *lines) forward(from io.Reader) {
	in := bufio.NewReaderSize(from, maxLineBytes)
	rest := false // of a line that is too long
	for {
		part, err := in.ReadSlice('\n')
		if !rest && len(part) > 0 {
			l.write(string(part))
		}
		rest = errors.Is(err, bufio.ErrBufferFull)
		if err != nil && !rest {
			return
		}
	}
}

func (l *lines) write(line string) {
	line = clean(line, maxLineBytes)
	if line == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.began) > linePeriod {
		if l.dropped > 0 {
			l.log.Warn("the fetch child wrote more than is shown", "lines", l.dropped)
		}
		l.began, l.written, l.dropped = now, 0, 0
	}
	if !strings.HasPrefix(line, "what to do:") { // the second line of an error
		l.newest = line
	}
	if l.written++; l.written > maxLines {
		l.dropped++
		return
	}
	if strings.HasPrefix(line, "level=INFO") {
		l.log.Info("fetch child", "line", line)
		return
	}
	l.log.Warn("fetch child", "line", line)
}

// last returns the last line, in which a child says why it ends.
func (l *lines) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.newest
}
