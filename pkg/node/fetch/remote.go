package fetch

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/reason"
)

// notProvenAgain is when something is asked for again that the child calls too large: by
// itself that reason would wait for hours, and it cannot be proven. It is also
// when signatures are that did not come to an end.
const notProvenAgain = 10 * time.Minute

// Manifest implements artifact.Fetcher.
func (r *Remote) Manifest(ctx context.Context, repo reference.Repository, d digest.Digest) ([]byte, error) {
	req := request{Ask: askManifest, Repository: repo.String(), Digest: d}
	return r.bytes(ctx, req, repo, func(n int64) bool { return n <= artifact.MaxManifestBytes })
}

// Blob implements artifact.Fetcher.
func (r *Remote) Blob(ctx context.Context, repo reference.Repository, desc ocispec.Descriptor) ([]byte, error) {
	if desc.Size < 0 || desc.Size > artifact.MaxArtifactBytes {
		return nil, reason.New(reason.TooLarge, objectOf(repo, desc.Digest), "the descriptor names %d bytes, at most %d are read", desc.Size, artifact.MaxArtifactBytes)
	}
	req := request{Ask: askBlob, Repository: repo.String(), Digest: desc.Digest, Size: desc.Size}
	return r.bytes(ctx, req, repo, func(n int64) bool { return n == desc.Size })
}

// bytes asks for bytes that have a digest, and fit.
func (r *Remote) bytes(ctx context.Context, req request, repo reference.Repository, fits func(int64) bool) ([]byte, error) {
	object := objectOf(repo, req.Digest)
	if err := checkNames(object, repo, req.Digest); err != nil {
		return nil, err
	}
	x, err := r.open(ctx, object, req)
	if err != nil {
		return nil, err
	}
	defer x.close()
	stop := context.AfterFunc(ctx, x.close)
	defer stop()
	a, err := readAnswer(x.from)
	switch {
	case err != nil:
		return nil, x.broken(ctx, err)
	case a.Kind == answerError:
		return nil, x.refusal(a, req.Ask == askManifest)
	case a.Kind != answerBytes || !fits(a.Size):
		return nil, x.broken(ctx, errors.New("it answered something else than was asked"))
	}
	data, err := readBytes(x.from, a.Size)
	if err != nil {
		return nil, x.broken(ctx, err)
	}
	if digest.FromBytes(data) != req.Digest {
		return nil, x.broken(ctx, errors.New("it handed over other bytes"))
	}
	return data, nil
}

// checkNames refuses what no registry could be asked for.
func checkNames(object string, repo reference.Repository, d digest.Digest) error {
	if !isSHA256(d) {
		return reason.New(reason.UnsupportedArtifact, object, "it is no sha256 digest").
			WithAdvice("reference it by its sha256 digest: confine resolve REPO:TAG prints it")
	}
	canonical, err := reference.ParseRepository(repo.String())
	if err != nil {
		return err
	}
	if canonical != repo {
		return reason.New(reason.UnsupportedArtifact, canonical.String(), "the name of the repository is not in its canonical spelling")
	}
	return nil
}

func objectOf(repo reference.Repository, d digest.Digest) string {
	return clean(repo.String(), reference.MaxRepositoryBytes) + "@" + clean(d.String(), 2*len(digest.Canonical)+2*digest.Canonical.Size())
}

// exchange is one request under way.
type exchange struct {
	remote *Remote
	link   *link
	object string
	conn   *os.File
	from   *bufio.Reader
	once   sync.Once
	closed atomic.Bool
}

// open sends a request to the child, and returns once it took it.
func (r *Remote) open(ctx context.Context, object string, req request) (*exchange, error) {
	if ctx.Err() != nil {
		return nil, givenUp(ctx, object)
	}
	frame, err := encode(req)
	if err != nil {
		return nil, unavailable(object, "%w", err)
	}
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, givenUp(ctx, object)
	}
	x, err := r.begin(ctx, object, frame)
	if err != nil {
		<-r.slots
		return nil, err
	}
	stop := context.AfterFunc(ctx, x.close)
	defer stop()
	if err := x.taken(r.limits.respond); err != nil {
		defer x.close()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			x.link.fail("it did not take a request for " + r.limits.respond.String())
		}
		return nil, x.broken(ctx, err)
	}
	return x, nil
}

