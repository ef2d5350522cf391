package fetch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/reason"
)

const (
	// served bounds the requests at one time; the parent asks for fewer.
	served = 64
	// headerWithin is how long a parent may take to send a header.
	headerWithin = 30 * time.Second
	// quiet is how long nothing must be asked before memory is given back.
	quiet = 5 * time.Second
)

// Server is the child's side of one control connection.
type Server struct {
	control  *net.UnixConn
	files    received
	open     atomic.Int64
	requests sync.WaitGroup
	idle     *time.Timer

	dockerConfig, caFile string
}

// NewServer returns the child's side of control.
func NewServer(control *net.UnixConn) *Server { return &Server{control: control} }

// Serve answers the requests that come over control from what from has, until
// the parent is gone or ctx ends. That is no error.
func Serve(ctx context.Context, control *net.UnixConn, from artifact.Fetcher) error {
	return NewServer(control).Serve(ctx, from)
}

// Await waits for the files that the parent hands over at first; an empty name
// stands for none. ReadFile reads them by these names. It is for a child that
// the parent started.
func (s *Server) Await(dockerConfig, caFile string) error {
	s.dockerConfig, s.caFile = dockerConfig, caFile
	for _, want := range []struct {
		name string
		kind byte
	}{{dockerConfig, msgDockerConfig}, {caFile, msgCAFile}} {
		if want.name == "" {
			continue
		}
		if err := s.control.SetReadDeadline(soon(headerWithin)); err != nil {
			return err
		}
		kind, file, err := receiveMessage(s.control)
		if err != nil || kind != want.kind {
			return errors.Join(fmt.Errorf("%s was not handed over", want.name), err, closeAny(file))
		}
		s.files.put(kind, file)
	}
	return s.control.SetReadDeadline(time.Time{})
}

// ReadFile reads a file that the parent handed over, as it is now: for
// registry.Options.
func (s *Server) ReadFile(name string) ([]byte, error) {
	switch name {
	case "":
	case s.dockerConfig:
		return s.files.read(msgDockerConfig)
	case s.caFile:
		return s.files.read(msgCAFile)
	}
	return nil, errors.New("the agent did not hand it over")
}

// Serve is as the function of that name.
func (s *Server) Serve(ctx context.Context, from artifact.Fetcher) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.requests.Wait()
	defer cancel()
	defer s.files.close()
	stop := context.AfterFunc(ctx, func() { _ = s.control.Close() })
	defer stop()
	s.idle = time.AfterFunc(quiet, debug.FreeOSMemory)
	defer s.idle.Stop()
	if _, err := s.control.Write([]byte{version}); err != nil {
		return gone(ctx, err)
	}
	for {
		kind, file, err := receiveMessage(s.control)
		if err != nil {
			return gone(ctx, err)
		}
		switch {
		case kind == msgRequest && file != nil:
			s.start(ctx, from, file)
		case kind == msgDockerConfig, kind == msgCAFile:
			s.files.put(kind, file)
		default:
			return errors.Join(fmt.Errorf("the parent sent a message of the kind %q", kind), closeAny(file))
		}
	}
}

// gone makes the end of the parent no error.
func gone(ctx context.Context, err error) error {
	over := errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
	if !over && ctx.Err() == nil {
		return err
	}
	return nil
}

// start answers one request beside the others.
func (s *Server) start(ctx context.Context, from artifact.Fetcher, conn *os.File) {
	if s.open.Add(1) > served {
		s.open.Add(-1)
		_ = conn.Close() // the parent sees that it was not taken
		return
	}
	s.idle.Stop()
	s.requests.Go(func() {
		defer func() {
			_ = conn.Close() // all was written, or nobody waits for it
			if s.open.Add(-1) == 0 {
				s.idle.Reset(quiet)
			}
		}()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		h := &handler{from: from, conn: conn, in: bufio.NewReader(conn), cancel: cancel}
		stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
		defer stop()
		h.handle(ctx)
	})
}

// handler answers one request.
type handler struct {
	from   artifact.Fetcher
	conn   *os.File
	in     *bufio.Reader
	cancel context.CancelFunc // ends the request: the parent does not wait for it
}

