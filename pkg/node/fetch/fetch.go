// Package fetch keeps registries away from the process that judges and
// installs: a child process speaks to them and holds their credentials, and
// hands over plain bytes. docs/node.md ("Fetch child") describes it.
//
// The parent is a Remote, which is an artifact.Fetcher. It trusts nothing the
// child says: every byte is compared with its digest, every length is bounded
// before anything is allocated, and all that the child can say of what it does
// not hand over is that it could not be had. A child that was taken over can
// withhold what registries have, as a registry that lies can, and nothing else.
//
// The protocol. Parent and child share one control connection, a unix stream
// socket. On it the child says one byte, its version, and then nothing; the
// parent sends one byte and a descriptor each time:
//
//	q  one end of a fresh socket pair, which carries one request
//	d  the docker config file, opened for reading; again whenever it was replaced
//	c  the CA file, opened for reading
//
// A request's connection begins with one byte of the child, that it took it.
// Then both send frames: the length of a header (4 bytes, big endian, at most
// MaxHeaderBytes), the header as JSON in the one spelling that encoding/json
// writes, and the raw bytes that the header announces. To close it is to cancel.
package fetch

import (
	"context"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/reason"
)

// DefaultUID is the user of the fetch child where Options name none.
const DefaultUID = 65526

// version is the first byte of a child.
const version = 1

// Kinds of messages on the control connection.
const (
	msgRequest      = 'q'
	msgDockerConfig = 'd'
	msgCAFile       = 'c'
)

// Options of a Remote. The zero value starts this program's own fetch child.
type Options struct {
	// Socket is the path of a unix socket to listen on, for a child that
	// somebody else starts (a second container); empty means to start one here.
	Socket string
	// UID is the child's user, and its group when it is started here; 0 means
	// DefaultUID. A child started by a parent that is not root has the
	// parent's user.
	UID int
	// Program is the child's command line; empty means this program with
	// "fetch --control-fd 3". Descriptor 3 is its end of the control connection.
	Program []string
	// Args are further arguments of Program.
	Args []string
	// DockerConfig and CAFile are files that the child needs. They are opened
	// here and never read here, so that the child's user needs no right to them.
	// For a child that somebody else starts they are that one's own business.
	DockerConfig, CAFile string
	// Log receives what happens to the child, and the lines it writes to
	// stderr; nil means nowhere.
	Log *slog.Logger

	limits limits
}

// limits are the bounds that are no options.
type limits struct {
	open    int           // requests at one time
	connect time.Duration // for a child to be there
	respond time.Duration // for a child to take a request, a message, or to say hello
	idle    time.Duration // between two Next of one walk
	leave   time.Duration // for a child to end by itself
	restart time.Duration // first pause before the child is started again
	healthy time.Duration // after which the pauses begin anew
	faults  int           // broken answers of one child
	offers  int           // see maxOffers
}

const longestRestart = 30 * time.Second

func defaultLimits() limits {
	return limits{
		open:    32,
		connect: 10 * time.Second,
		respond: 30 * time.Second,
		idle:    10 * time.Second,
		leave:   3 * time.Second,
		restart: 100 * time.Millisecond,
		healthy: time.Minute,
		faults:  16,
		offers:  maxOffers,
	}
}

// Remote fetches through a child. It implements artifact.Fetcher and is safe
// for concurrent use.
//
// Its errors are *reason.Error: RegistryUnavailable where the child is not
// there, ends, hangs or hands over what cannot be used, and for what the child
// itself says those of a closed list, which refusals describes.
type Remote struct {
	opts   Options
	log    *slog.Logger
	limits limits
	slots  chan struct{}
	stop   context.CancelFunc
	// running are the goroutines that keep the child.
	running sync.WaitGroup
	offers  offers
	// listening is set where the child dials.
	listening *listener

	mu sync.Mutex
	// link is the child that answers; nil while there is none.
	link *link
	// since is when there was none.
	since time.Time
	// trouble is why the child cannot be started; empty where that is not known.
	trouble string
	closed  bool
	// changed is closed and replaced whenever one of these changes.
	changed chan struct{}
}

var _ artifact.Fetcher = (*Remote)(nil)

// Start starts a fetch child and keeps one running, or listens on Socket for
// one, until ctx ends or Close is called. It does not wait for the child: what
// is asked before it is there waits a little, and is RegistryUnavailable where
// it does not come. Errors are InstallFailed.
func Start(ctx context.Context, opts Options) (*Remote, error) {
	if opts.UID == 0 {
		opts.UID = DefaultUID
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.limits == (limits{}) {
		opts.limits = defaultLimits()
	}
	if opts.UID < 0 {
		return nil, reason.New(reason.InstallFailed, "fetch child", "%d is no user", opts.UID).
			WithAdvice("give the number of an ordinary user, such as %d", DefaultUID)
	}
	r := &Remote{
		opts: opts, log: opts.Log, limits: opts.limits, since: time.Now(),
		slots: make(chan struct{}, opts.limits.open), changed: make(chan struct{}),
	}
	keep := r.spawn
	if opts.Socket != "" {
		if opts.DockerConfig != "" || opts.CAFile != "" {
			return nil, reason.New(reason.InstallFailed, opts.Socket, "a fetch child that dials reads its docker config and CA file itself").
				WithAdvice("give --docker-config and --ca-file to confine-agent fetch instead")
		}
		if err := r.listen(); err != nil {
			return nil, err
		}
		keep = r.accept
	}
	ctx, r.stop = context.WithCancel(ctx)
	r.running.Go(func() {
		keep(ctx)
		r.end()
	})
	return r, nil
}

// Close ends the child, or the connection with one, and waits for it.
func (r *Remote) Close() error {
	r.stop()
	r.running.Wait()
	return nil
}

// end refuses whatever is asked from now on.
func (r *Remote) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link != nil {
		r.link.close()
		r.link = nil
	}
	r.closed = true
	r.tell()
}

