package fetch

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/fetchtest"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/reason"
)

func frame(t testing.TB, header any) []byte {
	t.Helper()
	data, err := encode(header)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRequestsAreReadInOneSpelling(t *testing.T) {
	d := digest.FromString("x")
	good := request{Ask: askBlob, Repository: "registry.example/team/web", Digest: d, Size: 7}
	got, repo, err := decodeRequest(frame(t, good)[4:])
	if err != nil || got != good || repo.String() != good.Repository {
		t.Fatalf("decodeRequest = %+v, %v, %v", got, repo, err)
	}
	for name, change := range map[string]func(*request){
		"another ask":         func(r *request) { r.Ask = "push" },
		"nothing asked":       func(r *request) { r.Ask = "" },
		"manifest with size":  func(r *request) { r.Ask = askManifest },
		"huge":                func(r *request) { r.Size = artifact.MaxArtifactBytes + 1 },
		"negative":            func(r *request) { r.Size = -1 },
		"no digest":           func(r *request) { r.Digest = "" },
		"another digest":      func(r *request) { r.Digest = digest.SHA512.FromString("x") },
		"not canonical":       func(r *request) { r.Repository = "REGISTRY.example/team/web" },
		"no registry":         func(r *request) { r.Repository = "web" },
		"with a tag":          func(r *request) { r.Repository += ":v1" },
		"with a digest":       func(r *request) { r.Repository += "@" + d.String() },
		"with a line break":   func(r *request) { r.Repository += "\n" },
		"with a query of URL": func(r *request) { r.Repository += "?x" },
	} {
		t.Run(name, func(t *testing.T) {
			bad := good
			change(&bad)
			if _, _, err := decodeRequest(frame(t, bad)[4:]); err == nil {
				t.Error("it was read")
			}
		})
	}
	text := string(frame(t, good)[4:])
	for name, bad := range map[string]string{
		"unknown field": strings.Replace(text, `{`, `{"more":1,`, 1),
		"key twice":     strings.Replace(text, `{`, `{"ask":"manifest",`, 1),
		"case variant":  strings.Replace(text, `"ask"`, `"Ask"`, 1),
		"white space":   " " + text,
		"trailing":      text + text,
		"escaped":       strings.Replace(text, "team", `\u0074eam`, 1),
		"float":         strings.Replace(text, ":7", ":7.0", 1),
		"another order": `{"digest":"` + d.String() + `","ask":"manifest","repository":"registry.example/team/web"}`,
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := decodeRequest([]byte(bad)); err == nil {
				t.Errorf("%s was read", bad)
			}
		})
	}
}