// begin hands a request to the child. Where that has ended in the meantime, to
// the next one.
func (r *Remote) begin(ctx context.Context, object string, frame []byte) (*exchange, error) {
	for again := false; ; again = true {
		l, err := r.await(ctx, object)
		if err != nil {
			return nil, err
		}
		ours, theirs, err := pair()
		if err != nil {
			return nil, unavailable(object, "no connection to the fetch child: %w", err)
		}
		if err = l.take(frame, ours, theirs); err == nil {
			return &exchange{remote: r, link: l, object: object, conn: ours, from: bufio.NewReader(ours)}, nil
		}
		err = errors.Join(err, ours.Close())
		if errors.Is(err, os.ErrDeadlineExceeded) {
			l.fail("it took nothing for " + l.respond.String())
		}
		r.detach(l)
		if again {
			return nil, unavailable(object, "the fetch child took no request: %w", err)
		}
	}
}

// take hands the child its end of a connection, after writing the request's
// header into ours. That never waits: the connection holds more.
func (l *link) take(frame []byte, ours, theirs *os.File) error {
	defer theirs.Close() //nolint:errcheck // the child has its own
	if l.dockerConfig != nil {
		if err := l.dockerConfig.handOver(l, msgDockerConfig); err != nil {
			return err
		}
	}
	if _, err := ours.Write(frame); err != nil {
		return err
	}
	return l.send(msgRequest, theirs)
}

// taken waits for the child's byte that it took the request.
func (x *exchange) taken(within time.Duration) error {
	if err := x.conn.SetReadDeadline(soon(within)); err != nil {
		return err
	}
	first, err := x.from.ReadByte()
	if err != nil {
		return err
	}
	if first != version {
		return errVersion
	}
	return x.conn.SetReadDeadline(time.Time{})
}

// close ends the request, wherever it is.
func (x *exchange) close() {
	x.once.Do(func() {
		x.closed.Store(true)
		_ = x.conn.Close() // nothing was left to be written
		<-x.remote.slots
	})
}

// broken is the error of an exchange that came to no answer.
func (x *exchange) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return givenUp(ctx, x.object)
	}
	why := x.link.ended()
	switch {
	case why != "":
		return unavailable(x.object, "the fetch child was ended: %s", why)
	case isEnd(err):
		return unavailable(x.object, "the fetch child ended before it answered")
	}
	x.remote.log.Warn("an answer of the fetch child cannot be used", "object", x.object, "error", err)
	x.link.fault(x.remote.limits.faults)
	e := unavailable(x.object, "the fetch child's answer cannot be used: %w", err)
	if errors.Is(err, errEndless) {
		e.RetryAfter = notProvenAgain // it cost a lot to learn
	}
	return e
}

// isEnd tells a connection that is over from one that says nonsense.
func isEnd(err error) bool {
	_, failed := errors.AsType[*os.PathError](err)
	_, failedNet := errors.AsType[*net.OpError](err)
	return failed || failedNet || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrClosed)
}

// refusal returns what the child says of something that it does not hand over.
//
// Only these reasons are taken: all of them mean that it could not be had, and
// a registry that lies can cause each of them. None is Stalled for longer than
// a few minutes, none says anything of bytes that were judged, and none can
// remove what is installed. What the child says stands in the message, fit to
// be shown; the advice is this program's own.
func (x *exchange) refusal(a answer, ofManifest bool) error {
	switch a.Reason {
	case reason.RegistryUnavailable, reason.RateLimited, reason.Unauthorized, reason.ArtifactNotFound, reason.DigestMismatch:
	case reason.TooLarge:
		if !ofManifest { // a blob's size is known here, and bounded
			return x.strange(a)
		}
	default:
		return x.strange(a)
	}
	message := clean(a.Message, maxMessageBytes)
	if message == "" {
		message = "it could not be had"
	}
	e := reason.New(a.Reason, x.object, "%s", message)
	e.RetryAfter = min(time.Duration(min(a.RetryAfter, maxRetryAfter.Milliseconds()))*time.Millisecond, maxRetryAfter)
	if a.Reason == reason.TooLarge && e.RetryAfter == 0 {
		e.RetryAfter = notProvenAgain
	}
	return e
}

// strange is the error for a reason that is not the child's to give.
func (x *exchange) strange(a answer) error {
	x.link.fault(x.remote.limits.faults)
	return unavailable(x.object, "the fetch child may not say %q", clean(string(a.Reason), 40))
}