// tell wakes who waits for a change. The caller holds mu.
func (r *Remote) tell() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// attach makes l the child that answers, unless another one does already.
func (r *Remote) attach(l *link) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link != nil || r.closed {
		return false
	}
	r.link, r.trouble = l, ""
	r.tell()
	return true
}

// detach forgets l, whose connection is over.
func (r *Remote) detach(l *link) {
	l.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link == l {
		r.link, r.since = nil, time.Now()
		r.tell()
	}
}

// failing notes why there is no child.
func (r *Remote) failing(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trouble = why
	r.tell()
}

// await returns the child that answers, and waits a little for it.
func (r *Remote) await(ctx context.Context, object string) (*link, error) {
	var late <-chan time.Time
	for {
		r.mu.Lock()
		found, closed, trouble, since, changed := r.link, r.closed, r.trouble, r.since, r.changed
		r.mu.Unlock()
		switch {
		case found != nil:
			return found, nil
		case closed:
			return nil, unavailable(object, "the fetch child was ended")
		case trouble != "":
			return nil, unavailable(object, "there is no fetch child: %s", trouble)
		}
		left := time.Until(since.Add(r.limits.connect))
		if left <= 0 {
			return nil, r.absent(object)
		}
		if late == nil {
			timer := time.NewTimer(left)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-changed:
		case <-late:
			return nil, r.absent(object)
		case <-ctx.Done():
			return nil, givenUp(ctx, object)
		}
	}
}

func (r *Remote) absent(object string) error {
	if r.opts.Socket == "" {
		return unavailable(object, "the fetch child is not ready yet")
	}
	return unavailable(object, "no fetch child has connected to %s", r.opts.Socket).
		WithAdvice("see that the fetch child runs (in a cluster: the container fetch of the agent's pod); it is tried again by itself")
}

// unavailable is the error for whatever is wrong with the child: it says
// nothing of the artifact, and another attempt may succeed.
func unavailable(object, format string, args ...any) *reason.Error {
	return reason.New(reason.RegistryUnavailable, object, format, args...).
		WithAdvice("see the fetch child's lines in the agent's log; it is tried again by itself")
}

// givenUp is the error of work whose caller gave up.
func givenUp(ctx context.Context, object string) *reason.Error {
	return reason.New(reason.RegistryUnavailable, object, "given up: %w", context.Cause(ctx))
}

// link is one child's control connection.
type link struct {
	control *net.UnixConn
	respond time.Duration
	// sent are the files as they were handed over.
	dockerConfig *handedFile

	mu     sync.Mutex
	faults int
	why    string // why it was ended here
	once   sync.Once
	over   chan struct{} // closed with it
}

func newLink(control *net.UnixConn, respond time.Duration) *link {
	return &link{control: control, respond: respond, over: make(chan struct{})}
}

func (l *link) close() {
	l.once.Do(func() {
		close(l.over)
		_ = l.control.Close() // nothing was left to be written
	})
}

// fail ends the connection with a child that does not keep to the protocol.
func (l *link) fail(why string) {
	l.mu.Lock()
	if l.why == "" {
		l.why = why
	}
	l.mu.Unlock()
	l.close()
}

// fault counts a broken answer. One of them may be an accident with one
// artifact, which must not end what is fetched of others; many are not.
func (l *link) fault(most int) {
	l.mu.Lock()
	l.faults++
	many := l.faults >= most
	l.mu.Unlock()
	if many {
		l.fail("too many of its answers could not be used")
	}
}

// ended returns why the connection was ended here; empty where it was not.
func (l *link) ended() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}

// hello waits for the child's first byte.
func (l *link) hello(within time.Duration) error {
	if err := l.control.SetReadDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	var first [1]byte
	n, err := l.control.Read(first[:])
	switch {
	case n == 0 && err != nil:
		return err
	case first[0] != version:
		return errVersion
	}
	return l.control.SetReadDeadline(time.Time{})
}

// watch returns once the connection is over. A child that says anything on it
// after its hello does not keep to the protocol.
func (l *link) watch() {
	var one [1]byte
	if n, _ := l.control.Read(one[:]); n > 0 {
		l.fail("it spoke on the control connection")
	}
	l.close()
}

// send sends one message, with a descriptor unless file is nil.
func (l *link) send(kind byte, file *os.File) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return sendMessage(l.control, kind, file, l.respond)
}