func TestCandidatesCrossUnchanged(t *testing.T) {
	id := digest.FromString("x")
	for name, c := range map[string]trust.Candidate{
		"bundle":      {ID: id, Form: trust.FormBundle, Payload: []byte(`{"a":"` + "\x00\xff" + `"}`)},
		"empty":       {ID: id, Form: trust.FormBundle, Payload: []byte{}},
		"annotations": {ID: id, Form: trust.FormSimpleSigning, Payload: []byte("p"), Annotations: map[string]string{"b": "", "a": "\xff\n", "": "x"}},
		"the largest": {ID: id, Form: trust.FormBundle, Payload: make([]byte, trust.MaxCandidateBytes)},
	} {
		t.Run(name, func(t *testing.T) {
			var wire bytes.Buffer
			if written, err := writeCandidate(&wire, c); !written || err != nil {
				t.Fatalf("writeCandidate = %v, %v", written, err)
			}
			a, err := readAnswer(&wire)
			if err != nil {
				t.Fatal(err)
			}
			got, err := readCandidate(&wire, a)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	tooMany := map[string]string{}
	for i := range maxAnnotations + 1 {
		tooMany[strings.Repeat("k", i+1)] = ""
	}
	for name, c := range map[string]trust.Candidate{
		"payload":     {ID: id, Form: trust.FormBundle, Payload: make([]byte, trust.MaxCandidateBytes+1)},
		"annotations": {ID: id, Form: trust.FormSimpleSigning, Annotations: tooMany},
		"together":    {ID: id, Form: trust.FormSimpleSigning, Payload: make([]byte, trust.MaxCandidateBytes), Annotations: map[string]string{"a": ""}},
	} {
		t.Run("passed over: "+name, func(t *testing.T) {
			var wire bytes.Buffer
			if written, err := writeCandidate(&wire, c); written || err != nil || wire.Len() > 0 {
				t.Errorf("writeCandidate = %v, %v, and %d bytes", written, err, wire.Len())
			}
		})
	}
}

// What a fetcher says reaches the other side as one of the few reasons.
func TestRefusalsOfTheChild(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want answer
	}{
		"as it is":       {reason.New(reason.ArtifactNotFound, "x", "HTTP 404"), answer{Reason: reason.ArtifactNotFound, Message: "HTTP 404"}},
		"when again":     {&reason.Error{Reason: reason.RateLimited, Detail: "d", RetryAfter: time.Minute}, answer{Reason: reason.RateLimited, Message: "d", RetryAfter: 60_000}},
		"much later":     {&reason.Error{Reason: reason.RateLimited, Detail: "d", RetryAfter: 1 << 60}, answer{Reason: reason.RateLimited, Message: "d", RetryAfter: maxRetryAfter.Milliseconds()}},
		"another reason": {reason.New(reason.InstallFailed, "file", "unreadable"), answer{Reason: reason.RegistryUnavailable, Message: "InstallFailed: file: unreadable"}},
		"no reason":      {errors.New("x\ny"), answer{Reason: reason.RegistryUnavailable, Message: "x y"}},
	} {
		t.Run(name, func(t *testing.T) {
			test.want.Kind = answerError
			if diff := cmp.Diff(test.want, refusalOf(answerError, "", test.err)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	longest := refusalOf(answerSkipped, digest.FromString("x"), errors.New(strings.Repeat("<", 10_000)))
	if _, err := encode(longest); err != nil {
		t.Errorf("the longest message does not fit: %v", err)
	}
}

// nothing is a fetcher that has one artifact, without any registry.
type nothing struct{ a fetchtest.Artifact }

func (n nothing) Manifest(context.Context, reference.Repository, digest.Digest) ([]byte, error) {
	return n.a.Manifest, nil
}

func (n nothing) Blob(_ context.Context, _ reference.Repository, desc ocispec.Descriptor) ([]byte, error) {
	return make([]byte, desc.Size+1), nil // longer than it may be
}

func (n nothing) Signatures(_ context.Context, _ reference.Repository, _ digest.Digest, seen func(digest.Digest) bool) artifact.Signatures {
	return &list{left: n.a.Signatures, seen: seen}
}

type list struct {
	left []trust.Candidate
	seen func(digest.Digest) bool
}

func (l *list) Next(context.Context) (trust.Candidate, error) {
	for len(l.left) > 0 {
		next := l.left[0]
		l.left = l.left[1:]
		if !l.seen(next.ID) {
			return next, nil
		}
	}
	return trust.Candidate{}, io.EOF
}

// FuzzRequest gives arbitrary bytes to the child's side of a request. Whatever
// it makes of them, it ends, and what it answers is in its form.
func FuzzRequest(f *testing.F) {
	d := digest.FromString("x")
	ask := func(what string, size int64) []byte {
		return frame(f, request{Ask: what, Repository: "registry.example/team/web", Digest: d, Size: size})
	}
	next := frame(f, word{Say: sayNext})
	f.Add(ask(askManifest, 0))
	f.Add(ask(askBlob, 100))
	f.Add(slicesOf(ask(askSignatures, 0), next, frame(f, word{Say: sayNo}), next, frame(f, word{Say: sayYes}), next, next))
	f.Add([]byte{0, 0, 16, 0, '{'})
	from := nothing{fetchtest.Example()}
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, theirs, err := pair()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		over := make(chan struct{})
		go func() {
			defer close(over)
			defer theirs.Close()
			h := &handler{from: from, conn: theirs, in: bufio.NewReader(theirs), cancel: cancel}
			h.handle(ctx)
		}()
		go func() {
			_, _ = ours.Write(data)
			_ = shutdownWrite(ours)
		}()
		in := bufio.NewReader(ours)
		if first, err := in.ReadByte(); err != nil || first != version {
			t.Fatalf("it began with %d, %v", first, err)
		}
		for {
			a, err := readAnswer(in)
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrClosed) && !isEnd(err) {
					t.Errorf("an answer is not in its form: %v", err)
				}
				break
			}
			if _, err := io.CopyN(io.Discard, in, a.Size); err != nil {
				t.Errorf("%s of %d bytes was cut off", a.Kind, a.Size)
			}
			if a.Kind == answerCandidate {
				skipTexts(t, in, 2*a.Annotations)
			}
		}
		_ = ours.Close()
		<-over
		if ctx.Err() == context.DeadlineExceeded {
			t.Error("it did not end")
		}
	})
}

func slicesOf(all ...[]byte) []byte { return bytes.Join(all, nil) }

func skipTexts(t *testing.T, in io.Reader, n int) {
	t.Helper()
	for range n {
		var length [4]byte
		if _, err := io.ReadFull(in, length[:]); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, in, int64(binary.BigEndian.Uint32(length[:]))); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzAnswer gives arbitrary bytes to the parent's side of each request. It
// never has bytes that were not asked for, and never an error that means more
// than that something could not be had.
func FuzzAnswer(f *testing.F) {
	a := fetchtest.Example()
	bundle, simple := &bytes.Buffer{}, &bytes.Buffer{}
	for i, c := range a.Signatures[1:3] {
		if _, err := writeCandidate([]*bytes.Buffer{bundle, simple}[i], c); err != nil {
			f.Fatal(err)
		}
	}
	end := frame(f, answer{Kind: answerEnd})
	f.Add(slicesOf([]byte{version}, frame(f, answer{Kind: answerBytes, Size: int64(len(a.Manifest))}), a.Manifest))
	f.Add(slicesOf([]byte{version}, frame(f, answer{Kind: answerBytes, Size: int64(len(a.Payloads[0]))}), a.Payloads[0]))
	f.Add(slicesOf([]byte{version}, frame(f, answer{Kind: answerError, Reason: reason.Unauthorized, Message: "HTTP 401", RetryAfter: 5})))
	f.Add(slicesOf([]byte{version}, frame(f, answer{Kind: answerSeen, ID: a.Digest()}), bundle.Bytes(), simple.Bytes(),
		frame(f, answer{Kind: answerSkipped, ID: a.Digest(), Reason: reason.TooLarge}), end, end))
	f.Fuzz(func(t *testing.T, data []byte) {
		for ask := range 3 {
			fuzzAnswer(t, a, ask, data)
		}
	})
}

func fuzzAnswer(t *testing.T, a fetchtest.Artifact, ask int, data []byte) {
	r := &Remote{log: testLog(t), limits: defaultLimits(), slots: make(chan struct{}, 1), changed: make(chan struct{})}
	parent, child := controls(t)
	r.link = newLink(parent, time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() {
		for {
			_, conn, err := receiveMessage(child)
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, conn) }()
			_, _ = conn.Write(data)
			_ = shutdownWrite(conn)
		}
	}()
	repo := reference.Repository{Host: "registry.example", Path: "team/web"}
	switch ask {
	case 0:
		got, err := r.Manifest(ctx, repo, a.Digest())
		wantBytesOrWithheld(t, got, a.Manifest, err)
	case 1:
		got, err := r.Blob(ctx, repo, a.Layers()[0])
		wantBytesOrWithheld(t, got, a.Payloads[0], err)
	case 2:
		w := r.Signatures(ctx, repo, a.Digest(), noneSeen)
		for {
			c, err := w.Next(ctx)
			var skipped *artifact.SkippedError
			switch {
			case err == nil && isSHA256(c.ID) && len(c.Payload) <= trust.MaxCandidateBytes && len(c.Annotations) <= maxAnnotations:
				continue
			case err == nil:
				t.Fatalf("offered %+v", c)
			case errors.As(err, &skipped):
				wantWithheld(t, skipped.Err)
				continue
			case !errors.Is(err, io.EOF):
				wantWithheld(t, err)
			}
			break
		}
	}
	_ = child.Close()
	_ = parent.Close()
	if ctx.Err() != nil {
		t.Error("it did not end")
	}
}

func wantBytesOrWithheld(t *testing.T, got, want []byte, err error) {
	t.Helper()
	if err != nil {
		wantWithheld(t, err)
	}
	if (err == nil) != bytes.Equal(got, want) || err != nil && got != nil {
		t.Errorf("got %q, %v", got, err)
	}
}