// handle reads the request and answers it. Whatever goes wrong with the
// connection ends it, and the parent sees that.
func (h *handler) handle(ctx context.Context) {
	if _, err := h.conn.Write([]byte{version}); err != nil {
		return
	}
	if err := h.conn.SetReadDeadline(soon(headerWithin)); err != nil {
		return
	}
	data, err := readHeader(h.in)
	if err != nil {
		return
	}
	req, repo, err := decodeRequest(data)
	if err != nil || h.conn.SetReadDeadline(time.Time{}) != nil {
		return
	}
	switch req.Ask {
	case askManifest:
		go h.watch()
		got, err := h.from.Manifest(ctx, repo, req.Digest)
		h.answer(got, artifact.MaxManifestBytes, err)
	case askBlob:
		go h.watch()
		got, err := h.from.Blob(ctx, repo, ocispec.Descriptor{Digest: req.Digest, Size: req.Size})
		h.answer(got, req.Size, err)
	case askSignatures:
		h.walk(ctx, func(seen func(digest.Digest) bool) artifact.Signatures {
			return h.from.Signatures(ctx, repo, req.Digest, seen)
		})
	}
}

// watch ends the request when the parent closes its end, and ends with it.
func (h *handler) watch() {
	_, _ = h.in.ReadByte() // there is nothing more to read
	h.cancel()
}

// answer sends bytes, or why there are none.
func (h *handler) answer(data []byte, most int64, err error) {
	if err == nil && int64(len(data)) > most {
		err = reason.New(reason.TooLarge, "", "it has more than %d bytes", most)
	}
	if err != nil {
		h.send(refusalOf(answerError, "", err))
		return
	}
	frame, err := encode(answer{Kind: answerBytes, Size: int64(len(data))})
	if err != nil {
		return
	}
	both := net.Buffers{frame, data}
	_, _ = both.WriteTo(h.conn) // the parent sees where it was cut off
}

// send sends a header alone.
func (h *handler) send(header any) bool {
	frame, err := encode(header)
	if err != nil {
		return false
	}
	_, err = h.conn.Write(frame)
	return err == nil
}

// refusalOf renders an error as the answer that says so. What is none of the
// reasons for which something cannot be had is told as RegistryUnavailable.
func refusalOf(kind string, id digest.Digest, err error) answer {
	a := answer{Kind: kind, ID: id, Reason: reason.RegistryUnavailable}
	e, ok := reason.Of(err)
	if !ok {
		a.Message = clean(err.Error(), maxMessageBytes)
		return a
	}
	a.RetryAfter = min(max(e.RetryAfter, 0), maxRetryAfter).Milliseconds()
	text := e.Detail
	switch e.Reason {
	case reason.RegistryUnavailable, reason.RateLimited, reason.Unauthorized, reason.ArtifactNotFound, reason.DigestMismatch, reason.TooLarge:
		a.Reason = e.Reason
	default:
		text = e.Error()
	}
	a.Message = clean(text, maxMessageBytes)
	return a
}

// walk answers a walk: each word of the parent is one Next.
func (h *handler) walk(ctx context.Context, begin func(seen func(digest.Digest) bool) artifact.Signatures) {
	words := make(chan string)
	go h.listen(ctx, words)
	hear := func() string {
		select {
		case said := <-words:
			return said
		case <-ctx.Done():
			return ""
		}
	}
	signatures := begin(func(id digest.Digest) bool {
		if !isSHA256(id) || !h.send(answer{Kind: answerSeen, ID: id}) {
			return true // it could not be offered
		}
		switch hear() {
		case sayNo:
			return false
		case sayYes:
			return true
		}
		h.cancel()
		return true
	})
	for hear() == sayNext && h.next(ctx, signatures) {
	}
}

// listen hands over what the parent says, and ends the request when it stops.
func (h *handler) listen(ctx context.Context, words chan<- string) {
	defer h.cancel()
	for {
		data, err := readHeader(h.in)
		if err != nil {
			return
		}
		said, err := decode[word](data)
		if err != nil {
			return
		}
		select {
		case words <- said.Say:
		case <-ctx.Done():
			return
		}
	}
}

// next sends the next candidate, or why there is none, and reports whether the
// walk goes on.
func (h *handler) next(ctx context.Context, signatures artifact.Signatures) bool {
	for {
		candidate, err := signatures.Next(ctx)
		var skipped *artifact.SkippedError
		switch {
		case ctx.Err() != nil:
			return false
		case err == nil:
			if written, err := h.candidate(candidate); written || err != nil {
				return err == nil
			}
		case errors.Is(err, io.EOF):
			return h.send(answer{Kind: answerEnd})
		case errors.As(err, &skipped):
			id := skipped.ID
			if !isSHA256(id) {
				id = ""
			}
			return h.send(refusalOf(answerSkipped, id, skipped.Err))
		default:
			return h.send(refusalOf(answerError, "", err))
		}
	}
}

// candidate writes a candidate; one that cannot be a signature is passed over.
func (h *handler) candidate(c trust.Candidate) (bool, error) {
	if !isSHA256(c.ID) || c.Form != trust.FormBundle && c.Form != trust.FormSimpleSigning {
		return false, nil
	}
	return writeCandidate(h.conn, c)
}
